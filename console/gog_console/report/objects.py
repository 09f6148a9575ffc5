"""Lenient reader of custom resources for the report and the viewer.

Objects may come from a newer version or from a process that was killed while it wrote. An unknown field is ignored, a
missing one is missing in the report, and a file that is not YAML is a `Problem`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from gog import catalog
from gog_console.report.model import Problem, Stage, number

STAGE_KINDS = {stage.kind: stage.name for stage in catalog.STAGES}
FINAL = ("Complete", "Failed", "Suspended")

Object = Mapping[str, Any]


def read(folder: Path) -> tuple[list[Object], list[Problem]]:
    """Every custom resource in a folder of YAML files, and the files that cannot be read."""
    found: list[Object] = []
    problems: list[Problem] = []
    for path in sorted([*folder.rglob("*.yaml"), *folder.rglob("*.yml")]):
        try:
            documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            problems.append(Problem(f"objects/{path.name}", f"not readable as YAML: {_first_line(error)}"))
            continue
        good = [document for document in documents if isinstance(document, Mapping) and "kind" in document]
        if not good:
            problems.append(Problem(f"objects/{path.name}", "contains no custom resource"))
        found += good
    return found, problems


def run_of(objects: Iterable[Object]) -> Object:
    """The GoGRun; empty when there is none."""
    return next((item for item in objects if item.get("kind") == "GoGRun"), {})


def root_of(objects: Iterable[Object]) -> Object:
    """The GoGRun, or a stage that was started alone; empty when there is neither."""
    found = list(objects)
    alone = (
        item
        for item in found
        if item.get("kind") in STAGE_KINDS and not table(item.get("metadata")).get("ownerReferences")
    )
    return run_of(found) or next(alone, {})


def stages_of(objects: Iterable[Object]) -> list[Stage]:
    """The stages among the objects."""
    return [_stage(item, STAGE_KINDS[str(item["kind"])]) for item in objects if item.get("kind") in STAGE_KINDS]


def endpoints_of(objects: Iterable[Object]) -> list[dict[str, Any]]:
    """Specs of the endpoints, each with its name and whether it is ready."""
    return [
        {"name": name_of(item), "ready": _is_true(item, "Ready"), **table(item.get("spec"))}
        for item in objects
        if item.get("kind") == "Endpoint"
    ]


def name_of(item: Object) -> str:
    """metadata.name; empty when missing."""
    return str(table(item.get("metadata")).get("name", ""))


def condition(item: Object) -> tuple[str, str]:
    """(condition, message): the final condition that is true, else the reason why it is not ready, else Running.

    >>> condition({"status": {"conditions": [{"type": "Complete", "status": "True"}]}})
    ('Complete', '')
    """
    conditions = _conditions(item)
    for kind in FINAL:
        if kind in conditions and str(conditions[kind].get("status")) == "True":
            reason = str(conditions[kind].get("reason") or "")
            return kind, str(conditions[kind].get("message") or ("" if reason == kind else reason))
    ready = conditions.get("Ready", {})
    if not _has_begun(item):
        return "Not started", str(ready.get("message") or "")
    reason = str(ready.get("reason") or "")
    return reason if reason not in ("", "Ready", "NotReady") else "Running", str(ready.get("message") or "")


def time(value: object) -> datetime | None:
    """A Kubernetes time, as text or as parsed by YAML; None for anything else."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value


def table(value: object) -> Mapping[str, Any]:
    """The value if it is a mapping, else an empty mapping."""
    return value if isinstance(value, Mapping) else {}


def _stage(item: Object, kind: str) -> Stage:
    spec, status = table(item.get("spec")), table(item.get("status"))
    progress = table(status.get("progress"))
    state, message = condition(item)
    return Stage(
        key=str(spec.get("stage") or kind),
        kind=kind,
        name=name_of(item),
        condition=state,
        message=message,
        attempts=_count(status.get("attempt")) or _count(status.get("attempts")) or 0,
        started=time(status.get("startTime")),
        completed=time(status.get("completionTime")),
        checkpoint=str(status.get("checkpoint") or ""),
        step=_count(progress.get("step")),
        total=_count(progress.get("total")),
        spec=spec,
    )


def _conditions(item: Object) -> dict[str, Mapping[str, Any]]:
    listed = table(item.get("status")).get("conditions")
    found = [table(entry) for entry in listed] if isinstance(listed, list) else []
    return {str(entry.get("type")): entry for entry in found}


def _is_true(item: Object, kind: str) -> bool:
    return str(_conditions(item).get(kind, {}).get("status")) == "True"


def _has_begun(item: Object) -> bool:
    status = table(item.get("status"))
    return bool(status.get("startTime") or status.get("attempt") or table(status.get("progress")))


def _count(value: object) -> int | None:
    found = number(value)
    return None if found is None else int(found)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
