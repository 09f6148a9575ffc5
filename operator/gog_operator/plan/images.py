"""The image that an object's pods run: chosen once, resolved by what a node reports, and kept. Pure.

Problem: a tag may move, and an operator upgrade changes the default image, so neither the manifest nor the chart says what a
run was trained with. Decision: the reference is written to the status with the number of the attempt, before its job exists.
The nodes report what they resolved it to; a later attempt of the same stage uses that digest. An annotation lets an object
follow the operator's default instead. An image that a node did not pull has no digest: that is a condition, not a failure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gog_operator.api.meta import ImageStatus, JobReference, Reason
from gog_operator.api.objects import GoGRun, Stage
from gog_operator.plan.actions import Launcher

SHORT = 19
"""Characters of a digest in messages: `sha256:` and twelve digits."""


def chosen(stage: Stage, launcher: Launcher) -> ImageStatus:
    """The image of the stage's next attempt: that of the last one, by digest where it is known."""
    kept = stage.status.image.pullable or stage.status.image.reference
    return ImageStatus(reference=launcher.image if not kept or stage.follows_upgrades else kept)


def numbered(stage: Stage, attempt: int, launcher: Launcher | None) -> Mapping[str, Any]:
    """Fields of a stage's status that are fixed with an attempt's number; none on one machine, which has no pods."""
    if launcher is None:
        return {}
    job = JobReference(api_version=launcher.api_version, kind=launcher.kind, name=launcher.job_name(stage, attempt))
    return {"image": chosen(stage, launcher), "job_ref": job, "pods": ()}


def observed(image: ImageStatus, ids: Iterable[str]) -> ImageStatus:
    """The image with what its pods report. ids: distinct image ids of its containers; none before they have started."""
    found = sorted(set(ids))
    return image.model_copy(update={"id": ", ".join(found)}) if found and not image.id else image


def pinned(image: ImageStatus) -> tuple[bool, Reason, str] | None:
    """The condition ImagePinned: status, reason and message; None before a node reports an image."""
    if not image.id:
        return None
    if image.pullable:
        return True, Reason.PINNED, image.id
    if ", " in image.id:
        cause = f"pods run different images of {image.reference}: {image.id}"
        return False, Reason.IMAGES_DIFFER, f"{cause}; give the image by digest, or a tag that does not move"
    cause = f"the node has {image.reference} as {image.id[:SHORT]}, without a registry's digest"
    remedy = "push the image to a registry and let the node pull it, or give the image by digest"
    return False, Reason.IMAGE_UNRESOLVED, f"{cause}: another attempt uses the name again; {remedy}"


def of_run(run: GoGRun, stages: Iterable[Stage]) -> dict[str, str]:
    """What each stage of the run was started with, by store key: the digest where it is known, else the reference."""
    found = {each.store_key: each.status.image.id or each.status.image.reference for each in stages}
    return dict(run.status.images) | {key: image for key, image in found.items() if image}
