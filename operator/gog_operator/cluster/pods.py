"""How pods ended, and why they do not start. Pure: API documents in, plain records out.

The termination message of a failed pod holds its error or the tail of its log, so that logs need not be fetched and are
not lost with a node. If several pods of a job ended, the first one that exited by itself is the cause; its peers were
terminated because of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from gog_operator.api import exit_codes
from gog_operator.api.meta import Reason
from gog_operator.build import predictor
from gog_operator.plan.actions import Blocked

Pod = Mapping[str, Any]
IMAGE_REASONS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError")
LATE = "9999"
"""Sort key of an end without a time; sorts after every time."""
MAIN = re.compile(rf"trainer(-\d+)?|{predictor.CONTAINER}")
"""Names of main containers. Sidecars, of a mesh or of gog's own, have other images."""
PLATFORM_REASONS = ("Evicted", "Preempting", "Preempted", "NodeLost", "NodeShutdown", "Shutdown", "Terminated")


@dataclass(frozen=True)
class Ending:
    """How a job's pods ended."""

    exit_code: int | None = None
    """Negative for a signal; None when no container reports one."""
    lines: tuple[str, ...] = ()
    """Lines of the termination message."""
    cause: str = ""
    """Why the platform ended it: `pod trainer-0 OOMKilled`; empty if the program exited by itself."""
    disrupted: bool = False
    """Whether the pod was disrupted: preemption, a drained or lost node, a deletion."""


def ending(pods: Iterable[Pod], prefix: str = "") -> Ending:
    """How the pods of an unsuccessful job ended. prefix: prefix of the pods' names, which messages omit."""
    found = [each for pod in pods for each in _endings(pod, prefix)]
    return min(found, key=lambda each: each[:2])[2] if found else Ending()


def _endings(pod: Pod, prefix: str) -> Iterator[tuple[bool, str, Ending]]:
    """Failures of one pod with their sort keys: containers that exited by themselves first, then by time."""
    evicted, outside = eviction(pod), is_disrupted(pod)
    named = f"pod {short_name(pod, prefix)}"
    terminated = [each for each in _terminated(pod) if each.get("exitCode") != 0]
    for each in terminated:
        code = int(each.get("exitCode") or 0)
        out_of_memory = each.get("reason") == "OOMKilled"
        cause = f"{named} OOMKilled" if out_of_memory else (f"{named} {evicted}" if evicted else "")
        by_others = exit_codes.normalized(code) in exit_codes.BY_OTHERS and not cause
        end = Ending(exit_codes.normalized(code), lines_of(each), cause, outside and not out_of_memory)
        yield by_others, str(each.get("finishedAt") or LATE), end
    if not terminated and (evicted or pod.get("status", {}).get("phase") == "Failed"):
        what = evicted or pod["status"].get("message") or pod["status"].get("reason") or "failed"
        yield False, LATE, Ending(None, (), f"{named} {what}", outside)


def eviction(pod: Pod) -> str:
    """`evicted (node preempted)` when the platform ended the pod, else ""."""
    status = pod.get("status", {})
    if status.get("reason") in PLATFORM_REASONS:
        return f"evicted ({status.get('message') or status['reason']})"
    for each in status.get("conditions") or ():
        if each.get("type") == "DisruptionTarget" and each.get("status") == "True":
            return f"evicted ({each.get('message') or each.get('reason')})"
    return ""


def is_disrupted(pod: Pod) -> bool:
    """Whether a pod was disrupted. The kubelet's own evictions do not count, because a pod that fills the disk or the
    memory of its node will do so again."""
    found = (each for each in pod.get("status", {}).get("conditions") or () if each.get("type") == "DisruptionTarget")
    return any(each.get("status") == "True" and each.get("reason") != "TerminationByKubelet" for each in found)


def short_name(pod: Pod, prefix: str) -> str:
    """`trainer-0` for `world-sft-a1-trainer-0-0`; Volcano appends an index that is always 0 here."""
    name = str(pod["metadata"]["name"]).removeprefix(f"{prefix}-")
    return name.removesuffix("-0") if name.count("-") > 1 else name


def lines_of(terminated: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(terminated.get("message") or "").strip().splitlines())


def message(pods: Iterable[Pod]) -> str | None:
    """Termination message of the newest container that exited with code 0; None if no container did."""
    found = [
        (str(each.get("finishedAt") or ""), str(each.get("message") or ""))
        for pod in pods
        for each in _terminated(pod)
        if each.get("exitCode") == 0
    ]
    return max(found)[1] if found else None


def crash(pods: Iterable[Pod], after: int) -> Ending | None:
    """How a crash-looping server ended. Counts from `after` restarts, or from the first exit with code 2 (invalid
    input)."""
    for pod in pods:
        for each in _containers(pod):
            if each.get("ready"):
                continue
            last = each.get("state", {}).get("terminated") or each.get("lastState", {}).get("terminated")
            if last and (int(each.get("restartCount") or 0) >= after or last.get("exitCode") == 2):
                cause = f"pod {pod['metadata']['name']} OOMKilled" if last.get("reason") == "OOMKilled" else ""
                return Ending(exit_codes.normalized(int(last.get("exitCode") or 0)), lines_of(last), cause)
    return None


def images(pods: Iterable[Pod]) -> tuple[str, ...]:
    """Distinct ids of the images of their main containers, as the nodes report them once an image is there."""
    found = (each for pod in pods for each in _main(pod) if MAIN.fullmatch(str(each.get("name"))))
    return tuple(sorted({str(each["imageID"]) for each in found if each.get("imageID")}))


def all_report(pods: Sequence[Pod], count: int) -> bool:
    """Whether there are so many pods, and their nodes report the image of each."""
    return len(pods) >= count and all(images([pod]) for pod in pods)


def names(pods: Iterable[Pod]) -> tuple[str, ...]:
    return tuple(sorted(str(pod["metadata"]["name"]) for pod in pods))


def started(pods: Iterable[Pod]) -> bool:
    """Whether any of them runs or ran; one whose init containers run is still pending."""
    states = [each.get("state") or {} for pod in pods for each in _main(pod)]
    return any("running" in each or "terminated" in each for each in states)


def first_start(pods: Iterable[Pod]) -> datetime | None:
    """When the first of their containers started; None while none has, as while init containers fetch a base model."""
    times = [
        each["startedAt"]
        for pod in pods
        for container in _main(pod)
        for state in (container.get("state") or {}, container.get("lastState") or {})
        for each in (state.get("running") or {}, state.get("terminated") or {})
        if each.get("startedAt")
    ]
    return datetime.fromisoformat(min(times)) if times else None


def blocked(pods: Iterable[Pod], prefix: str = "") -> Blocked | None:
    """Why pods do not start; None if no problem is reported, however long they take."""
    return next((each for pod in pods if (each := _blocked(pod, prefix)) is not None), None)


def waiting(pod: Pod) -> set[str]:
    """Reasons for which containers of a pod wait."""
    states = [(each.get("state") or {}).get("waiting") or {} for each in _containers(pod)]
    return {str(each["reason"]) for each in states if each.get("reason")}


def _blocked(pod: Pod, prefix: str) -> Blocked | None:
    named = f"pod {short_name(pod, prefix)}"
    for each in _containers(pod):
        waiting = each.get("state", {}).get("waiting") or {}
        reason, detail = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
        if reason in IMAGE_REASONS:
            return Blocked(
                Reason.IMAGE_MISSING, f"{named}: image {each.get('image')} cannot be pulled: {detail or reason}"
            )
        if reason == "CreateContainerConfigError":
            kind = Reason.SECRET_MISSING if "secret" in detail else Reason.PENDING
            return Blocked(kind, f"{named}: {detail or reason}")
        if reason in ("CreateContainerError", "RunContainerError"):
            return Blocked(Reason.PENDING, f"{named}: {detail or reason}")
    for each in pod.get("status", {}).get("conditions") or ():
        if each.get("type") == "PodScheduled" and each.get("status") == "False":
            return Blocked(Reason.UNSCHEDULABLE, f"{named}: {each.get('message') or each.get('reason')}")
    return None


def _containers(pod: Pod) -> list[Mapping[str, Any]]:
    status = pod.get("status", {})
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def _main(pod: Pod) -> list[Mapping[str, Any]]:
    """Statuses of the containers besides the init containers."""
    return list(pod.get("status", {}).get("containerStatuses") or ())


def _terminated(pod: Pod) -> list[Mapping[str, Any]]:
    """Terminated states of containers; for a restarted container, the previous one."""
    states = ((each.get("state") or {}, each.get("lastState") or {}) for each in _containers(pod))
    found = (current.get("terminated") or last.get("terminated") for current, last in states)
    return [each for each in found if each]
