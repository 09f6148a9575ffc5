"""What pods tell: how they ended, and why they do not start. Pure: lists of API documents in, plain words out.

A pod's last words are its termination message, which holds the tail of its log when it failed; so logs are never
fetched, and nothing is lost with a node. Of several pods that ended, the one that ended first of itself is the cause:
its peers were ended because of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gog_operator.api.meta import Reason
from gog_operator.cluster import exit_codes
from gog_operator.plan.actions import Blocked

Pod = Mapping[str, Any]
IMAGE_REASONS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError")
LATE = "9999"
PLATFORM_REASONS = ("Evicted", "Preempting", "Preempted", "NodeLost", "NodeShutdown", "Shutdown", "Terminated")


@dataclass(frozen=True)
class Ending:
    """exit_code: negative for a signal, None where no container says. lines: the last ones. cause: what the platform
    says of it, nothing where the program ended by itself. disrupted: it was ended from outside, for reasons that have
    nothing to do with it (preemption, a drained or lost node, somebody's wish)."""

    exit_code: int | None = None
    lines: tuple[str, ...] = ()
    cause: str = ""
    disrupted: bool = False


def ending(pods: Iterable[Pod], prefix: str = "") -> Ending:
    """How the pods of a job that did not end well ended. prefix: of pods' names, left out of sentences."""
    found = [each for pod in pods for each in _endings(pod, prefix)]
    return min(found, key=lambda each: each[:2])[2] if found else Ending()


def _endings(pod: Pod, prefix: str) -> Iterator[tuple[bool, str, Ending]]:
    """Failures of one pod, with what they are ordered by: of itself first, then by time."""
    disturbed, outside = disturbance(pod), is_disrupted(pod)
    named = f"pod {short_name(pod, prefix)}"
    terminated = [each for each in _terminated(pod) if each.get("exitCode") != 0]
    for each in terminated:
        code = int(each.get("exitCode") or 0)
        out_of_memory = each.get("reason") == "OOMKilled"
        cause = f"{named} OOMKilled" if out_of_memory else (f"{named} {disturbed}" if disturbed else "")
        by_others = exit_codes.normalized(code) in exit_codes.BY_OTHERS and not cause
        words = Ending(exit_codes.normalized(code), lines_of(each), cause, outside and not out_of_memory)
        yield by_others, str(each.get("finishedAt") or LATE), words
    if not terminated and (disturbed or pod.get("status", {}).get("phase") == "Failed"):
        told = disturbed or pod["status"].get("message") or pod["status"].get("reason") or "failed"
        yield False, LATE, Ending(None, (), f"{named} {told}", outside)


def disturbance(pod: Pod) -> str:
    """`evicted (node preempted)`, when it was the platform that ended the pod."""
    status = pod.get("status", {})
    if status.get("reason") in PLATFORM_REASONS:
        return f"evicted ({status.get('message') or status['reason']})"
    for each in status.get("conditions") or ():
        if each.get("type") == "DisruptionTarget" and each.get("status") == "True":
            return f"evicted ({each.get('message') or each.get('reason')})"
    return ""


def is_disrupted(pod: Pod) -> bool:
    """Whether a pod was ended for another's sake. The kubelet's own evictions are not of this kind: a pod that fills the
    disk or the memory of its node will do so again."""
    found = (each for each in pod.get("status", {}).get("conditions") or () if each.get("type") == "DisruptionTarget")
    return any(each.get("status") == "True" and each.get("reason") != "TerminationByKubelet" for each in found)


def short_name(pod: Pod, prefix: str) -> str:
    """`trainer-0` of `world-sft-a1-trainer-0-0`: Volcano adds a number that is always 0 here."""
    name = str(pod["metadata"]["name"]).removeprefix(f"{prefix}-")
    return name.removesuffix("-0") if name.count("-") > 1 else name


def lines_of(terminated: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(terminated.get("message") or "").strip().splitlines())


def message(pods: Iterable[Pod]) -> str | None:
    """Termination message of the newest container that ended well; None where there is none."""
    found = [
        (str(each.get("finishedAt") or ""), str(each.get("message") or ""))
        for pod in pods
        for each in _terminated(pod)
        if each.get("exitCode") == 0
    ]
    return max(found)[1] if found else None


def crash(pods: Iterable[Pod], after: int) -> Ending | None:
    """Of a server whose container ends again and again: at least `after` times, or once by refusing its input (2)."""
    for pod in pods:
        for each in _containers(pod):
            if each.get("ready"):
                continue
            last = each.get("state", {}).get("terminated") or each.get("lastState", {}).get("terminated")
            if last and (int(each.get("restartCount") or 0) >= after or last.get("exitCode") == 2):
                cause = f"pod {pod['metadata']['name']} OOMKilled" if last.get("reason") == "OOMKilled" else ""
                return Ending(exit_codes.normalized(int(last.get("exitCode") or 0)), lines_of(last), cause)
    return None


def started(pods: Iterable[Pod]) -> bool:
    """Whether a container of any of them has begun."""
    states = [each.get("state") or {} for pod in pods for each in _containers(pod)]
    return any("running" in each or "terminated" in each for each in states)


def blocked(pods: Iterable[Pod], prefix: str = "") -> Blocked | None:
    """Why pods do not start, where that does not simply take its time."""
    return next((each for pod in pods if (each := _blocked(pod, prefix)) is not None), None)


def _blocked(pod: Pod, prefix: str) -> Blocked | None:
    named = f"pod {short_name(pod, prefix)}"
    for each in _containers(pod):
        waiting = each.get("state", {}).get("waiting") or {}
        reason, told = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
        if reason in IMAGE_REASONS:
            return Blocked(Reason.IMAGE_MISSING, f"{named}: image {each.get('image')} cannot be had: {told or reason}")
        if reason == "CreateContainerConfigError":
            kind = Reason.SECRET_MISSING if "secret" in told else Reason.PENDING
            return Blocked(kind, f"{named}: {told or reason}")
        if reason in ("CreateContainerError", "RunContainerError"):
            return Blocked(Reason.PENDING, f"{named}: {told or reason}")
    for each in pod.get("status", {}).get("conditions") or ():
        if each.get("type") == "PodScheduled" and each.get("status") == "False":
            return Blocked(Reason.UNSCHEDULABLE, f"{named}: {each.get('message') or each.get('reason')}")
    return None


def _containers(pod: Pod) -> list[Mapping[str, Any]]:
    status = pod.get("status", {})
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def _terminated(pod: Pod) -> list[Mapping[str, Any]]:
    """What ended; a container that starts again tells of its last time."""
    states = ((each.get("state") or {}, each.get("lastState") or {}) for each in _containers(pod))
    found = (now.get("terminated") or before.get("terminated") for now, before in states)
    return [each for each in found if each]
