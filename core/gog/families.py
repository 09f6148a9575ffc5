"""The model families that gog ships, found by their folders.

The recipes own a family: its code in `models/<model_type>/`, its settings in `configs/<family>/`. Manifests and base
models are checked before a run starts, by processes that have no torch. So only names of folders are read here, and
nothing of the recipes is imported.
"""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

RECIPES = "gog_recipes"
DEFAULT_PRESET = "qwen2.5-vl"
"""Of a base model whose family cannot be found out before it is fetched."""

_EXPERTS = re.compile(r"\d+ba\d+b")
"""What names of models with experts have in common: Qwen3-VL-30B-A3B."""


def _folders(parent: str, content: str) -> tuple[str, ...]:
    """Names of the folders in the recipes' folder `parent` that hold a file `content`, sorted."""
    spec = importlib.util.find_spec(RECIPES)
    places = (spec.submodule_search_locations if spec else None) or ()
    return tuple(sorted({path.parent.name for place in places for path in Path(place, parent).glob(f"*/{content}")}))


MODEL_TYPES = _folders("models", "__init__.py")
"""Supported values of `model_type` in a base model's config.json; an installed package may add more (base_model)."""
PRESETS = _folders("configs", "sft.yaml")
"""Names of the presets of recipe settings."""


def preset_of(base: str) -> str:
    """The preset of a base model that names none: by its model_type, else by its name, else DEFAULT_PRESET.

    Args:
        base: a folder in Hugging Face form, or what else a manifest names a base model by
    """
    try:
        model_type = json.loads((Path(base.removeprefix("file://")) / "config.json").read_bytes())["model_type"]
    except (OSError, ValueError, TypeError, KeyError):
        model_type = ""
    names = {_plain(preset): preset for preset in PRESETS if preset != "tiny"}
    if _plain(str(model_type)) in names:
        return names[_plain(str(model_type))]
    name = base.partition("@")[0] if base.startswith("hf://") else base
    last = _plain(name.rstrip("/").rpartition("/")[2])
    named = [name for name in names if name in last or (_EXPERTS.search(last) and name.removesuffix("moe") in last)]
    return names[max(named, key=len)] if named else DEFAULT_PRESET


def has_experts(preset: str) -> bool:
    """Whether the models of a preset have experts, which its name says: `qwen3-vl-moe`."""
    return _plain(preset).endswith("moe")


def _plain(name: str) -> str:
    """Letters and digits only: `qwen2_5_vl`, `qwen2.5-vl` and `Qwen2.5-VL` are one name."""
    return "".join(char for char in name.lower() if char.isalnum())
