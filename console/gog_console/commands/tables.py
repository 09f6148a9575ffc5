"""`gog tables --paper`: the paper's table of results, recomputed, with the figures that cannot be right."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator

from gog import benchmarks, paper_tables, stats
from gog.errors import UserError
from gog.paper_tables import Fault, Printed
from gog_console import cli

MARK = "†"


def main(given: argparse.Namespace) -> int:
    if not given.paper:
        raise UserError("names no table", where="gog tables", remedy="add --paper; for your own runs see gog compare")
    print(json.dumps([_document(row) for row in paper_tables.ROWS], indent=1) if given.json else "\n".join(_lines()))
    return cli.COMPLETE


def _document(row: Printed) -> dict[str, object]:
    faults = [dataclasses.asdict(fault) for fault in paper_tables.faults(row)]
    return dataclasses.asdict(row) | {"recomputed_mean": round(stats.mean(row.scores), 2), "faults": faults}


def _lines() -> Iterator[str]:
    width = max(len(row.policy) for row in paper_tables.ROWS) + 2
    head = "".join(f"{name:>12}" for name in benchmarks.SIZES)
    sizes = "".join(f"{n:>12,}" for n in benchmarks.SIZES.values())
    yield f"{'accuracy, %':{width}}{'printed':>10}{'mean':>9}{head}"
    yield f"{'questions':{width}}{'':19}{sizes}"
    group, found = "", []
    for row in paper_tables.ROWS:
        if row.group != group:
            group = row.group
            yield f"\n{group}"
        faults = {fault.column: fault for fault in paper_tables.faults(row)}
        found += [(row, fault) for fault in faults.values()]
        scores = "".join(
            _cell(score, name in faults, 12) for name, score in zip(benchmarks.SIZES, row.scores, strict=True)
        )
        name = row.policy + (" *" if row.noted else "")
        yield f"{name:{width}}{_cell(row.mean, 'mean' in faults, 10)}{stats.mean(row.scores):>9.2f}{scores}"
    yield f"\n{MARK} cannot be right; * from a reading note, not from the authors' own pages"
    yield from (_sentence(row, fault) for row, fault in found)
    yield from _consequences()


def _cell(value: float, wrong: bool, width: int) -> str:
    return f"{value:.2f}{MARK if wrong else ' '}".rjust(width)


def _sentence(row: Printed, fault: Fault) -> str:
    where = f"{row.group}, {row.policy}"
    if fault.column == "mean":
        return f"{MARK} {where}: the scores have the mean {fault.possible:.2f}, not {fault.printed:.2f}"
    n = benchmarks.SIZES[fault.column]
    return (
        f"{MARK} {where}: {fault.printed:.2f} of {n:,} questions is no whole number of answers; {fault.possible:.2f} is"
    )


def _consequences() -> Iterator[str]:
    """What the recomputed means change of the paper's statements."""
    rows = {row.policy: row for row in paper_tables.ROWS if row.group == "trained"}
    gains = []
    for family in ("GoG-2.5", "GoG-3"):
        after, before = rows[f"{family} RL, level 2"], rows[f"{family} RL, level 1"]
        printed = after.mean - before.mean
        gains.append(f"{family} +{paper_tables.gain(after, before):.2f} (from the printed means +{printed:.2f})")
    yield f"level 2 over level 1, recomputed: {', '.join(gains)}"
