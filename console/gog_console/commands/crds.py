"""`gog crds`: prints the CustomResourceDefinitions, writes one file per kind, or prints the reference of their fields."""

from __future__ import annotations

import argparse
from pathlib import Path

from gog.errors import UserError
from gog_operator.api import crd_reference, crds


def main(given: argparse.Namespace) -> int:
    if given.reference:
        print(crd_reference.page(), end="")
        return 0
    made = crds.all_of_them()
    if given.dir is None:
        print("---\n".join(crds.text(each) for each in made), end="")
        return 0
    folder = Path(given.dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for each in made:
            (folder / crds.file_name(each)).write_text(crds.text(each), encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", where=str(error.filename or folder)) from None
    print(f"{len(made)} files in {folder}")
    return 0
