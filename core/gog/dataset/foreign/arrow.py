"""Rows of Parquet and Arrow files, a few at a time. The one module that imports pyarrow.

Parquet is read column chunk by column chunk through a small buffer, because a file of images often is a single row
group: read at once, it would take the memory of the whole file, decoded.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from gog.errors import UserError

BATCH = 16
"""Rows that are decoded at once: of 1 MB images, as many MB."""
BUFFER = 1 << 20
"""Bytes of each column that are read at once."""
PARQUET = (".parquet", ".pq")
"""Endings of Parquet files. Others are recognised by their first bytes."""
SUFFIXES = (*PARQUET, ".arrow")
"""Endings of the files that are read."""
PARQUET_MAGIC, FILE_MAGIC = b"PAR1", b"ARROW1"
"""How Parquet and the file form of Arrow begin; its streaming form has no such mark."""


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet or Arrow file as plain values.

    Args:
        path: the file; its first bytes count more than its ending.

    Raises:
        UserError: pyarrow is not installed, or the file is damaged, truncated or of another kind.
    """
    pyarrow = _pyarrow(path)
    try:
        with path.open("rb") as stream:
            is_parquet = _starts_with(stream, PARQUET_MAGIC) or path.suffix in PARQUET
            for batch in _parquet(stream) if is_parquet else _ipc(stream):
                yield from batch.to_pylist()
    except OSError as error:
        raise UserError(f"cannot read: {error.strerror or error}", where=str(path)) from None
    except (pyarrow.ArrowException, ValueError) as error:
        name = path.suffix if path.suffix in SUFFIXES else "Parquet or Arrow"
        raise UserError(f"not a readable {name} file: {error}", where=str(path), remedy="fetch it again") from None


def _pyarrow(path: Path) -> Any:
    try:
        import pyarrow
    except ImportError:
        raise UserError(
            "reading it needs pyarrow, which is not installed", where=str(path), remedy="pip install 'gog[data]'"
        ) from None
    return pyarrow


def _parquet(stream: Any) -> Iterator[Any]:
    from pyarrow import parquet

    opened = parquet.ParquetFile(stream, buffer_size=BUFFER, pre_buffer=False)
    return opened.iter_batches(batch_size=BATCH, use_threads=False)


def _ipc(stream: Any) -> Iterator[Any]:
    reader = _ipc_reader(stream)
    count = getattr(reader, "num_record_batches", None)
    batches = iter(reader) if count is None else (reader.get_batch(number) for number in range(count))
    for batch in batches:
        for start in range(0, batch.num_rows, BATCH):
            yield batch.slice(start, BATCH)


def _ipc_reader(stream: Any) -> Any:
    """`save_to_disk` writes the streaming form, other programs the file form."""
    import pyarrow

    is_file = _starts_with(stream, FILE_MAGIC)
    return pyarrow.ipc.open_file(stream) if is_file else pyarrow.ipc.open_stream(stream)


def _starts_with(stream: BinaryIO, magic: bytes) -> bool:
    head = stream.read(len(magic))
    stream.seek(0)
    return head == magic
