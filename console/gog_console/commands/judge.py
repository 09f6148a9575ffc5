"""`gog judge calibrate [FILE]`: compares a judge's verdicts with labelled cases.

The judge is a back end of ours, which is started for the purpose, an existing server, or the judge of a manifest. It is
called as a run calls it, with the same rules, retries and votes; nothing is recorded.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from gog import calibration, stats, validation
from gog import spec as settings
from gog.calibration import Agreement, Case
from gog.errors import UserError
from gog.tool_client import Toolbox
from gog.tool_types import Reply
from gog_console import cli, one_server
from gog_operator.api import manifest
from gog_operator.api.objects import GoGRun

SHOWN = 20
"""Disagreements that are listed."""


def main(given: argparse.Namespace) -> int:
    cases = _cases(given)
    endpoint, tools = _settings(given)
    with _address(endpoint) as url:
        replies = asyncio.run(_judge(cases, url, tools, endpoint.model))
    verdicts = [reply.value for reply in replies]
    rows = calibration.tally(cases, verdicts)
    if given.json:
        print(json.dumps([row.as_dict() for row in rows], indent=1))
    else:
        print(f"judge: {_name(endpoint, tools)}\n")
        _show(rows, cases, verdicts)
        failure = next((reply.failure for reply in replies if reply.failure is not None), None)
        if failure is not None:
            print(f"\nwithout a verdict: {rows[-1].undecided} cases, the first because of {failure.words}")
    return cli.COMPLETE if rows[-1].decided else cli.FAILED


def _cases(given: argparse.Namespace) -> list[Case]:
    """The cases of a file, or a shipped set."""
    if given.file and given.near_misses:
        raise UserError("are a set of their own", where="--near-misses", remedy=f"leave out {given.file}")
    if given.file:
        return calibration.load(Path(given.file))
    return calibration.near_misses() if given.near_misses else calibration.shipped()


def _settings(given: argparse.Namespace) -> tuple[settings.EndpointSpec, settings.ToolsSpec]:
    """The judge and how it is called: of a manifest, or of the command line."""
    endpoint, tools = _of_manifest(given) if given.manifest else _of_line(given)
    return endpoint, tools.model_copy(update={"cache": settings.CacheSpec(mode="off")})


def _of_manifest(given: argparse.Namespace) -> tuple[settings.EndpointSpec, settings.ToolsSpec]:
    names = ("url", "backend", "options", "model", "votes")
    if any(getattr(given, name) is not None for name in names):
        remedy = f"leave out {', '.join(f'--{name}' for name in names)}"
        raise UserError("names the judge and how it is called", where="--manifest", remedy=remedy)
    thing = manifest.load(Path(given.manifest), [])
    if not isinstance(thing, GoGRun):
        raise UserError(f"is a {thing.kind}", where=given.manifest, remedy="give the manifest of a GoGRun")
    endpoint = thing.spec.endpoints.judge  # type: ignore[attr-defined]
    if endpoint.runtime == "vllm" and endpoint.url is None:
        remedy = "serve the model, and give its address with --url and --model instead of --manifest"
        raise UserError("the judge is a vLLM, which only a run starts", where=given.manifest, remedy=remedy)
    return endpoint, thing.spec.tools


def _of_line(given: argparse.Namespace) -> tuple[settings.EndpointSpec, settings.ToolsSpec]:
    named = {"url": given.url, "backend": given.backend, "model": given.model}
    body: dict[str, object] = {name: value for name, value in named.items() if value}
    if given.options is not None:
        body["options"] = _object(given.options)
    votes = 1 if given.votes is None else given.votes
    try:
        endpoint = settings.EndpointSpec.model_validate(body if given.url else {"backend": "match", **body})
        return endpoint, settings.ToolsSpec.model_validate({"judge": {"votes": votes}})
    except ValidationError as error:
        field, cause = validation.first_problem(error)
        raise UserError(cause, where=f"--{field.rpartition('.')[2] or 'url'}") from None


def _name(endpoint: settings.EndpointSpec, tools: settings.ToolsSpec) -> str:
    """What was asked, for people."""
    votes = tools.judge.votes
    where = endpoint.backend if endpoint.url is None else endpoint.url
    return " ".join(filter(None, (where, endpoint.model, f"({votes} votes)" if votes > 1 else "")))


def _object(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UserError(f"not JSON: {error}", where="--options") from None


@contextlib.contextmanager
def _address(endpoint: settings.EndpointSpec) -> Iterator[str]:
    """Address of the judge's server, which is started where the endpoint names a back end."""
    if endpoint.url is not None:
        yield endpoint.url
        return
    arguments = ["--backend", endpoint.backend, "--options", json.dumps(endpoint.options)]
    with one_server.started("judge", arguments, seconds=endpoint.startup_seconds, where="--backend") as url:
        yield url


async def _judge(cases: Sequence[Case], url: str, tools: settings.ToolsSpec, model: str) -> list[Reply[bool]]:
    async with Toolbox({"judge": url}, tools, model) as toolbox:
        return list(await asyncio.gather(*(toolbox.judge(case.question, case.answers, case.answer) for case in cases)))


def _show(rows: Sequence[Agreement], cases: Sequence[Case], verdicts: Sequence[bool | None]) -> None:
    print(
        f"{'kind':14} {'cases':>6} {'agreement':>10}  {'95 % interval':15} {'false Yes':>9} {'false No':>9} {'none':>5}"
    )
    for row in rows:
        share = f"{row.agreed / row.decided:.1%}" if row.decided else "-"
        print(
            f"{row.kind or 'all':14} {row.decided + row.undecided:>6} {share:>10}  {_interval(row.agreed, row.decided):15} "
            f"{row.false_yes:>9} {row.false_no:>9} {row.undecided:>5}"
        )
    total = rows[-1]
    print()
    print(f"false Yes: {total.false_yes} of {total.wrong} wrong answers ({_interval(total.false_yes, total.wrong)})")
    print(f"false No:  {total.false_no} of {total.right} correct answers ({_interval(total.false_no, total.right)})")
    wrong = [
        (case, verdict) for case, verdict in zip(cases, verdicts, strict=True) if verdict not in (None, case.correct)
    ]
    wrong.sort(key=lambda each: not each[1])
    for case, verdict in wrong[:SHOWN]:
        name = "false Yes" if verdict else "false No "
        print(f"{name}  {case.kind or '-'}: {case.question!r} {' | '.join(case.answers)!r} answered {case.answer!r}")
    if len(wrong) > SHOWN:
        print(f"… {len(wrong) - SHOWN} more")


def _interval(successes: int, n: int) -> str:
    low, high = stats.wilson(successes, n)
    return f"{low:.1%} to {high:.1%}"
