"""`gog data`: generates the dataset folder of the embedded world, which servers and stages read."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from pydantic import ValidationError

from gog import spec as settings
from gog_operator import parent_death
from gog_operator.api import problems

GENERATOR = "gog_recipes.world.generate"


def main(given: argparse.Namespace) -> int:
    parent_death.die_with_parent()
    try:
        world = settings.WorldSpec.model_validate_json(given.world)
    except ValidationError as error:
        raise problems.explain(error, settings.WorldSpec, where="--world") from None
    importlib.import_module(GENERATOR).write(Path(given.out), world)
    return 0
