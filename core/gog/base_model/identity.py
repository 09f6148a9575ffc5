"""Which base model a folder holds, so that an adapter is not applied to another one.

An adapter fits every base of equal shapes: on another version of its base it changes the model to something that was
never trained. So each adapter's checkpoint records the fingerprint of its base, which is compared before the adapter is
used.

A fingerprint covers the values of config.json (without those that name versions and types of files), the id of each
token, and of every weight its name, type, shape and SAMPLE bytes from its middle. Files of weights may be divided
differently. It does not cover the other bytes of weights, the image processor and the chat template.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gog.base_model import architectures, json_file, tokenizer, weights
from gog.errors import UserError

RECORD = "base"
"""Key in a checkpoint's meta: the base model that its adapter was trained on, as `Identity.document` writes it."""
SAMPLE = 1024
"""Bytes of each weight that are read."""
SCHEME = "1"
"""Changes when the fingerprint of an unchanged folder changes; fingerprints of two schemes are not compared."""
WITHOUT_EFFECT = {"transformers_version", "_name_or_path", "architectures", "torch_dtype", "dtype", "use_cache"}
"""Fields of config.json that do not change what the model computes; the type of weights is in their headers."""


@dataclass(frozen=True)
class Identity:
    """A base model, as a checkpoint records it."""

    name: str
    """What it was loaded from: `tiny`, a folder, `s3://…`, or `hf://org/name@commit`."""
    fingerprint: str
    """Of its folder."""

    def document(self) -> dict[str, str]:
        """As it is recorded."""
        return {"name": self.name, "fingerprint": self.fingerprint}

    def sentence(self) -> str:
        """For messages."""
        return f"{self.name} (fingerprint {self.fingerprint})"


def fingerprint(folder: Path) -> str:
    """The fingerprint of a folder that `check` accepts: `SCHEME-` and 16 hexadecimal digits. Raises UserError."""
    digest = hashlib.blake2b(digest_size=8)
    config = json_file.read(folder / json_file.CONFIG, folder, "model.base")
    digest.update(_canonical(_decisive(config)))
    digest.update(_canonical(tokenizer.read(folder, "model.base")[1]))
    for name, sample in sorted(_samples(folder).items()):
        digest.update(name.encode() + b"\0" + sample)
    return f"{SCHEME}-{digest.hexdigest()}"


def _samples(folder: Path) -> dict[str, bytes]:
    """Type, shape and bytes from the middle of each weight, by its present name."""
    found: dict[str, bytes] = {}
    by_file: dict[Path, dict[str, Any]] = {}
    for name, (path, entry) in weights.headers(folder, "model.base").items():
        by_file.setdefault(path, {})[name] = entry
    for path, entries in by_file.items():
        with path.open("rb") as stream:
            start = 8 + int.from_bytes(stream.read(8), "little")
            for name, entry in entries.items():
                size = min(SAMPLE, entry.end - entry.begin)
                stream.seek(start + (entry.begin + entry.end - size) // 2)
                about = f"{entry.dtype}{list(entry.shape)}".encode()
                found[architectures.current(name)] = about + stream.read(size)
    return found


def _decisive(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _decisive(each) for key, each in value.items() if key not in WITHOUT_EFFECT}
    return value


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def compare(recorded: object, own: Identity, *, ref: str) -> bool:
    """Whether an adapter was trained on a base model.

    Args:
        recorded: the base in the meta of the adapter's checkpoint
        own: the base that it would be applied to
        ref: the checkpoint, for messages

    Returns:
        True if it was; False if the checkpoint records no base, or one of another scheme.

    Raises:
        UserError: it was trained on another base.
    """
    if not isinstance(recorded, Mapping) or not str(recorded.get("fingerprint", "")).startswith(f"{SCHEME}-"):
        return False
    theirs = Identity(str(recorded.get("name", "")), str(recorded["fingerprint"]))
    if theirs.fingerprint == own.fingerprint:
        return True
    raise UserError(
        f"its adapter was trained on the base model {theirs.sentence()}, not on {own.sentence()}",
        where=f"checkpoint {ref}",
        remedy="name the base model that the adapter was trained on",
    )
