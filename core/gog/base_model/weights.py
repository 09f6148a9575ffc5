"""The weights of a model folder: every shard whole and listed, every weight expected and of the expected shape.

Only headers are read. Weights come from safetensors alone, because a pickle can run any code when it is loaded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

from gog import tensors, wording
from gog.base_model import architectures, json_file
from gog.base_model.architectures import Shape
from gog.errors import UserError

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
SIZES = {"F32": 4, "F16": 2, "BF16": 2}
"""Bytes of a value, by type of weights that can be trained on."""
IGNORED = re.compile(r"rotary_emb\.inv_freq$")
"""Buffers that older files hold and transformers computes."""
VERSIONS = "fetch configuration and weights of one version"


def check(folder: Path, expected: Mapping[str, Shape] | None, where: str) -> None:
    """Whether a folder's weights are whole, and those of its configuration.

    Args:
        folder: in Hugging Face form
        expected: shape of every weight by name; None if it is not known
        where: what the folder was named by

    Raises:
        UserError: naming the file or weight.
    """
    found = headers(folder, where)
    for name, (path, entry) in found.items():
        if entry.dtype not in SIZES:
            raise UserError(
                f"{name} is of type {entry.dtype}",
                where=str(path),
                remedy=f"use the model with weights of type {', '.join(SIZES)}",
            )
        if entry.end - entry.begin != math.prod(entry.shape) * SIZES[entry.dtype]:
            raise UserError(f"{name} has another size than its shape", where=str(path), remedy=json_file.AGAIN)
    if expected is not None:
        _compare({name: entry.shape for name, (_, entry) in found.items()}, expected, folder)


def headers(folder: Path, where: str) -> dict[str, tuple[Path, tensors.Entry]]:
    """File and header entry of every weight, by its name in the files. Raises UserError for files that are not whole."""
    if (folder / WEIGHTS).is_file():
        return _entries(folder / WEIGHTS)
    if not (folder / INDEX).is_file():
        raise _no_weights(folder, where)
    listed = json_file.read(folder / INDEX, folder, where).get("weight_map")
    if not isinstance(listed, dict) or not listed:
        raise UserError("has no weight_map", where=str(folder / INDEX), remedy=json_file.AGAIN)
    shards = sorted({str(shard) for shard in listed.values()})
    stray = {path.name for path in folder.glob("model-*.safetensors") if SHARD.fullmatch(path.name)} - set(shards)
    if stray:
        raise UserError(f"does not list {min(stray)}", where=str(folder / INDEX), remedy=VERSIONS)
    found: dict[str, tuple[Path, tensors.Entry]] = {}
    for name in shards:
        found |= _shard(folder, name, {weight for weight, shard in listed.items() if shard == name})
    return found


def _entries(path: Path) -> dict[str, tuple[Path, tensors.Entry]]:
    return {name: (path, entry) for name, entry in tensors.header(path).items()}


def _no_weights(folder: Path, where: str) -> UserError:
    shards = sorted(path.name for path in folder.glob("*.safetensors") if SHARD.fullmatch(path.name))
    if shards:
        return UserError(f"no {INDEX} beside {shards[0]} in {folder}", where=where, remedy=json_file.AGAIN)
    pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if pickles:
        return UserError(
            f"{pickles[0]} in {folder} is a pickle, which can run any code when it is loaded",
            where=where,
            remedy="save the model with safe_serialization=True",
        )
    return UserError(f"no weights in {folder}", where=where, remedy="weights are read from *.safetensors only")


def _shard(folder: Path, name: str, weights: set[str]) -> dict[str, tuple[Path, tensors.Entry]]:
    if "/" in name or not (folder / name).is_file():
        raise UserError(f"shard {name} is missing", where=str(folder / INDEX), remedy=json_file.AGAIN)
    found = _entries(folder / name)
    if absent := weights - found.keys():
        raise UserError(
            f"lacks {min(absent)}, which {INDEX} places in it ({wording.plural(len(absent), 'weight')} in all)",
            where=str(folder / name),
            remedy="fetch index and shards of one version",
        )
    if unlisted := found.keys() - weights:
        raise UserError(
            f"holds {min(unlisted)}, which {INDEX} does not place in it ({wording.plural(len(unlisted), 'weight')} in all)",
            where=str(folder / name),
            remedy="fetch index and shards of one version",
        )
    return found


def _compare(found: Mapping[str, Shape], expected: Mapping[str, Shape], folder: Path) -> None:
    """Raises UserError for weights that are missing, not expected or of another shape."""
    named = {architectures.current(name): name for name in found if not IGNORED.search(name)}
    absent = expected.keys() - named.keys()
    unexpected = named.keys() - expected.keys() - {architectures.HEAD}  # a tied head may be saved as well
    other = sorted(
        name
        for name in expected.keys() & named.keys()
        if not architectures.fits(name, found[named[name]], expected[name])
    )
    if not (absent or unexpected or other):
        return
    if absent:
        what = f"{min(absent)} is missing"
    elif other:
        first = other[0]
        what = f"{first} is {list(found[named[first]])}, by {json_file.CONFIG} {list(expected[first])}"
    else:
        what = f"{named[min(unexpected)]} has no place in the model"
    count = len(absent) + len(unexpected) + len(other)
    fit = wording.plural(count, "weight does not fit", "weights do not fit")
    raise UserError(f"{what} ({fit} {json_file.CONFIG})", where=str(folder), remedy=VERSIONS)
