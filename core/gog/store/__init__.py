"""Checkpoints: published whole or not at all, and verified when read.

    blobs/<hash>                     bytes by their BLAKE3 hash (as `b3sum` prints it)
    manifests/<stage>/<step>.json    the blobs that make up a checkpoint; *its appearance is the commit*
    latest/<stage>                   the newest step; only ever advances
    writers/<uid>.json               which run writes here (writers.py)

A kill before the manifest appears leaves unreferenced blobs. A kill after it leaves `latest` behind, so readers take the
larger of pointer and listing. Manifests are never overwritten: publishing a step again succeeds with the same content
and fails with other content. Checkpoints hold safetensors, JSON and JSON lines, no pickles.

A store is a folder (`file://`) or a bucket (`s3://`). `checkpoints.py` makes all decisions; backends offer primitive
operations. A store does not keep two writers of different content apart (each stage has one), and does not survive a
server that loses what it has acknowledged.
"""

from gog.store.address import open_reader, open_store
from gog.store.backend import Unavailable
from gog.store.checkpoints import Store
from gog.store.faults import Patience
from gog.store.model import Blob, Manifest
from gog.store.publisher import Publisher
from gog.store.transfer import MODEL_FILES, copy, fetch_prefix, list_model, mirror, model_state

__all__ = [
    "MODEL_FILES",
    "Blob",
    "Manifest",
    "Patience",
    "Publisher",
    "Store",
    "Unavailable",
    "copy",
    "fetch_prefix",
    "list_model",
    "mirror",
    "model_state",
    "open_reader",
    "open_store",
]
