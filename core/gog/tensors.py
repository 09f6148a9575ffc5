"""Tensors of a safetensors file as numpy arrays, and back.

The format is a length, a JSON header and bytes; reading it here keeps torch out of programs that only move weights.
numpy has no bfloat16: such tensors are read as float32, which holds each of their values exactly, and written back
rounded to the nearest, ties to even, as hardware does. `header` reads names, types and shapes without the values, of
any type; `read` refuses types that hold no weights of an adapter (integers, 8-bit floats).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gog import wording
from gog.errors import UserError

SIZES = {"F32": 4, "F16": 2, "BF16": 2}
ALIGNMENT = 8
MAX_HEADER_BYTES = 100_000_000
"""The limit of the format itself."""
LFS_POINTER = b"version https://git-lfs"
"""How a file begins that Git LFS has not replaced by its content yet."""
Tensor = np.ndarray
"""float32, whatever its type in the file."""


@dataclass(frozen=True)
class Entry:
    """A tensor in the header of a file."""

    dtype: str
    """As safetensors names types: `BF16`."""
    shape: tuple[int, ...]
    """Its dimensions."""
    begin: int
    """Its first byte, counted from the end of the header."""
    end: int
    """The byte after its last one."""


def header(path: Path) -> dict[str, Entry]:
    """The tensors of a file by name, without their values.

    Raises:
        UserError: for a Git LFS pointer, a file cut off before its end or with more behind it, and what is not a safetensors
            file.
        OSError: for a file that cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        first = stream.read(max(8, len(LFS_POINTER)))
        length = int.from_bytes(first[:8], "little")
        stream.seek(8)
        text = stream.read(length) if 0 < length <= min(size, MAX_HEADER_BYTES) else b""
    refuse_pointer(first, path)
    entries = _entries(text, path)
    missing = 8 + length + max((entry.end for entry in entries.values()), default=0) - size
    if missing > 0:
        lacking = wording.plural(missing, "byte is missing", "bytes are missing")
        raise UserError(f"cut off: {lacking} at its end", where=str(path), remedy="fetch it again")
    if missing < 0 or not _is_gapless(entries):
        what = "holds bytes that belong to no weight, or to two"
        raise UserError(what, where=str(path), remedy="fetch it again")
    return entries


def _is_gapless(entries: Mapping[str, Entry]) -> bool:
    """Whether each tensor begins where the one before ends, without which safetensors does not load a file."""
    places = sorted((entry.begin, entry.end) for entry in entries.values())
    return [begin for begin, _ in places] == [0, *(end for _, end in places)][: len(places)]


def refuse_pointer(first: bytes, path: Path) -> None:
    """Raises UserError where the first bytes of a file are those of a Git LFS pointer."""
    if first.startswith(LFS_POINTER):
        raise UserError("a Git LFS pointer, not the file itself", where=str(path), remedy="run `git lfs pull` there")


def _entries(text: bytes, path: Path) -> dict[str, Entry]:
    try:
        parsed: dict[str, Any] = json.loads(text)
        return {name: _entry(**fields) for name, fields in parsed.items() if name != "__metadata__"}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"not a safetensors file of weights: {error}", where=str(path)) from None


def _entry(*, dtype: str, shape: list[int], data_offsets: list[int]) -> Entry:
    begin, end = data_offsets
    if not 0 <= begin <= end or any(side < 0 for side in shape):
        raise ValueError(f"offsets {data_offsets} of a tensor of shape {shape}")
    return Entry(dtype, tuple(shape), begin, end)


def read(path: Path) -> dict[str, tuple[str, Tensor]]:
    """(type in the file, values) by name. Raises UserError for what is not a whole safetensors file of weights."""
    entries = header(path)
    data = path.read_bytes()
    values = memoryview(data)[8 + int.from_bytes(data[:8], "little") :]
    try:
        return {name: (entry.dtype, _values(values, entry)) for name, entry in entries.items()}
    except ValueError as error:
        raise UserError(f"not a safetensors file of weights: {error}", where=str(path)) from None


def write(path: Path, tensors: Mapping[str, tuple[str, Tensor]]) -> None:
    """A file with tensors in the order of their names, flushed to the disk."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    parts, end = [], 0
    for name, (dtype, values) in sorted(tensors.items()):
        part = _bytes(dtype, values)
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": [end, end + len(part)]}
        parts.append(part)
        end += len(part)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    with path.open("wb") as stream:
        stream.writelines([len(text).to_bytes(8, "little"), text, *parts])
        stream.flush()
        os.fsync(stream.fileno())


def _values(data: memoryview, entry: Entry) -> Tensor:
    if entry.dtype not in SIZES:
        raise ValueError(f"a tensor of type {entry.dtype}")
    if entry.end - entry.begin != math.prod(entry.shape) * SIZES[entry.dtype]:
        raise ValueError(f"{entry.end - entry.begin} bytes for a tensor of shape {list(entry.shape)}")
    raw = data[entry.begin : entry.end]
    if entry.dtype == "BF16":
        values = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        values = np.frombuffer(raw, "<f4" if entry.dtype == "F32" else "<f2").astype(np.float32)
    return values.reshape(entry.shape)


def _bytes(dtype: str, values: Tensor) -> bytes:
    if dtype != "BF16":
        return values.astype("<f4" if dtype == "F32" else "<f2").tobytes()
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    quiet = (bits >> 16) | 0x40  # rounding up must not turn a NaN into an infinity
    return np.where(np.isnan(values), quiet, rounded).astype("<u2").tobytes()
