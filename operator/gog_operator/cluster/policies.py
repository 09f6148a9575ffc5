"""Reads and changes the checkpoint that a policy's pods serve, by means of `adapters`."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from gog import offers
from gog_operator.cluster import adapters
from gog_operator.cluster.trainer_client import SECONDS, Request


def serve(pods: Sequence[str], version: str, request: Request) -> bool:
    """Whether every pod serves a version.

    Args:
        pods: Address of each pod.
        version: The checkpoint, such as `grpo/120`, and further ones that are loaded, separated by spaces.
        request: Sends a request to a pod.
    """
    with ThreadPoolExecutor(min(adapters.AT_ONCE, len(pods)), thread_name_prefix="request") as threads:
        return all(list(threads.map(lambda pod: serves(pod, version, request), pods)))


def serves(pod: str, version: str, request: Request) -> bool:
    """Whether a pod has loaded the version and serves it by default. vLLM has no default."""
    answer = request(f"{pod}{adapters.MODELS}", SECONDS)
    cards = [each for each in (answer or {}).get("data") or () if isinstance(each, dict)]
    default = next((each.get("id") for each in cards if each.get("default")), None)
    wanted = [offers.name_of(each) for each in version.split()]
    listed = {each.get("id") for each in cards}
    return listed.issuperset(wanted) and default in (None, wanted[0])


def load(
    pods: Sequence[str], version: str, token: str = "", *, fetch: adapters.Fetch | None = None
) -> adapters.Outcome:
    """Makes one pass of the version's rollout.

    Args:
        pods: Address of each pod.
        version: The checkpoint, such as `grpo/120`.
        token: The token that the pods require; empty where they require none.
        fetch: Fetches a checkpoint for a vLLM of this machine.
    """
    return adapters.ensure_version(pods, version, adapters.requester(token), fetch=fetch)
