"""The folder of a base model, looked at before anything is loaded: a run that cannot use it shall not start."""

from __future__ import annotations

import json
from pathlib import Path

from gog.errors import UserError

MODEL_TYPES = ("qwen2_5_vl",)
"""What `config.json` may call its model."""


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
    if kind not in MODEL_TYPES:
        raise UserError(
            f"model type {kind!r} of {folder} is not supported", where=where, remedy="use a Qwen2.5-VL model"
        )
    if not any(folder.glob("*.safetensors")):
        raise UserError(f"no weights in {folder}", where=where, remedy="weights are read from *.safetensors only")
