"""Parts of large files: several at a time, from mapped memory, straight into their place in a file."""

from __future__ import annotations

import contextvars
import http.client
import mmap
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from gog.store import hashing

Item = TypeVar("Item")
Result = TypeVar("Result")

CONNECTIONS = 4
"""Parts in transfer at once."""
BUFFER = 1 << 18
"""Bytes received at once: still in a core's own cache for checksum and write. From 512 KiB on, ext4 takes large pages for
a write, and searching for them in fragmented memory costs more than everything else."""


def mapped(path: Path) -> memoryview:
    """A file's content, mapped. Unmapped with its last view, which the traceback of a failure may hold."""
    with path.open("rb") as stream:
        return memoryview(mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ))


def together(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Runs work on all items, CONNECTIONS at a time. After a failure no further item starts.

    Returns:
        The results in the order of the items.

    Raises:
        The exception of the first item, in that order, that failed.
    """
    with ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="store") as pool:
        futures = [pool.submit(contextvars.copy_context().run, work, item) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def total_size(response: http.client.HTTPResponse) -> int:
    """Size in bytes of the object that an answer is a part of. Raises HTTPException if it is not a part."""
    total = response.getheader("Content-Range", "").rpartition("/")[2]
    if not total.isdigit():
        raise http.client.HTTPException("the answer to a range request is not a range")
    return int(total)


def write_body(response: http.client.HTTPResponse, handle: int, start: int, length: int) -> int:
    """Writes an answer's body to its place in a file.

    Args:
        response: the answer.
        handle: file descriptor.
        start: offset in the file, in bytes.
        length: of the body, in bytes.

    Returns:
        The body's CRC64NVME.

    Raises:
        http.client.IncompleteRead: the body is shorter.
    """
    buffer, crc, done = memoryview(bytearray(BUFFER)), 0, 0
    while done < length:
        got = response.readinto(buffer[: length - done])
        if not got:
            raise http.client.IncompleteRead(b"", length - done)
        crc = hashing.crc_of(buffer[:got], crc)
        os.pwrite(handle, buffer[:got], start + done)
        done += got
    return crc
