"""Loading a base model with transformers, for families to share.

transformers initialises weights that are missing from a folder at random, and only logs it. A run would then train
another model than the one that was named, so such a folder is refused here. gog.base_model has compared the weights of
the architectures that gog ships already; this holds for those of other packages too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from gog import wording
from gog.errors import UserError


def load(architecture: Any, folder: Path, device: torch.device, dtype: torch.dtype) -> Any:
    """A base model, frozen, in evaluation mode.

    Args:
        architecture: class of transformers that the folder is loaded into
        folder: in Hugging Face form; weights are read from safetensors only
        device: where the model is put
        dtype: type of the weights

    Raises:
        UserError: when files cannot be read, or weights are missing, without a place or of another shape.
    """
    try:
        model, report = architecture.from_pretrained(
            folder,
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            attn_implementation="sdpa",
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(f"cannot be loaded: {brief(error)}", where=str(folder)) from error
    absent = sorted(report["missing_keys"])
    other = sorted(str(entry[0] if isinstance(entry, tuple) else entry) for entry in report["mismatched_keys"])
    stray = sorted(report["unexpected_keys"])
    if absent or other or stray:
        what = f"{absent[0]} is missing" if absent else f"{other[0]} has another shape" if other else ""
        count = len(absent) + len(other) + len(stray)
        raise UserError(
            f"{what or f'{stray[0]} has no place in the model'} "
            f"({wording.plural(count, 'weight does not fit', 'weights do not fit')} config.json)",
            where=str(folder),
            remedy="fetch configuration and weights of one version",
        )
    return model.requires_grad_(False).eval().to(device)


def brief(error: BaseException) -> str:
    """An error of another library in one line of at most 300 characters."""
    return " ".join(str(error).split())[:300] or type(error).__name__
