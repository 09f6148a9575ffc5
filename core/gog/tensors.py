"""Tensors of a safetensors file as numpy arrays, and back.

The format is a length, a JSON header and bytes, and reading it here keeps torch out of whoever only moves weights
about. numpy has no bfloat16: such tensors are read as float32, which holds each of their values exactly, and written
back rounded to the nearest, ties to even, as hardware does. Types that hold no weights (integers, 8-bit floats) are
refused.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gog.errors import UserError

SIZES = {"F32": 4, "F16": 2, "BF16": 2}
ALIGNMENT = 8
Tensor = np.ndarray
"""float32, whatever its type in the file."""


def read(path: Path) -> dict[str, tuple[str, Tensor]]:
    """(type in the file, values) by name. Raises UserError for what is not a whole safetensors file of weights."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    try:
        header: dict[str, Any] = json.loads(data[8:start]) if 8 < start <= len(data) else {}
        return {
            name: (entry["dtype"], _values(data[start:], **entry))
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except (ValueError, TypeError, KeyError, AttributeError) as error:
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


def _values(data: bytes, *, dtype: str, shape: list[int], data_offsets: list[int]) -> Tensor:
    if dtype not in SIZES:
        raise ValueError(f"a tensor of type {dtype}")
    begin, end = data_offsets
    if not 0 <= begin <= end <= len(data) or end - begin != math.prod(shape) * SIZES[dtype]:
        raise ValueError("a tensor's bytes are not all there")
    raw = data[begin:end]
    if dtype == "BF16":
        values = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        values = np.frombuffer(raw, "<f4" if dtype == "F32" else "<f2").astype(np.float32)
    return values.reshape(shape)


def _bytes(dtype: str, values: Tensor) -> bytes:
    if dtype != "BF16":
        return values.astype("<f4" if dtype == "F32" else "<f2").tobytes()
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    quiet = (bits >> 16) | 0x40  # rounding up must not turn a NaN into an infinity
    return np.where(np.isnan(values), quiet, rounded).astype("<u2").tobytes()
