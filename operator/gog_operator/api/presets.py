"""GoGRuntime: what an administrator knows about pods of a kind of node, under a name that manifests use.

It is cluster-scoped, so that tenants read presets and only an administrator writes them. A run names one
(`runtime: h100-efa`). Its content is copied into each stage and server when that is created, so an edit changes nothing
that exists. What a manifest sets itself takes precedence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from gog import spec as settings
from gog.spec import Spec
from gog_operator.api.objects import KINDS, GoGRun, Object, document, parse


class GoGRuntimeSpec(Spec):
    """Patches and defaults of the pods of runs that name this preset."""

    summary: str = Field(
        "",
        max_length=256,
        description="What it is for, in a line: `8 H100 with EFA, in one placement group`. Default: empty.",
    )
    pods: tuple[settings.PodPatch, ...] = Field(
        (), max_length=8, description="Patches of pods, applied before those of the manifest. Default: none."
    )
    workers: settings.WorkersSpec = Field(
        settings.WorkersSpec(), description="Defaults of `workers` of every stage, field by field."
    )
    scheduling: settings.SchedulingSpec = Field(
        settings.SchedulingSpec(), description="Defaults of `scheduling`, field by field."
    )


class GoGRuntime(Object):
    """A preset of pods for runs: an administrator writes it, a manifest names it in `spec.runtime`."""

    kind: Literal["GoGRuntime"] = "GoGRuntime"
    spec: GoGRuntimeSpec


ALL_KINDS: dict[str, type[Object]] = {**KINDS, "GoGRuntime": GoGRuntime}
"""The kinds that a user may write; KINDS are those that the operator reconciles."""


def applied(thing: Object, preset: GoGRuntime) -> Object:
    """A stage or a server with a preset's content, below what it sets itself.

    Args:
        thing: The object as it would be created without the preset.
        preset: The preset.
    """
    body = document(thing)
    fields = ("scheduling", "workers") if "workers" in type(thing.spec).model_fields else ("scheduling",)
    return parse({**body, "spec": _with_preset(body["spec"], preset, fields)})


def of_run(run: GoGRun, preset: GoGRuntime) -> GoGRun:
    """A run with a preset's patches and scheduling, for the pods that it creates itself (its store jobs)."""
    body = document(run)
    return GoGRun.model_validate({**body, "spec": _with_preset(body["spec"], preset, ("scheduling",))})


def _with_preset(spec: dict[str, Any], preset: GoGRuntime, fields: Sequence[str]) -> dict[str, Any]:
    given = preset.spec.as_given()
    made = dict(spec)
    if given.get("pods"):
        made["pods"] = [*given["pods"], *spec.get("pods", ())]
    for field in fields:
        if given.get(field):
            made[field] = with_defaults(spec.get(field, {}), given[field])
    return made


def with_defaults(given: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """A mapping with defaults; mappings inside it (`nodeSelector`) are merged by key, lists are replaced."""
    merged = {**defaults, **given}
    for key, value in given.items():
        if isinstance(value, dict) and isinstance(defaults.get(key), dict):
            merged[key] = with_defaults(value, defaults[key])
    return merged
