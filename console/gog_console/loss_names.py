"""The losses that a manifest names: a misspelt one would be refused by the stage grpo only, after all others have run.

A loss is a file of the recipes' package, which is found by its name and read as text, because the console imports no
recipe. `module:function` is not checked, nor is anything where the recipes are not installed: the manifest may be for
elsewhere.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from gog import wording
from gog.errors import UserError
from gog.spec import GRPOSettings
from gog_operator.api.objects import GoGRun, Object, Stage

PACKAGE, FOLDER = "gog_recipes", "losses"
SETTING = "stages.grpo.loss"


def check(thing: Object, where: str) -> None:
    """Raises UserError for a loss that does not exist. where: the manifest, for messages."""
    known = installed()
    for path, name in _chosen(thing):
        if known and ":" not in name and name not in known:
            remedy = f"{wording.guess(name, known)}; or module:function".removeprefix("; ")
            raise UserError(f"no loss {name!r}", where=f"{where}: {path}", remedy=remedy)


def installed() -> list[str]:
    """Names of the losses of the recipes that are installed; empty where none are."""
    spec = importlib.util.find_spec(PACKAGE)
    folders = [Path(each) / FOLDER for each in (spec.submodule_search_locations or [])] if spec else []
    files = [file for folder in folders for file in sorted(folder.glob("*.py"))]
    return [file.stem for file in files if f"\ndef {file.stem}(" in file.read_text(encoding="utf-8")]


def _chosen(thing: Object) -> Iterator[tuple[str, str]]:
    """Path and name of each loss that a manifest chooses, those of arms included."""
    if isinstance(thing, Stage) and isinstance(thing.spec, GRPOSettings):
        yield "spec.loss", thing.spec.loss
    if not isinstance(thing, GoGRun) or "grpo" in thing.spec.stages.skip:
        return
    yield f"spec.{SETTING}", thing.spec.stages.grpo.loss
    for number, arm in enumerate(thing.spec.arms):
        if isinstance(name := arm.set.get(SETTING), str):
            yield f"spec.arms.{number}.set.{SETTING}", name
