"""The policy's server of `gog chat`: the one that the manifest names (`endpoints.policy`), or gog's own.

A server that exists already (`url`) is asked which versions it has, and is never changed. A vLLM that gog starts loads the
checkpoint's adapters as one. gog's own server has the options of the manifest, too.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gog import api_keys, offers
from gog import spec as settings
from gog.errors import UserError
from gog_console import one_server
from gog_operator.api.objects import GoGRun
from gog_operator.build import children, servers
from gog_operator.cluster import adapters, local_agents

SECONDS = 600.0
"""In which a policy must be loaded."""
WHERE = "endpoints.policy"


@dataclass(frozen=True)
class Served:
    """A policy that answers."""

    url: str
    """Base URL of its server."""
    model: str
    """Name under which it is asked; empty for the server's default."""


@contextlib.contextmanager
def started(run: GoGRun, kept: settings.StoreSpec, version: str) -> Iterator[Served]:
    """The server of a checkpoint of a run, for as long as it is needed.

    Args:
        run: the run.
        kept: its store.
        version: the checkpoint, `grpo/60`.

    Raises:
        UserError: it does not start, or does not have the checkpoint.
    """
    given = run.spec.endpoints.policy
    if given is not None and given.url is not None:
        url = given.url.split(",")[0].strip().rstrip("/")
        yield Served(url, given.model or _listed(url, version))
        return
    with one_server.started("policy", line(run, kept, version), seconds=SECONDS, where=version) as url:
        if given is None or given.runtime != "vllm":
            yield Served(url, "")
            return
        with tempfile.TemporaryDirectory(prefix="gog-adapter-") as scratch:
            yield Served(url, _load(url, kept, version, Path(scratch)))


def line(run: GoGRun, kept: settings.StoreSpec, version: str) -> list[str]:
    """Arguments of `gog serve policy`: those of the manifest's server, and the checkpoint."""
    endpoints = run.spec.endpoints
    if endpoints.policy is None:
        endpoints = endpoints.model_copy(update={"policy": settings.PolicyEndpointSpec()})
    spec = run.spec.model_copy(update={"endpoints": endpoints})
    made = children.policy(run.model_copy(update={"spec": spec}), kept, version)
    arguments = servers.arguments(made, host="127.0.0.1", port=made.spec.port)[1:]
    return arguments if made.spec.runtime == "vllm" else [*arguments, "--version", version]


def _listed(url: str, version: str) -> str:
    """The name of a checkpoint on a server that has it. Raises UserError."""
    try:
        names = [str(card["id"]) for card in _call(f"{url.removesuffix('/v1')}/v1/models")["data"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"does not list its models: {error}", where=f"{WHERE}.url {url}") from None
    name = offers.name_of(version)
    if name not in names:
        raise UserError(
            f"has no {name}, only {', '.join(names) or 'nothing'}",
            where=f"{WHERE}.url {url}",
            remedy=f"load {version} there under this name, or name one of them: {WHERE}.model",
        )
    return name


def _load(url: str, kept: settings.StoreSpec, version: str, folder: Path) -> str:
    """Loads a checkpoint into a vLLM of this machine. Returns its name there. Raises UserError."""
    request = adapters.requester(api_keys.from_environment(settings.key_variable("policy")), seconds=SECONDS)
    outcome = adapters.ensure_version(
        (url,), version, request, fetch=lambda ref: local_agents.fetched(kept, ref, folder)
    )
    if outcome.state != "done":
        raise UserError(outcome.message, where=WHERE)
    return offers.name_of(version)


def _call(url: str) -> Any:
    """The answer of a GET request as JSON. Raises OSError, ValueError."""
    key = api_keys.from_environment(settings.key_variable("policy"))
    headers = {"authorization": f"Bearer {key}"} if key else {}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=SECONDS) as answer:
        return json.loads(answer.read())
