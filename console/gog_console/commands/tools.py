"""`gog tools check MANIFEST`: calls every tool of a run once and says what is wrong.

The servers that the run would start are started for the check and stopped afterwards. In a pod, `--config FILE` names
what the operator wrote, and the outcome goes to the termination message. Exit codes: 0 every tool can be used, 1 a fault
that may pass, 2 one that a user has to correct.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from pathlib import Path

from gog.errors import UserError
from gog.tool_check import check as tool_check
from gog.tool_check.config import CheckConfig, Target
from gog.tool_check.diagnosis import Problem
from gog.tool_check.report import Report, Result
from gog_console import cli, tool_servers
from gog_console.commands import run as run_command
from gog_operator.api.objects import GoGRun
from gog_operator.build import tool_check as build
from gog_operator.store_jobs import config, message

CODES = {"passed": cli.COMPLETE, "unavailable": cli.FAILED, "failed": cli.INVALID}
"""Exit code by outcome."""


def main(given: argparse.Namespace) -> int:
    if (given.config is None) == (given.file is None):
        raise UserError("give a manifest, or --config FILE", where="gog tools check")
    if given.config is not None:
        report = asyncio.run(tool_check.check(config.read(Path(given.config), CheckConfig)))
        print(message.leave({name: value for name, value in report.as_dict().items() if name != "tools"}, os.environ))
        return cli.COMPLETE  # the operator reads the outcome, and decides when to check again
    report = check(read(given))
    if given.output == "json":
        print(json.dumps(report.as_dict(), indent=1, ensure_ascii=False))
    else:
        show(report)
    return CODES[report.outcome]


def read(given: argparse.Namespace) -> GoGRun:
    """The run of a manifest. Raises UserError."""
    thing = run_command.load(given)
    if not isinstance(thing, GoGRun):
        raise UserError(f"is a {thing.kind}", where=given.file, remedy="give the manifest of a GoGRun")
    run = run_command.absolute(thing)
    assert isinstance(run, GoGRun)
    return run


def check(run: GoGRun) -> Report:
    """Calls the tools of a run. Raises UserError where its dataset cannot be made."""
    if not build.is_needed(run):
        return Report(())
    with tool_servers.started(run) as servers:
        report = asyncio.run(tool_check.check(build.config(run, servers.urls, on_cluster=False)))
    dead = [_not_started(role, servers.failures[role], run) for role in build.roles(run) if role in servers.failures]
    return Report((*dead, *report.results), report.seconds)


def _not_started(role: str, why: str, run: GoGRun) -> Result:
    backend = build.config(run, {}, on_cluster=False).backends.get(role, "")
    remedy = f"correct endpoints.{role}, or the environment that the message names"
    return Result(
        Target(role, role, "", backend=backend), Problem("not_started", f"its server does not start: {why}", remedy)
    )


def show(report: Report) -> None:
    """Prints a few lines for each server, then the outcome."""
    for each in report.results:
        print(f"{each.target.title:<24} {'ok' if each.problem is None else 'FAILED':<8} {_figures(each)}".rstrip())
        for name, text in _lines(each):
            print(f"    {name}: {text}")
    if not report.results:
        print("nothing to check: the run calls no tool")
    elif not report.problems:
        print(report.summary)
    else:
        what = (
            "correct the manifest, the keys or the accounts"
            if report.outcome == "failed"
            else "this may pass; check again later"
        )
        print(f"{len(report.problems)} of {len(report.results)} cannot be used; {what}")


def _figures(each: Result) -> str:
    cost = f"{each.usd:.4f} USD" if each.usd else "free" if each.problem is None else ""
    vendor = f"{each.vendor} x{each.calls}" if each.vendor else ""
    parts = (f"{each.seconds:.3f} s" if each.seconds else "", cost, vendor, each.server, each.model)
    return "  ".join(part for part in parts if part)


def _lines(each: Result) -> list[tuple[str, str]]:
    lines = [("at", each.target.url), ("answer", each.answer)]
    if each.problem is not None:
        lines += [("problem", each.problem.what), ("remedy", each.problem.remedy)]
    if each.credit_usd is not None:
        lines.append(("credit", f"{each.credit_usd:.2f} USD left"))
    return [(name, text) for name, text in (*lines, *(("note", note) for note in each.notes)) if text]
