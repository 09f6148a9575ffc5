"""The losses that a manifest names, and the settings that depend on them.

A misspelt loss, and a refill of groups that all carry a signal, would be refused by the stage grpo only, after all others have
run. A loss is a file of the recipes' package, which is found by its name and read as text, because the console imports no
recipe; so is what it takes for settings that the manifest leaves out (its preset). `module:function` is not checked, nor is
anything where the recipes are not installed: the manifest may be for elsewhere.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gog import wording
from gog.errors import UserError
from gog.spec import GRPOSettings
from gog_operator.api import arms
from gog_operator.api.objects import GoGRun, Object, Stage

PACKAGE, FOLDER = "gog_recipes", "losses"


def check(thing: Object, where: str) -> None:
    """Raises UserError for a loss that does not exist, and for a refill that it contradicts. where: the manifest, for messages."""
    known = presets()
    for path, grpo in _chosen(thing):
        if known and ":" not in grpo.loss and grpo.loss not in known:
            remedy = f"{wording.guess(grpo.loss, list(known))}; or module:function".removeprefix("; ")
            raise UserError(f"no loss {grpo.loss!r}", where=f"{where}: {path}.loss", remedy=remedy)
        _check_refill(grpo, known.get(grpo.loss, {}), f"{where}: {path}.maxOversampling")


def notes(thing: Object) -> list[str]:
    """A sentence for each setting that a manifest gives and that has no effect beside the others. None of them is refused:
    an arm may switch off what the run sets for the others."""
    known = presets()
    return [f"{path}: {each}" for path, grpo in _chosen(thing) for each in _idle(grpo, known.get(grpo.loss))]


def _idle(grpo: GRPOSettings, preset: dict[str, Any] | None) -> Iterator[str]:
    """What of a stage's settings has no effect. preset: of its loss; None where that is not known."""
    share = grpo.overlong_share
    if share is None and preset is not None:
        share = preset.get("overlong_share", 0.0)
    if "overlong_penalty" in grpo.model_fields_set and share == 0:
        yield "overlongPenalty has no effect, because overlongShare is 0: set a share, or remove it"
    if grpo.kl_estimator is not None and not grpo.kl_coef:
        yield "klEstimator has no effect, because klCoef is 0: raise klCoef, or remove it"
    if grpo.updates_per_rollout == 1 and ":" not in grpo.loss:  # ratios are 1
        for name, value in (("clip", grpo.clip), ("clipHigh", grpo.clip_high)):
            if value is not None:
                yield f"{name} has no effect, because updatesPerRollout is 1: raise that, or remove {name}"


def presets() -> dict[str, dict[str, Any]]:
    """What each loss of the installed recipes takes for settings that are left out, by name; empty where none are installed."""
    spec = importlib.util.find_spec(PACKAGE)
    folders = [Path(each) / FOLDER for each in (spec.submodule_search_locations or [])] if spec else []
    found = {file.stem: _preset(file) for folder in folders for file in sorted(folder.glob("*.py"))}
    return {name: preset for name, preset in found.items() if preset is not None}


def _preset(file: Path) -> dict[str, Any] | None:
    """The plain values that the decorator of a file's loss is given; None for a file without a loss."""
    for each in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(each, ast.FunctionDef) and each.name == file.stem:
            given = [keyword for call in each.decorator_list if isinstance(call, ast.Call) for keyword in call.keywords]
            return {word.arg: word.value.value for word in given if word.arg and isinstance(word.value, ast.Constant)}
    return None


def _check_refill(grpo: GRPOSettings, preset: dict[str, Any], where: str) -> None:
    if grpo.max_oversampling > 1 and (grpo.advantages or preset.get("advantages")) == "batch":
        raise UserError(
            f"loss {grpo.loss} has advantages batch, with which a group of equal rewards carries a signal, so there is "
            "nothing to refill",
            where=where,
            remedy="set it to 1, or advantages to group_batch",
        )


def _chosen(thing: Object) -> Iterator[tuple[str, GRPOSettings]]:
    """Path and settings of each stage grpo of a manifest, those of arms included where they differ from the run's."""
    if isinstance(thing, Stage) and isinstance(thing.spec, GRPOSettings):
        yield "spec", thing.spec
    if not isinstance(thing, GoGRun) or "grpo" in thing.spec.stages.skip:
        return
    yield "spec.stages.grpo", thing.spec.stages.grpo
    for number, arm in enumerate(thing.spec.arms):
        changed = arms.spec_of(thing.spec, arm).stages.grpo
        if changed != thing.spec.stages.grpo:
            yield f"spec.arms.{number}.set.stages.grpo", changed
