"""Checkpoints: published whole or not at all, and verified when read.

    blobs/<hash>                     bytes by their BLAKE3 (`b3sum` gives the same)
    manifests/<stage>/<step>.json    which blobs make up a checkpoint; *its appearance is the commit*
    latest/<stage>                   the newest step; only ever advances

A kill before the manifest appears leaves blobs that nobody refers to; a kill after it leaves `latest` behind, which is
why readers take the larger of pointer and listing. Manifests are never overwritten: a second publication of a step
with the same content is a success, with other content an error. No pickles: what a checkpoint holds is safetensors,
JSON and JSON lines.

The same over a folder (`file://`) and over a bucket (`s3://`); `checkpoints.py` decides, the backends obey. What it
does not do: keep two writers of different content apart (each stage has one), or survive a store that loses what it
has acknowledged.
"""

from gog.store.address import open_store
from gog.store.backend import Unavailable
from gog.store.checkpoints import Store
from gog.store.faults import Patience
from gog.store.model import Blob, Manifest
from gog.store.transfer import copy, fetch_prefix

__all__ = ["Blob", "Manifest", "Patience", "Store", "Unavailable", "copy", "fetch_prefix", "open_store"]
