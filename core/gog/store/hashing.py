"""BLAKE3 and CRC64NVME of files, both in one pass.

BLAKE3 names a blob. CRC64NVME is what S3 servers check and keep, and checksums of parts combine to that of the whole.
awscrt (extra `s3`) computes it; a store in a folder does not need it.
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
"""Bytes that are hashed at once."""
MANY_THREADS = 1 << 26
"""Bytes from which hashing on several threads is faster."""


def blob_of(path: Path) -> Blob:
    """Hash, size and, if awscrt is installed, checksum of a file. Raises OSError."""
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
    """Whether a file has the content of a blob, by its hash. Raises OSError."""
    return path.stat().st_size == blob.size and blob_of(path).hash == blob.hash


def crc_of(data: Any, before: int = 0) -> int:
    """CRC64NVME of bytes. before: the CRC of the bytes in front of them."""
    return int(required().crc64nvme(data, before))


def joined(parts: list[tuple[int, int]]) -> int:
    """CRC64NVME of a whole from (CRC, length in bytes) of its parts in order."""
    return functools.reduce(lambda total, part: int(required().combine_crc64nvme(total, *part)), parts, 0)


def encoded(crc: int) -> str:
    """A CRC as S3 headers hold it: 8 bytes, big-endian, in base64."""
    return base64.b64encode(crc.to_bytes(8, "big")).decode()


def required() -> Any:
    """The module of awscrt that computes checksums. Raises UserError if it is not installed."""
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
