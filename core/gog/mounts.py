"""Sources of models and datasets that are volumes of a pod: `pvc://claim/path`, `oci://image`, and what was fetched before.

A manifest names a source by its address, which checkpoints record. Where it lies in a pod is the control plane's affair: it
mounts the source read-only and names the folder in an environment variable. So every reader of an address asks `folder`
first, and nothing else knows of volumes.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gog.errors import UserError

PVC, OCI = "pvc://", "oci://"
PREFIXES = (PVC, OCI)
"""Beginnings of addresses that can only be mounted."""
SEGMENT = "[A-Za-z0-9_-][A-Za-z0-9._-]*"
"""A segment of a path in an address, which is never hidden and never `..`."""
PVC_FORM = rf"^pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?(/{SEGMENT})*$"
"""Valid addresses of a folder of a PersistentVolumeClaim, as a regular expression of Python and of RE2."""
OCI_FORM = (
    r"^oci://[A-Za-z0-9][-A-Za-z0-9.]*(:[0-9]+)?(/[a-z0-9][-a-z0-9._]*)+(:[A-Za-z0-9_][-A-Za-z0-9._]*)?"
    rf"(@sha256:[0-9a-f]{{64}})?(#{SEGMENT}(/{SEGMENT})*)?$"
)
"""Valid addresses of an image whose files are a model or a dataset, perhaps of one folder of it."""
VARIABLE = "GOG_MOUNTS"
"""Environment variable with the folder of each mounted source, as JSON: `{"pvc://models/m": "/mnt/gog/base"}`."""
RECORD = "gog-source.json"
"""File in a fetched source, written last, and in what was imported from one: its address with the commit, and hashes."""


@dataclass(frozen=True)
class Claim:
    """A folder of a PersistentVolumeClaim."""

    name: str
    """Name of the claim, in the namespace of the pod."""
    path: str = ""
    """Folder below its root; empty for the root."""


@dataclass(frozen=True)
class Image:
    """A folder of an image."""

    reference: str
    """As a container names it: `registry/repository:tag@sha256:…`."""
    path: str = ""
    """Folder below its root; empty for the root."""


def parse(address: str) -> Claim | Image | None:
    """The volume that an address names; None for an address that is none of a volume.

    Raises:
        UserError: it has another form.
    """
    if address.startswith(PVC):
        _require(PVC_FORM, address, "pvc://claim/folder")
        name, _, path = address.removeprefix(PVC).partition("/")
        return Claim(name, path)
    if address.startswith(OCI):
        _require(OCI_FORM, address, "oci://registry/repository@sha256:…, perhaps with #folder")
        reference, _, path = address.removeprefix(OCI).partition("#")
        return Image(reference, path)
    return None


def _require(form: str, address: str, example: str) -> None:
    if not re.fullmatch(form, address):
        raise UserError("is not an address of a volume", where=address, remedy=f"write {example}")


def folder(address: str, environment: Mapping[str, str] = os.environ) -> Path | None:
    """The folder at which a source is mounted; None where it is fetched.

    Raises:
        UserError: it can only be mounted, and is not.
    """
    mounted = json.loads(environment.get(VARIABLE) or "{}")
    if address in mounted:
        return Path(mounted[address])
    if address.startswith(PREFIXES):
        raise UserError("is a volume, which only a pod has", where=address, remedy="run on a cluster, or name a folder")
    return None


def file(path: str, environment: Mapping[str, str] = os.environ) -> Path:
    """A file that a manifest names by its path, or by the address of a file in a claim: `pvc://claim/answers.sqlite`.

    Raises:
        UserError: it is in a volume that is not mounted.
    """
    if not path.startswith(PVC):
        return Path(path)
    parent, _, name = path.rpartition("/")
    place = folder(parent, environment)
    assert place is not None, "a volume is mounted or refused"
    return place / name


def record(place: Path, resolved: str, sha256: Mapping[str, str]) -> None:
    """Writes RECORD into a source. Raises OSError.

    Args:
        place: folder of the source, or of what was imported from it
        resolved: its address, with a commit or a checkpoint where it has one
        sha256: of each file that was fetched
    """
    body = {"resolved": resolved, "sha256": dict(sha256)}
    (place / RECORD).write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")


def recorded(address: str, place: Path) -> str:
    """The name of a mounted source for checkpoints: of a fetched one with its commit, else the address as given."""
    try:
        body = json.loads((place / RECORD).read_bytes())
    except (OSError, ValueError):
        return address
    return str(body.get("resolved") or address) if isinstance(body, dict) else address
