"""The model families that gog ships, found by their folders.

The recipes own a family: its code in `models/<model_type>/`, its settings in `configs/<family>/`. Manifests and base
models are checked before a run starts, by processes that have no torch. So only names of folders are read here, and
nothing of the recipes is imported.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

RECIPES = "gog_recipes"


def _folders(parent: str, content: str) -> tuple[str, ...]:
    """Names of the folders in the recipes' folder `parent` that hold a file `content`, sorted."""
    spec = importlib.util.find_spec(RECIPES)
    places = (spec.submodule_search_locations if spec else None) or ()
    return tuple(sorted({path.parent.name for place in places for path in Path(place, parent).glob(f"*/{content}")}))


MODEL_TYPES = _folders("models", "__init__.py")
"""Supported values of `model_type` in a base model's config.json; an installed package may add more (base_model)."""
PRESETS = _folders("configs", "sft.yaml")
"""Names of the presets of recipe settings."""
