"""BLAKE3 and CRC64NVME of files, both in one reading.

BLAKE3 names a blob; CRC64NVME is what S3 servers check and keep, and it joins: the checksum of a whole follows from
those of its parts, so that parts can be checked apart. awscrt (extra `s3`) computes it and is optional here.
"""

from __future__ import annotations

import base64
import functools
import mmap
from pathlib import Path
from typing import Any

from blake3 import blake3

from gog.errors import UserError
from gog.store.model import Blob

CHUNK = 1 << 26
MANY_THREADS = 1 << 26
"""From this size on hashing on several threads pays; below, starting them costs more."""


def blob_of(path: Path) -> Blob:
    """Hash, size and, where awscrt is installed, checksum of a file. Raises OSError."""
    size = path.stat().st_size
    digest = blake3(max_threads=blake3.AUTO if size >= MANY_THREADS else 1)
    checksums, crc = _checksums(), 0
    with path.open("rb") as stream:
        if size >= MANY_THREADS:
            with mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ) as mapped, memoryview(mapped) as view:
                for start in range(0, size, CHUNK):
                    with view[start : start + CHUNK] as part:
                        digest.update(part)
                        crc = checksums.crc64nvme(part, crc) if checksums else 0
        else:
            data = stream.read()
            digest.update(data)
            size, crc = len(data), checksums.crc64nvme(data) if checksums else 0
    return Blob(hash=digest.hexdigest(), size=size, crc64nvme=encoded(crc) if checksums else None)


def is_of(path: Path, blob: Blob) -> bool:
    """Whether a file's content is a blob's, by its hash. Raises OSError."""
    return path.stat().st_size == blob.size and blob_of(path).hash == blob.hash


def crc_of(data: Any, before: int = 0) -> int:
    """CRC64NVME of bytes, going on from that of what came before."""
    return int(required().crc64nvme(data, before))


def joined(parts: list[tuple[int, int]]) -> int:
    """CRC64NVME of a whole from (checksum, length) of its parts in order."""
    return functools.reduce(lambda total, part: int(required().combine_crc64nvme(total, *part)), parts, 0)


def encoded(crc: int) -> str:
    """As in S3's headers."""
    return base64.b64encode(crc.to_bytes(8, "big")).decode()


def required() -> Any:
    """awscrt's checksums. Raises UserError where they are not installed."""
    found = _checksums()
    if found is None:
        raise UserError("s3:// needs boto3 and awscrt", where="this Python", remedy="pip install 'gog[s3]'")
    return found


@functools.cache
def _checksums() -> Any:
    try:
        from awscrt import checksums
    except ImportError:
        return None
    return checksums
