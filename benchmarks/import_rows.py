"""How fast a large file is imported, in how much memory, and what a kill in the middle costs. Against the goals.

    python benchmarks/import_rows.py [--rows 100000] [--side 256]

Writes a Parquet file of MMSearch-R1's layout in row groups of 20,000 rows, with an image of its own in each row; imports
it with `gog import` in a process of its own; kills that process with SIGKILL half-way and repeats the command. Memory is
the peak of resident memory of that process (VmHWM).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import outcome
import pyarrow
from PIL import Image as PILImage
from pyarrow import parquet

from gog.dataset import importing

GOAL_BYTES = 2 << 30
GROUP = 20_000
"""Rows of a row group."""
SCHEMA = pyarrow.schema(
    {
        "prompt": pyarrow.list_(pyarrow.struct({"content": pyarrow.string(), "role": pyarrow.string()})),
        "images": pyarrow.list_(pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.null()})),
        "reward_model": pyarrow.struct(
            {"candidate_answers": pyarrow.string(), "ground_truth": pyarrow.string(), "style": pyarrow.string()}
        ),
        "data_source": pyarrow.string(),
        "image_urls": pyarrow.null(),
    }
)


def images(side: int) -> Iterator[bytes]:
    """JPEGs of noise over a gradient, each another one: one is compressed, its comment tells them apart."""
    noise = np.random.default_rng(0).integers(0, 60, (side, side, 3), np.uint8)
    noise += np.linspace(0, 190, side).astype(np.uint8)[:, None, None]
    stream = io.BytesIO()
    PILImage.fromarray(noise).save(stream, "JPEG", quality=85)
    data = stream.getvalue()
    number = 0
    while True:
        comment = f"{number:012}".encode()
        yield data[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2) + comment + data[2:]
        number += 1


def write(path: Path, rows: int, side: int) -> None:
    """Writes the file, one row group at a time."""
    made = images(side)
    with parquet.ParquetWriter(path, SCHEMA) as writer:
        for start in range(0, rows, GROUP):
            batch = [
                {
                    "prompt": [{"content": f"What is number {number}?", "role": "user"}],
                    "images": [{"bytes": next(made), "path": None}],
                    "reward_model": {"candidate_answers": '["a", "b"]', "ground_truth": "c", "style": "rule"},
                    "data_source": "mmsearch_r1/fvqa_train",
                    "image_urls": None,
                }
                for number in range(start, min(start + GROUP, rows))
            ]
            writer.write_batch(pyarrow.RecordBatch.from_pylist(batch, SCHEMA), row_group_size=rows)


def start(source: Path, target: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "gog_console.cli", "import", "mmsearch-r1", str(source), str(target)]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})


def peak(pid: int) -> int:
    """Peak resident memory of a process in bytes; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def watched(process: subprocess.Popen[bytes], until: Callable[[], bool] = lambda: False) -> tuple[float, int]:
    """Seconds that a process took, and its peak memory; it is killed once `until` holds."""
    begun, most = time.monotonic(), 0
    while process.poll() is None:
        most = max(most, peak(process.pid))
        if until():
            process.send_signal(signal.SIGKILL)
            process.wait()
        time.sleep(0.1)
    return time.monotonic() - begun, most


def committed(target: Path) -> int:
    """Rows at the last commit of an import that is under way."""
    try:
        state = json.loads((target.with_name(f"{target.name}.partial") / importing.STATE).read_text())
    except (OSError, ValueError):
        return 0
    return sum(state["done"].values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--side", type=int, default=256, help="pixels of an image's side (default: 256)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gog-import-") as scratch:
        source, target = Path(scratch) / "fvqa_train.parquet", Path(scratch) / "out"
        write(source, given.rows, given.side)
        size, groups = source.stat().st_size, parquet.ParquetFile(source).num_row_groups
        seconds, memory = watched(start(source, target))
        lines = sum(1 for _ in (target / "train.jsonl").open())
        whole = (target / "train.jsonl").read_bytes()
        shutil.rmtree(target)
        killed, _ = watched(start(source, target), until=lambda: committed(target) >= given.rows // 2)
        again, memory_again = watched(start(source, target))
        same = (target / "train.jsonl").read_bytes() == whole
    rate = given.rows / seconds
    print("| rows | file | row groups | rows/s | peak memory | killed after | the rest took |")
    print("|---|---|---|---|---|---|---|")
    print(
        f"| {given.rows:,} | {size / 1e9:.2f} GB | {groups} | {rate:,.0f} | {memory / 2**20:,.0f} MiB | {killed:.0f} s | {again:.0f} s |"
    )
    found = {
        "rows": given.rows,
        "file_bytes": size,
        "row_groups": groups,
        "seconds": round(seconds, 1),
        "rows_per_second": round(rate),
        "peak_bytes": max(memory, memory_again),
        "killed_after_seconds": round(killed, 1),
        "rest_seconds": round(again, 1),
    }
    goals = {
        f"{given.rows:,} rows in at most 2 GiB": max(memory, memory_again) <= GOAL_BYTES and lines == given.rows,
        "killed and repeated, the same lines": same,
    }
    return outcome.finish("import_rows", found, goals)


if __name__ == "__main__":
    sys.exit(main())
