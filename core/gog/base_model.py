"""The folder of a base model, checked before anything is loaded: a run that cannot use it does not start.

Only names, headers and sizes are read, so checking a model of any size costs milliseconds; the values of its weights are
not verified. Half a download is the usual fault: Git LFS pointers, a shard cut off or missing, no tokenizer.
"""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any

from gog import families, tensors
from gog.errors import UserError

ENTRY_POINTS = "gog.model_families"
"""Group of entry points with which an installed package adds model types: `<model_type> = "module:FAMILY"`."""
CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"))
"""Files of which one set must be there."""
IMAGE_PROCESSORS = (("preprocessor_config.json",), ("processor_config.json",))
"""Files of which one must be there."""


def entry_points() -> metadata.EntryPoints:
    """Model families of installed packages."""
    return metadata.entry_points(group=ENTRY_POINTS)


def model_types() -> list[str]:
    """Supported model types."""
    return sorted({*families.MODEL_TYPES, *entry_points().names})


def model_type(folder: Path) -> str:
    """The model type of a folder that `check` accepts."""
    return str(json.loads((folder / CONFIG).read_bytes())["model_type"])


def check(folder: Path, *, where: str = "model.base") -> None:
    """Whether a folder holds a whole base model of a supported architecture.

    Args:
        folder: in Hugging Face form
        where: what the folder was named by, for messages about the folder as a whole

    Raises:
        UserError: naming the file that is missing, cut off or of another kind.
    """
    config = _json(folder / CONFIG, folder, where)
    kind = config.get("model_type")
    if kind not in model_types():
        raise UserError(
            f"model type {kind!r} of {folder} is not supported",
            where=where,
            remedy=f"use a model of type {', '.join(model_types())}",
        )
    _check_weights(folder, where)
    _check_files(folder, TOKENIZERS, "tokenizer", where)
    _check_files(folder, IMAGE_PROCESSORS, "image processor", where)


def _json(path: Path, folder: Path, where: str) -> dict[str, Any]:
    form = "name a folder in Hugging Face form"
    try:
        data = path.read_bytes()
        tensors.refuse_pointer(data, path)
        parsed = json.loads(data)
    except OSError:
        raise UserError(f"no {path.name} in {folder}", where=where, remedy=form) from None
    except (ValueError, RecursionError):
        raise UserError("is not valid JSON", where=str(path), remedy=form) from None
    return parsed if isinstance(parsed, dict) else {}


def _check_weights(folder: Path, where: str) -> None:
    if (folder / WEIGHTS).is_file():
        tensors.header(folder / WEIGHTS)
        return
    if not (folder / INDEX).is_file():
        pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
        if pickles:
            raise UserError(
                f"{pickles[0]} in {folder} is a pickle, which can run any code when it is loaded",
                where=where,
                remedy="save the model with safe_serialization=True",
            )
        raise UserError(f"no weights in {folder}", where=where, remedy="weights are read from *.safetensors only")
    shards = _json(folder / INDEX, folder, where).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise UserError("has no weight_map", where=str(folder / INDEX), remedy="fetch it again")
    for name in sorted({str(shard) for shard in shards.values()}):
        _check_shard(folder, name, {weight for weight, shard in shards.items() if shard == name})


def _check_shard(folder: Path, name: str, weights: set[str]) -> None:
    if "/" in name or not (folder / name).is_file():
        raise UserError(f"shard {name} is missing", where=str(folder / INDEX), remedy="fetch it again")
    absent = weights - tensors.header(folder / name).keys()
    if absent:
        raise UserError(
            f"lacks {min(absent)}, which {INDEX} places in it ({len(absent)} such weights)",
            where=str(folder / name),
            remedy="fetch index and shards of one version",
        )


def _check_files(folder: Path, choices: tuple[tuple[str, ...], ...], role: str, where: str) -> None:
    """Raises UserError unless one set of files is there, each of them whole as far as its first bytes show."""
    complete = [names for names in choices if all((folder / name).is_file() for name in names)]
    if not complete:
        wanted = " or ".join(" and ".join(names) for names in choices)
        raise UserError(f"no {role} in {folder}", where=where, remedy=f"it needs {wanted}")
    for name in complete[0]:
        with (folder / name).open("rb") as stream:
            first = stream.read(len(tensors.LFS_POINTER))
        tensors.refuse_pointer(first, folder / name)
        if not first:
            raise UserError("is empty", where=str(folder / name), remedy="fetch it again")
