"""Agents of one machine: publications in this process, versions of a policy on loopback, counts of chats.

What a control loop asks in every sweep is asked of a server once a second at most.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from gog import offers, store
from gog import spec as settings
from gog.errors import UserError
from gog.offers import Asked
from gog_operator.api.objects import Progress
from gog_operator.cluster import policies, trainer_client
from gog_operator.plan.actions import PublicationView, ServerView

SECONDS = 1.0
"""Between two questions to a server."""


class LocalAgents:
    """What a control loop knows of its run's agent, or of its own.

    Args:
        clock: Monotonic time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.publication = PublicationView("absent")
        self._clock = clock
        self._served: tuple[ServerView, str] | None = None
        self._chats: Progress | None = None
        self._due: dict[str, float] = {}

    def publish(self, own: settings.StoreSpec, target: settings.StoreSpec, asked: Asked) -> None:
        """Publishes a version. A store that does not answer is asked again by a later pass."""
        from gog import publication  # with numpy, which commands that only look do not need

        try:
            published = publication.publish(store.open_store(own), store.open_store(target), asked)
        except store.Unavailable:
            return
        except UserError as error:
            self.publication = PublicationView("failed", message=error.sentence())
        else:
            self.publication = PublicationView("done", published)

    def version(self, view: ServerView, wanted: str) -> str:
        """The wanted versions if the policy serves them, else none."""
        if self._served == (view, wanted):
            return wanted
        if not wanted or not self._is_due(view.url):
            return ""
        if policies.serve((view.url,), wanted, trainer_client.request):
            self._served = (view, wanted)
        return wanted if self._served == (view, wanted) else ""

    def load(self, url: str, version: str, kept: settings.StoreSpec, folder: Path) -> None:
        """Makes one pass of a rollout.

        Args:
            url: of the policy's server.
            version: checkpoints, the default first, separated by spaces.
            kept: the store that they are in.
            folder: for the adapters of a vLLM, which reads no store.

        Raises:
            UserError: it fails for good.
        """
        outcome = policies.load((url,), version, fetch=lambda ref: fetched(kept, ref, folder))
        self._due.pop(url, None)
        if outcome.state == "failed":
            raise UserError(outcome.message, where=version)

    def chats(self, url: str) -> Progress | None:
        """What the agent at a URL reports."""
        if self._is_due(f"{url}/progress"):
            answer = trainer_client.request(f"{url}/progress", trainer_client.SECONDS)
            self._chats = trainer_client.parse_progress(answer)
        return self._chats

    def routes(self, path: Path) -> str:
        """Routes that were written; empty where there are none."""
        try:
            return path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""

    def _is_due(self, what: str) -> bool:
        now = self._clock()
        if now < self._due.get(what, 0.0):
            return False
        self._due[what] = now + SECONDS
        return True


def fetched(kept: settings.StoreSpec, ref: str, folder: Path) -> str:
    """Folder below another one with a checkpoint's policy as one adapter. Raises UserError, store.Unavailable."""
    from gog import adapters  # with numpy, as above

    target = folder / offers.name_of(ref)
    if not target.exists():  # a checkpoint never changes
        folder.mkdir(parents=True, exist_ok=True)
        adapters.fetch_servable(store.open_store(kept), ref, target)
    return str(target)
