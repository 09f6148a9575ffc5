"""docs/recipes.md has every setting of a stage and of its model, with the default and the source that the spec has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo

from gog import spec
from gog.spec.recipe_configs import StageConfig

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"
MARK = re.compile(r"\[(paper|brief|peer|ours)\b")


@dataclass(frozen=True)
class Row:
    """A row of a table of the page."""

    names: frozenset[str]
    """Settings that it describes, as the page writes them."""
    stages: frozenset[str]
    """Stages whose settings they are, unless a name begins with its own."""
    default: str
    """Its second cell."""
    source: str
    """Its last cell."""


def rows() -> Iterator[Row]:
    """Rows of settings; the last line before a table that names stages decides whose they are."""
    stages: list[str] = []
    for line in PAGE.read_text().splitlines():
        named = re.findall(r"`stages\.(\w+)`", line)
        if not line.startswith("| `"):
            stages = named or ([] if line.startswith("#") else stages)
            continue
        first, default, *_, source = [cell.strip() for cell in line.strip("|").split(" | ")]
        yield Row(frozenset(re.findall(r"`([^`]+)`", first)), frozenset(stages + named), default, source)


def settings(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Dotted names of the fields of a model, and of the models within it that have defaults."""
    for name, field in model.model_fields.items():
        path = prefix + (field.alias or to_camel(name))
        if isinstance(field.default, BaseModel):
            yield from settings(type(field.default), f"{path}.")
        else:
            yield path, field


def shown(default: Any) -> list[str]:
    """A default as the page writes it, in parts; none where the page describes it in words."""
    if isinstance(default, tuple):
        return [part for each in default for part in shown(each)]
    if isinstance(default, bool):
        return [str(default).lower()]
    if isinstance(default, int):
        return [f"{default >> 30} GiB" if default >= 1 << 30 else f"{default:,}"]
    return [f"{default:g}"] if isinstance(default, float) else [f"`{default}`"] if isinstance(default, str) else []


def of_stages() -> Iterator[tuple[str, str, FieldInfo]]:
    for stage, model in spec.CONFIGS.items():
        common = {path for path, _ in settings(StageConfig)}
        yield from ((stage, path, field) for path, field in settings(model) if path not in common)


SETTINGS = [*of_stages(), *(("model", path, field) for path, field in settings(spec.ModelSpec))]


@pytest.mark.parametrize(("stage", "path", "field"), SETTINGS, ids=[f"{stage}.{path}" for stage, path, _ in SETTINGS])
def test_a_setting_is_listed_with_its_default_and_its_source(stage, path, field):
    found = [row for row in rows() if f"{stage}.{path}" in row.names or (path in row.names and stage in row.stages)]
    assert len(found) == 1, f"{len(found)} rows of docs/recipes.md describe it"
    [row] = found
    default = None if field.is_required() else field.default
    parts = re.split(r", |; | and | to ", row.default)
    assert row.default and set(shown(default)) <= set(parts), f"{row.default} is not its default {default}"
    marks = set(MARK.findall(field.description or ""))
    assert marks <= set(MARK.findall(row.source)), f"the spec has {marks}, the page {row.source}"
    assert row.source == "–" or MARK.search(row.source), "the page names no source"


def test_every_listed_setting_exists():
    known = {name for stage, path, _ in SETTINGS for name in (path, f"{stage}.{path}", f"stages.{stage}")}
    assert not {name for row in rows() for name in row.names} - known
