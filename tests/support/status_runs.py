"""Run folders as `gog status` finds them, and the lines that it shows of them."""

from __future__ import annotations

import json
import os

from gog_console.commands import status
from gog_console.status import overview, run_page
from gog_operator.api.meta import Reason
from gog_operator.api.objects import Summary
from gog_operator.cluster.files import ObjectFiles
from support.operator_builders import NOW, holding, make_run, make_stage

AT_WORK = holding("Ready", Reason.TRAINING, "attempt 1")


def run_folder(runs, name="world", *things, born=NOW, conditions=AT_WORK, **summary):
    """A folder with a run that says what is given, and with other objects."""
    run = make_run()
    status = run.status.model_copy(update={"conditions": conditions, "summary": Summary(**summary), "start_time": NOW})
    keep(runs / name, run.model_copy(update={"status": status}), *things, born=born)
    return runs / name


def keep(folder, *things, born=NOW):
    for thing in things:
        ObjectFiles(folder / "objects").create(thing, now=born)


def steps(folder, key, numbers, total=90, changed=NOW, **figures):
    """A stage's log of steps."""
    log = folder / "work" / key / "metrics.jsonl"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as stream:
        for step in numbers:
            made = {name: value(step) if callable(value) else value for name, value in figures.items()}
            stream.write(json.dumps({"step": step, "total": total, **made}) + "\n")
    os.utime(log, (changed.timestamp(),) * 2)


def report(folder, key, step, total, **metrics):
    path = folder / "work" / key / "progress.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"step": step, "total": total, "metrics": metrics, "checkpoint": None}))


def all_lines(runs, now=NOW, width=160):
    return [line.plain for line in overview.lines(overview.Overview(runs).read(now), now, width)]


def board_lines(folder, now=NOW, width=100):
    return [line.plain for line in run_page.lines(run_page.read(status.RunFolder(folder), now), now, width)]


def grpo_at_work(**status_of):
    output = {"attempt": 2, "attempt_time": NOW, "start_time": NOW, "checkpoint": "grpo/60", "conditions": AT_WORK}
    return make_stage("GRPOStage", status=output | status_of)


def words_of(line):
    return line.split()
