"""The folder of a base model, checked before anything is loaded: a run that cannot use it does not start.

Only configurations, tokenizer files and the headers of weights are read, so the check takes a fraction of a second for a
model of any size; the values of its weights are not verified. Usual faults: half a download (Git LFS pointers, a shard
cut off or missing), configuration and weights of two versions, a tokenizer of another model. `fingerprint` identifies a
base, so that an adapter is not applied to another one.
"""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any

from gog import families
from gog.base_model import architectures, image_processor, json_file, tokenizer, weights
from gog.base_model.identity import RECORD, Identity, compare, fingerprint
from gog.base_model.json_file import CONFIG
from gog.base_model.listing import check as check_listing
from gog.base_model.weights import INDEX, WEIGHTS
from gog.errors import UserError

__all__ = [
    "CONFIG",
    "INDEX",
    "RECORD",
    "WEIGHTS",
    "Identity",
    "check",
    "check_listing",
    "compare",
    "entry_points",
    "fingerprint",
    "model_type",
    "model_types",
    "stored_dtype",
]

ENTRY_POINTS = "gog.model_families"
"""Group of entry points with which an installed package adds model types: `<model_type> = "module:FAMILY"`."""
CODE = (CONFIG, "tokenizer_config.json", "preprocessor_config.json", "processor_config.json")
"""Files that can name code of the folder's own, by `auto_map`."""


def entry_points() -> metadata.EntryPoints:
    """Model families of installed packages."""
    return metadata.entry_points(group=ENTRY_POINTS)


def model_types() -> list[str]:
    """Supported model types."""
    return sorted({*families.MODEL_TYPES, *entry_points().names})


def model_type(folder: Path) -> str:
    """The model type of a folder that `check` accepts."""
    return str(json.loads((folder / CONFIG).read_bytes())["model_type"])


def stored_dtype(folder: Path) -> str:
    """The type in which a folder's weights are to be loaded: float32 if they are stored so, else bfloat16."""
    stored = {entry.dtype for _, entry in weights.headers(folder, "base").values()}
    return "float32" if stored <= {"F32", "F64"} else "bfloat16"


def check(folder: Path, *, where: str = "model.base") -> None:
    """Whether a folder holds a whole base model of a supported architecture.

    The weights, the tokenizer's tokens and the image processor are compared with config.json where the architecture is
    one of `architectures.BY_MODEL_TYPE`; of others only the files are checked.

    Args:
        folder: in Hugging Face form
        where: what the folder was named by, for messages about the folder as a whole

    Raises:
        UserError: naming the file that is missing, cut off or of another kind.
    """
    config = json_file.read(folder / CONFIG, folder, where)
    kind = config.get("model_type")
    if kind not in model_types():
        raise UserError(
            f"model type {kind!r} of {folder} is not supported",
            where=where,
            remedy=f"use a model of type {', '.join(model_types())}",
        )
    _check_loadable(folder, config)
    architecture = architectures.BY_MODEL_TYPE.get(kind)
    weights.check(folder, architecture.weights(config) if architecture else None, where)
    tokenizer.check(folder, config, architecture, where)
    image_processor.check(folder, config, architecture, where)


def _check_loadable(folder: Path, config: dict[str, Any]) -> None:
    """Raises UserError for a model that is loaded by code of its own, or whose weights are quantized already, or whose layers
    do not attend to all of a conversation."""
    for name in CODE:
        given = json_file.optional(folder / name)
        if given.get("auto_map"):
            raise UserError(
                "auto_map names code of the folder's own, which is never run",
                where=str(folder / name),
                remedy="remove auto_map if transformers has the architecture, or use another model",
            )
    if config.get("quantization_config"):
        raise UserError(
            "the weights are quantized (quantization_config)",
            where=str(folder / CONFIG),
            remedy="use the model's bfloat16 weights",
        )
    if config.get("use_sliding_window") or architectures.text_of(config).get("use_sliding_window"):
        raise UserError(
            "its layers attend to a window of the conversation only (use_sliding_window), which no engine here does",
            where=str(folder / CONFIG),
            remedy="set use_sliding_window to false if the conversations are shorter than the window, or use another model",
        )
