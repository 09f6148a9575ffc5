"""`gog export`: a checkpoint's policy as one float32 model. It needs torch, so the recipes' module is found by name."""

from __future__ import annotations

import argparse
import importlib

from gog.errors import UserError

MODULE = "gog_recipes.models.export"


def main(given: argparse.Namespace) -> int:
    try:
        module = importlib.import_module(MODULE)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{error.name} is not installed",
            where="gog export",
            remedy="run it where stages run: pip install 'gog[recipes]'",
        ) from None
    return int(module.main(given))
