"""`gog stage KIND --config FILE`: the command of a job, on one machine and in a pod.

It merges the preset of the model's family with the file and then replaces itself with the recipe
(`gog_recipes.runtime.launch`), under torchrun when options of torchrun are given. That is what `tune run` does, without
the five seconds that tune takes to find a recipe.
Arguments of the form key=value override settings; other arguments belong to torchrun, with environment variables
expanded, which is how a rank finds rank 0.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from gog.errors import UserError
from gog_operator import parent_death
from gog_operator.api import yaml_reader
from gog_operator.build import merge

RECIPES = "gog_recipes"
PROGRAM = "GOG_STAGE_PROGRAM"
"""Environment variable: a program to run instead of a recipe, with kind and --config. For tests."""


def main(given: argparse.Namespace) -> int:
    parent_death.die_with_parent()
    os.environ["PYTHONSAFEPATH"] = "1"  # else `python -m` imports a random.py that lies in the working directory
    assignments, torchrun = sort(given.rest)
    file = yaml_reader.read(Path(given.config))
    config = write(merge.final(file, assignments, presets(), given.kind))
    line = command(given.kind, config, torchrun)
    sys.stdout.flush()
    os.execv(line[0], line)


def sort(rest: Sequence[str]) -> tuple[list[str], list[str]]:
    """(assignments, options of torchrun)."""
    assignments = [each for each in rest if "=" in each and not each.startswith("-")]
    return assignments, [os.path.expandvars(each) for each in rest if each not in assignments]


def command(kind: str, config: Path, torchrun: Sequence[str]) -> list[str]:
    """Command line with which this process replaces itself."""
    if os.environ.get(PROGRAM):
        program, *first = shlex.split(os.environ[PROGRAM])
        return [shutil.which(program) or program, *first, kind, "--config", str(config)]
    recipe = ["-m", f"{RECIPES}.{kind}", "--config", str(config)]
    alone = [] if not torchrun or any(each.startswith("--rdzv") for each in torchrun) else ["--standalone"]
    return [sys.executable, "-m", f"{RECIPES}.runtime.launch", *alone, *torchrun, *recipe]


def presets() -> Path:
    """The folder of presets inside the recipes' package. Raises UserError when it is not installed."""
    found = importlib.util.find_spec(RECIPES)
    if found is None or not found.submodule_search_locations:
        raise UserError("the recipes are not installed", remedy="pip install 'gog[recipes]'")
    return Path(found.submodule_search_locations[0]) / "configs"


def write(body: dict[str, Any]) -> Path:
    """The final configuration as a file in the stage's scratch folder."""
    folder = Path(body["workdir"]) if body.get("workdir") else Path(tempfile.mkdtemp(prefix="gog-stage-"))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "final.yaml"
    path.write_text(yaml.safe_dump(literal(body), sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path


def literal(value: Any) -> Any:
    """The value as a recipe must read it, whose OmegaConf takes `${name}` for a reference to another key."""
    if isinstance(value, dict):
        return {key: literal(each) for key, each in value.items()}
    if isinstance(value, list):
        return [literal(each) for each in value]
    if isinstance(value, str):
        return re.sub(r"(\\*)\$\{", r"\1\1\\${", value)
    return value
