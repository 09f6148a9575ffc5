"""Rows of Parquet and Arrow files, a few at a time. The one module that imports pyarrow.

Parquet is read column chunk by column chunk through a small buffer, because a file of images often is a single row
group: read at once, it would take the memory of the whole file, decoded.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gog.errors import UserError

BATCH = 16
"""Rows that are decoded at once: of 1 MB images, as many MB."""
BUFFER = 1 << 20
"""Bytes of each column that are read at once."""


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a .parquet or .arrow file as plain values.

    Raises:
        UserError: pyarrow is not installed, or the file is damaged, truncated or of another kind.
    """
    pyarrow = _pyarrow(path)
    try:
        with path.open("rb") as stream:
            batches = _parquet(stream) if path.suffix == ".parquet" else _ipc(stream)
            for batch in batches:
                yield from batch.to_pylist()
    except OSError as error:
        raise UserError(f"cannot read: {error.strerror or error}", where=str(path)) from None
    except (pyarrow.ArrowException, ValueError) as error:
        raise UserError(
            f"not a readable {path.suffix} file: {error}", where=str(path), remedy="fetch it again"
        ) from None


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

    head = stream.read(6)
    stream.seek(0)
    return pyarrow.ipc.open_file(stream) if head == b"ARROW1" else pyarrow.ipc.open_stream(stream)
