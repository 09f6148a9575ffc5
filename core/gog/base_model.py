"""The folder of a base model, checked before anything is loaded: a run that cannot use it does not start."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

from gog.errors import UserError

BUILT_IN = ("qwen2_5_vl",)
"""Model types (`model_type` of config.json) that gog supports itself; gog_recipes.models has a folder for each."""
ENTRY_POINTS = "gog.model_families"
"""Group of entry points with which an installed package adds model types: `<model_type> = "module:FAMILY"`."""


def entry_points() -> metadata.EntryPoints:
    """Model families of installed packages."""
    return metadata.entry_points(group=ENTRY_POINTS)


def model_types() -> list[str]:
    """Supported model types."""
    return sorted({*BUILT_IN, *entry_points().names})


def model_type(folder: Path) -> str:
    """The model type of a folder that `check` accepts."""
    return str(json.loads((folder / "config.json").read_bytes())["model_type"])


def check(folder: Path, *, where: str = "model.base") -> None:
    """Raises UserError for a folder without a configuration, without safetensors, or of another architecture."""
    form = "name a folder in Hugging Face form"
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except OSError:
        raise UserError(f"no config.json in {folder}", where=where, remedy=form) from None
    except ValueError:
        raise UserError("is not valid JSON", where=str(folder / "config.json"), remedy=form) from None
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind not in model_types():
        raise UserError(
            f"model type {kind!r} of {folder} is not supported",
            where=where,
            remedy=f"use a model of type {', '.join(model_types())}",
        )
    if not any(folder.glob("*.safetensors")):
        raise UserError(f"no weights in {folder}", where=where, remedy="weights are read from *.safetensors only")
