"""A folder of Hugging Face's `datasets`, of which no other format is known: `save_to_disk`, or the files of a repository.

saved/train/{data-00000-of-00001.arrow, dataset_info.json, state.json}      written by `save_to_disk`
repository/data/{train,test}-00000-of-00002.parquet                        a snapshot of a dataset repository
images/train/{metadata.jsonl, 1.jpg}                                       an `imagefolder` with its metadata

Columns as in `plain`. For a benchmark whose format gog knows, name that format: it reads the same files.
"""

from __future__ import annotations

from pathlib import Path

from gog.dataset.foreign import files
from gog.dataset.formats import plain


class Reader(plain.Reader):
    """Reads a Hugging Face dataset folder. Implements gog.dataset.formats.Reader."""

    OF_HUGGING_FACE = True

    def split_of(self, file: Path) -> str:
        """The split in its name, else the folder that `save_to_disk` made for it."""
        if file.name.startswith("data-") or file.stem == "metadata":
            return files.split_of(file.parent / f"{file.parent.name}{file.suffix}")
        return files.split_of(file)
