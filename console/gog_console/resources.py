"""Custom resources as the report and the viewer read them: typed, and as far as they can be read.

A file that is damaged, or was written by a newer version, must not hide the rest of a run. What cannot be read is a
`Problem`. The commands that change a run read strictly instead (`gog_operator.cluster.files`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from gog_operator.api import lenient
from gog_operator.api.objects import KINDS, GoGRun, Object, Stage, ToolServer


@dataclass(frozen=True)
class Problem:
    """Something that could not be read."""

    where: str
    """File or checkpoint."""
    what: str
    """The reason."""
    stage: str = ""
    """Key of the stage that it belongs to, if any."""


def read(folder: Path) -> tuple[list[Object], list[Problem]]:
    """Every custom resource in a folder of YAML files, and what cannot be read."""
    found: list[Object] = []
    problems: list[Problem] = []
    for path in sorted([*folder.rglob("*.yaml"), *folder.rglob("*.yml")]):
        where = f"objects/{path.name}"
        try:
            documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            problems.append(Problem(where, f"not readable as YAML: {_first_line(error)}"))
            continue
        if not any(isinstance(each, Mapping) and "kind" in each for each in documents):
            problems.append(Problem(where, "contains no custom resource"))
        things, ignored = of_documents(documents, where)
        found += things
        problems += ignored
    return found, problems


def of_documents(documents: Iterable[object], where: str = "") -> tuple[list[Object], list[Problem]]:
    """The custom resources of gog among documents, and what cannot be read of them.

    Args:
        documents: plain data; those of other kinds are skipped.
        where: the file that they come from. Default: kind and name of each.
    """
    found: list[Object] = []
    problems: list[Problem] = []
    for document in _ours(documents):
        thing, ignored = lenient.read(document)
        label = where or f"{document['kind']} {thing.name if thing else ''}".strip()
        problems += [Problem(label, sentence) for sentence in ignored]
        found += [thing] if thing else []
    return found, problems


def _ours(documents: Iterable[object]) -> Iterator[Mapping[str, Any]]:
    for each in documents:
        if isinstance(each, Mapping) and isinstance(each.get("kind"), str) and each["kind"] in KINDS:
            yield each


def run_of(things: Iterable[Object]) -> GoGRun | None:
    """The run; None when there is none."""
    return next((each for each in things if isinstance(each, GoGRun)), None)


def root_of(things: Iterable[Object]) -> Object | None:
    """The run, or a stage that was started alone; None when there is neither."""
    found = list(things)
    alone = (each for each in stages_of(found) if not each.metadata.owner_references)
    return run_of(found) or next(alone, None)


def stages_of(things: Iterable[Object]) -> list[Stage]:
    """The stages, in their order."""
    return [each for each in things if isinstance(each, Stage)]


def tool_servers_of(things: Iterable[Object]) -> list[ToolServer]:
    """The ToolServers, in their order."""
    return [each for each in things if isinstance(each, ToolServer)]


def spec_of(thing: Object | None) -> dict[str, Any]:
    """The spec as a document: set fields only, camelCase; empty without an object."""
    return thing.spec.as_given() if thing is not None else {}


def utc(moment: datetime | None) -> datetime | None:
    """A time of a document with its zone, which is UTC where it has none."""
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
