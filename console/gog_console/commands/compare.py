"""`gog compare NAME…`: the evaluations of several runs side by side, with tests, printed and drawn."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gog_console import cli, report
from gog_console.compare import answers, page, pairs, text

FILE = "compare.html"


def main(given: argparse.Namespace) -> int:
    folder = Path(given.dir)
    runs = [answers.read(folder / name) for name in dict.fromkeys(given.names)]
    found = pairs.settings(runs)
    table, differences = pairs.lines(found), pairs.comparisons(found)
    changes = [*answers.others(runs), *answers.changes(runs)]
    if given.json:
        parts: dict[str, Sequence[Any]] = {"rows": table, "means": pairs.means(table), "differences": differences}
        document = {**{name: list(map(_plain, part)) for name, part in parts.items()}, "notes": changes}
        print(json.dumps(document, indent=1, allow_nan=False))
        return cli.COMPLETE
    print("\n".join([*text.lines(table, differences), *changes]))
    out = Path(given.out) if given.out else folder / FILE
    report.replace(out, page.build([run.name for run in runs], table, differences, changes))
    print(f"\n{out}")
    return cli.COMPLETE


def _plain(row: Any) -> Any:
    """A record as JSON values; what is not finite is null."""
    return _finite(dataclasses.asdict(row))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
