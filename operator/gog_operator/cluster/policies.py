"""Reads and changes the checkpoint that a policy's pods serve, by means of `adapters`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from gog import adapters as names
from gog_operator.api.meta import Reason
from gog_operator.cluster import adapters
from gog_operator.cluster.interface import Refused
from gog_operator.cluster.trainer_client import SECONDS, Request
from gog_operator.plan.actions import ServerView


def with_version(view: ServerView, pods: Sequence[str], version: str, request: Request) -> ServerView:
    """The view with the version, if every pod serves it.

    Args:
        view: View of the server.
        pods: Address of each pod.
        version: The checkpoint, such as `grpo/120`.
        request: Sends a request to a pod.
    """
    if not pods:
        return view
    with ThreadPoolExecutor(min(adapters.AT_ONCE, len(pods)), thread_name_prefix="request") as threads:
        served = list(threads.map(lambda pod: serves(pod, version, request), pods))
    return dataclasses.replace(view, version=version) if all(served) else view


def serves(pod: str, version: str, request: Request) -> bool:
    """Whether a pod has loaded the version and serves it by default. vLLM has no default."""
    listed = request(f"{pod}{adapters.MODELS}", SECONDS)
    cards = [each for each in (listed or {}).get("data") or () if isinstance(each, dict)]
    default = next((each.get("id") for each in cards if each.get("default")), None)
    name = names.name_of(version)
    return name in [each.get("id") for each in cards] and default in (None, name)


def load(pods: Sequence[str], version: str) -> None:
    """Makes one pass of the version's rollout. Raises Refused if another pass would not help."""
    outcome = adapters.ensure_version(pods, version, adapters.requester())
    if outcome.state == "failed":
        raise Refused(Reason.SERVING, outcome.message)
