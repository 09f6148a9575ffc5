"""The checkpoint that a policy's pods serve, and how they are made to serve another. `adapters` does the work."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from gog import adapters as names
from gog_operator.api.meta import Reason
from gog_operator.cluster import adapters
from gog_operator.cluster.interface import Refused
from gog_operator.cluster.trainer_client import SECONDS, Ask
from gog_operator.plan.actions import ServerView


def with_version(view: ServerView, pods: Sequence[str], version: str, ask: Ask) -> ServerView:
    """The view with the version, if every pod serves it.

    Args:
        view: of the server.
        pods: address of each pod.
        version: checkpoint, `grpo/120`.
        ask: how a pod is asked.
    """
    if not pods:
        return view
    with ThreadPoolExecutor(min(adapters.AT_ONCE, len(pods)), thread_name_prefix="ask") as threads:
        served = list(threads.map(lambda pod: serves(pod, version, ask), pods))
    return dataclasses.replace(view, version=version) if all(served) else view


def serves(pod: str, version: str, ask: Ask) -> bool:
    """Whether a pod has loaded the version and answers with it by default. vLLM has no default."""
    listed = ask(f"{pod}{adapters.MODELS}", SECONDS)
    cards = [each for each in (listed or {}).get("data") or () if isinstance(each, dict)]
    default = next((each.get("id") for each in cards if each.get("default")), None)
    name = names.name_of(version)
    return name in [each.get("id") for each in cards] and default in (None, name)


def load(pods: Sequence[str], version: str) -> None:
    """Makes one pass towards every pod serving the version. Raises Refused when another pass would not help."""
    outcome = adapters.ensure_version(pods, version, adapters.asker())
    if outcome.state == "failed":
        raise Refused(Reason.SERVING, outcome.message)
