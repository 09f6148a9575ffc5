"""Watches resources by kopf. An event selects the objects that need a pass, and refreshes the cache.

Handlers add keys to the queue and return. Kopf stores no state in our objects (no finalizer, no annotation), has no
peers and needs no permission outside the watched namespaces. A lost event only causes delay, because the resync finds
the object. A child's event also queues its owner and its run; a ToolServer's event also queues the stages that wait for
it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import kopf

from gog_operator.api import meta
from gog_operator.api.meta import RUN_LABEL
from gog_operator.api.objects import KINDS, STAGE_OF
from gog_operator.build.meta import OWNER_LABEL
from gog_operator.cluster import paths
from gog_operator.cluster.object_cache import ObjectCache
from gog_operator.workqueue import Key, WorkQueue

WATCHED = (*paths.OURS.values(), paths.VOLCANO_JOBS, paths.INFERENCE_SERVICES, paths.DEPLOYMENTS, paths.JOBS)
OURS = {resource.name: kind for kind, resource in paths.OURS.items()}
STAGES = {name for name, kind in OURS.items() if kind in STAGE_OF}
PAGE = 250
AGAIN = 5.0
"""Seconds until watches that failed start again."""
FOLLOW_SECONDS = 1.0
"""Seconds between two looks at which namespaces can be listed."""
Body = Mapping[str, Any]

log = logging.getLogger(__name__)


class Watcher:
    """Turns events into keys.

    Args:
        queue: Queue for the keys.
        seen: Resource versions that a resync has listed. A watch starts with a list of the same versions, which need no
            pass.
        cache: Keeps the events' objects.
    """

    def __init__(self, queue: WorkQueue, seen: dict[Key, str], cache: ObjectCache) -> None:
        self.queue, self.seen, self.cache = queue, seen, cache
        self.waiting: dict[tuple[str, str], set[Key]] = defaultdict(set)
        """Unfinished stages that need a ToolServer, by its (namespace, name)."""

    def event(self, resource: str, type_: str | None, body: Body) -> None:
        """Handles one event.

        Args:
            resource: Name of the resource, such as `gogruns.gog.dev`.
            type_: ADDED, MODIFIED or DELETED; None for an object in a watch's initial list.
            body: The object.
        """
        metadata = body["metadata"]
        place = Key(resource, metadata["namespace"], metadata["name"])
        known, version = self.seen.get(place), str(metadata.get("resourceVersion"))
        self.seen[place] = version
        if type_ == "DELETED":
            self.seen.pop(place, None)
        self.cache.observe(resource, type_, body)  # before the pass is queued that reads it
        if resource in STAGES:
            self._track(place._replace(kind=OURS[resource]), type_, body)
        if type_ is not None or known != version:
            for key in self.keys(place, metadata):
                self.queue.add(key)

    def keys(self, place: Key, metadata: Mapping[str, Any]) -> set[Key]:
        """The objects that need a pass after an event. Tenants choose owner references and labels, so a name that no
        object can have is ignored.

        Args:
            place: The event's object, with its resource's name as kind.
            metadata: Its metadata.
        """
        found = {(OURS[place.kind], place.name)} if place.kind in OURS else set()
        for owner in metadata.get("ownerReferences") or ():
            if owner.get("kind") in KINDS and str(owner.get("apiVersion")).startswith(f"{paths.GROUP}/"):
                found.add((owner["kind"], owner["name"]))
        labels = metadata.get("labels") or {}
        if place.kind == paths.DEPLOYMENTS.name and OWNER_LABEL in labels:  # created by KServe for a ToolServer
            found.add(("ToolServer", labels[OWNER_LABEL]))
        if RUN_LABEL in labels:
            found.add(("GoGRun", labels[RUN_LABEL]))
        keys = {Key(kind, place.namespace, name) for kind, name in found if meta.is_name(name)}
        if OURS.get(place.kind) == "ToolServer":
            keys |= self.waiting.get((place.namespace, place.name), set())
        return keys

    def _track(self, stage: Key, type_: str | None, body: Body) -> None:
        """Remembers which ToolServers an unfinished stage needs."""
        conditions = body.get("status", {}).get("conditions") or ()
        over = type_ == "DELETED" or any(
            each.get("type") in ("Complete", "Failed") and each.get("status") == "True" for each in conditions
        )
        for name in (body.get("spec", {}).get("endpoints") or {}).values():
            waiting = self.waiting[stage.namespace, name]
            if over:
                waiting.discard(stage)
            else:
                waiting.add(stage)
            if not waiting:
                del self.waiting[stage.namespace, name]


def registry(watcher: Watcher, ready: threading.Event) -> kopf.OperatorRegistry:
    """Kopf's handlers. ready: watches start once it is set."""
    handlers = kopf.OperatorRegistry()

    @kopf.on.startup(registry=handlers)
    async def begin(settings: kopf.OperatorSettings, **_: Any) -> None:
        configure(settings)
        while not ready.is_set():
            await asyncio.sleep(0.05)

    @kopf.on.login(registry=handlers)
    def login(**known: Any) -> Any:
        return kopf.login_via_client(**known)

    for resource in WATCHED:

        @kopf.on.event(resource.group, resource.version, resource.plural, registry=handlers, id=resource.plural)
        async def see(type: str | None, body: Body, resource: kopf.Resource, **_: Any) -> None:
            watcher.event(f"{resource.plural}.{resource.group}", type, body)

    return handlers


def configure(settings: kopf.OperatorSettings) -> None:
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.watching.chunk_size = PAGE
    settings.watching.server_timeout = 300
    settings.networking.request_timeout = 30
    settings.queueing.idle_timeout = 0.05  # ends kopf's task of an object, which keeps its last document in memory
    for resource in WATCHED:
        if resource not in paths.OURS.values():
            settings.watching.label_selectors[resource.group, resource.version, resource.plural] = paths.LABEL


def watch(
    watcher: Watcher,
    namespaces: Callable[[], tuple[str | None, ...]],
    ready: threading.Event,
    *,
    run: Callable[..., Awaitable[None]] = kopf.operator,
) -> None:
    """Watches until SIGTERM or SIGINT; must run in the main thread.

    Kopf stops all watches when one fails for good, as those of a namespace do whose Role was deleted. The watches then
    start again, in the namespaces that can be listed.

    Args:
        watcher: Handles the events.
        namespaces: Returns the namespaces that can be listed; (None,) for the whole cluster.
        ready: Watches start once it is set.
        run: Runs a kopf operator.
    """
    logging.getLogger("kopf.objects").setLevel(logging.ERROR)
    asyncio.run(_watch(watcher, namespaces, ready, run))


async def _watch(
    watcher: Watcher,
    namespaces: Callable[[], tuple[str | None, ...]],
    ready: threading.Event,
    run: Callable[..., Awaitable[None]],
) -> None:
    while True:
        watched, changed = namespaces(), asyncio.Event()
        following = asyncio.create_task(_follow(namespaces, watched, changed))
        everywhere = None in watched
        try:
            await run(
                registry=registry(watcher, ready),
                standalone=True,
                clusterwide=everywhere,
                namespaces=[] if everywhere else [each for each in watched if each],
                stop_flag=changed,
            )
            if not changed.is_set():
                return  # by a signal
        except Exception:
            log.exception("watching failed; it starts again in %.0f s", AGAIN)
            await asyncio.sleep(AGAIN)
        finally:
            following.cancel()


async def _follow(
    namespaces: Callable[[], tuple[str | None, ...]], watched: tuple[str | None, ...], changed: asyncio.Event
) -> None:
    """Sets the event once other namespaces are to be watched."""
    while namespaces() == watched:
        await asyncio.sleep(FOLLOW_SECONDS)
    changed.set()
