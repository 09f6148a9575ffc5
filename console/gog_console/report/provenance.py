"""Origin of each setting: the paper or an assumption, from the marks in the settings' descriptions.

`gog.spec` marks every default as [paper], [brief], [peer] or [ours]. The report shows the marks beside the values of the
run, so that an assumption is not mistaken for the paper's value. A value comes from the stage's object, else from the
run's manifest, the checkpoint's meta data or its log; otherwise it is shown as the preset's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic.alias_generators import to_camel

from gog import spec
from gog_console.report.model import Data, column, number

GROUPS: dict[str, type[BaseModel]] = {
    "curate": spec.CurateSettings,
    "sft": spec.SFTSettings,
    "stratify": spec.StratifySettings,
    "grpo": spec.GRPOSettings,
    "agent": spec.AgentSettings,
    "tools": spec.ToolsSpec,
}
SOURCES = {"paper": "paper", "brief": "brief", "peer": "peer", "ours": "ours"}
PRESET = "preset of the model family"
_MARK = re.compile(r"\[((?:paper|brief|peer|ours)[^\]]*)\]")
_STATED = re.compile(r"^(?:paper|brief):\s*([-+.\de]+)")


@dataclass(frozen=True)
class Setting:
    """One marked setting."""

    group: str
    """Stage or part that it belongs to."""
    name: str
    """Path within the group, in camelCase."""
    value: str
    """Value of the run, else the default."""
    known: bool
    """Whether the run states the value."""
    source: str
    """Key of `SOURCES`."""
    mark: str
    """The mark's text."""
    differs: bool
    """Whether the value differs from the paper's."""


def settings(data: Data) -> list[Setting]:
    """Every marked setting of the main line, in the order of the specification."""
    return [
        _setting(data, group, path, mark, default)
        for group, model in GROUPS.items()
        for path, mark, default in _marked(model)
    ]


def value(data: Data, group: str, *path: str) -> Any:
    """A setting as the run states it; None when the preset decides."""
    return next((found for source in _sources(data, group) if (found := _at(source, path)) is not None), None)


def _setting(data: Data, group: str, path: tuple[str, ...], mark: str, default: Any) -> Setting:
    stated = value(data, group, *path)
    shown = stated if stated is not None else default
    theirs = _STATED.match(mark)
    mine = number(shown)
    differs = theirs is not None and stated is not None and mine not in (None, float(theirs.group(1)))
    source = next(source for name, source in SOURCES.items() if mark.startswith(name))
    return Setting(group, ".".join(map(to_camel, path)), _plain(shown), stated is not None, source, mark, differs)


def _marked(model: type[BaseModel], prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str, Any]]:
    """(path, mark, default) of every field whose description carries a mark, nested ones included."""
    for name, info in model.model_fields.items():
        nested = info.annotation
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            yield from _marked(nested, (*prefix, name))
        elif found := _MARK.search(info.description or ""):
            yield (*prefix, name), found.group(1), info.default


def _sources(data: Data, group: str) -> list[Mapping[str, Any]]:
    """Places that may state a setting; the one closest to the actual run first."""
    kinds = {"agent": ("grpo", "evaluate", "curate"), "tools": ("grpo", "evaluate", "curate")}.get(group, (group,))
    found: list[Any] = []
    for kind in kinds:
        stage = data.stage(kind)
        written = _at(data.spec, ("stages", kind))
        specs = [stage.spec, written, stage.meta.get("settings"), stage.meta] if stage else [written]
        specs.append(_logged(data, kind))
        found += [_at(each, ("tools",)) for each in specs] if group == "tools" else specs
    if group == "tools":
        found.append(_at(data.spec, ("tools",)))
    return [each for each in found if isinstance(each, Mapping)]


def _logged(data: Data, kind: str) -> dict[str, Any]:
    """Settings that can be read from the stage's log."""
    rates = [value for value in column(data.curves.get(kind, ()), "learning_rate") if value is not None]
    return {"learning_rate": max(rates)} if rates else {}


def _at(source: object, path: tuple[str, ...]) -> Any:
    for name in path:
        if not isinstance(source, Mapping):
            return None
        source = source.get(to_camel(name), source.get(name))
    return source


def _plain(shown: object) -> str:
    if isinstance(shown, list | tuple):
        return ", ".join(map(_plain, shown))
    if isinstance(shown, bool) or shown is None:
        return {True: "yes", False: "no", None: "none"}[shown]
    return f"{shown:g}" if isinstance(shown, float) else str(shown)
