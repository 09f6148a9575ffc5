"""A manifest's demand of memory: what is asked of the recipes' estimate, and its answer as text.

The console has no torch, so it starts `python -m gog_recipes.estimate` with the configurations that the stages' jobs
would read. Memory sizes are decimal here (1 GB = 10^9 bytes), as on a GPU's data sheet.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gog import spec as settings
from gog import wording
from gog.errors import UserError
from gog_console.commands import stage as stage_command
from gog_operator.api import sequence
from gog_operator.api.objects import GoGRun, Object, Stage
from gog_operator.build import children, config, merge, volcano

PROGRAM = "gog_recipes.estimate"
UNTRAINED = ("curate",)
"""Stages that load no model."""
SERVED = {"endpoint", "endpoint-direct"}
"""Policies of evaluate whose model is not loaded."""
STORE = settings.StoreSpec(uri="file:///nowhere")
"""Stands for the run's store, which is not read."""
TITLES = {"vision": "vision pass", "growth": "cache grows"}
PROGRESS = "estimating "
"""Begins a line of progress on the program's standard error."""
INVALID_INPUT = 2
"""Exit code of a recipe for what the user must change."""


@dataclass(frozen=True)
class Sized:
    """A stage and its GPUs."""

    key: str
    """Key of its checkpoints in the store."""
    kind: str
    """sft, stratify, grpo or evaluate."""
    gpus: int
    """GPUs in all, each with one process."""
    gpus_per_node: int
    """GPUs of a pod or machine."""
    config: dict[str, Any]
    """Configuration of its recipe, preset included."""


@dataclass(frozen=True)
class Plan:
    """A run on GPUs."""

    model: str
    """The base model as the manifest names it."""
    gpu_bytes: int
    """Memory of each GPU."""
    stages: tuple[Sized, ...]
    """Those that load a model; an arm's only where its configuration differs in more than its name."""


def plan(thing: Object, *, gpus: int | None, default_gpus: int, gpu_bytes: int) -> Plan:
    """The stages of a manifest and their GPUs.

    Args:
        thing: a GoGRun or a stage
        gpus: GPUs of every stage; None: those of the manifest (workers)
        default_gpus: GPUs of a stage for which neither says
        gpu_bytes: memory of each GPU

    Raises:
        UserError: the manifest has no stage that loads a model.
    """
    found: list[Sized] = []
    for each in _stages(thing):
        if each.stage not in UNTRAINED:
            sized = _sized(each, gpus, default_gpus)
            if set(sized.config.get("policies", ["sft"])) <= SERVED:
                continue
            if all(_content(sized) != _content(other) for other in found):
                found.append(sized)
    if not found:
        raise UserError("no stage of it loads a model", where=thing.name)
    return Plan(str(found[0].config["model"]["base"]), gpu_bytes, tuple(found))


def _stages(thing: Object) -> list[Stage]:
    if isinstance(thing, GoGRun):
        return [children.stage(thing, step, {}, STORE) for step in sequence.steps(thing)]
    return [thing] if isinstance(thing, Stage) else []


def _sized(each: Stage, gpus: int | None, default_gpus: int) -> Sized:
    workers = each.spec.workers
    processes = volcano.processes(workers)
    named = workers.replicas * processes if workers.gpus else None
    count = gpus or named or default_gpus
    given = config.render(each, data=each.spec.data, endpoints={}, workdir="")
    given.pop("workdir")
    final = merge.final(given, (), stage_command.presets(), each.stage)
    return Sized(each.store_key, each.stage, count, min(count, processes if workers.gpus else 8), final)


def _content(each: Sized) -> str:
    own = {key: value for key, value in each.config.items() if key not in ("stage", "run", "inputs")}
    return json.dumps([each.kind, each.gpus, own], sort_keys=True, default=str)


def names_gpus(thing: Object) -> bool:
    """Whether a manifest gives any of its stages GPUs."""
    return any(each.spec.workers.gpus for each in _stages(thing))


def request(plan: Plan, *, model: str | None = None) -> dict[str, Any]:
    """What is asked of the recipes. model: a folder or the name of a published model, in place of the manifest's."""
    stages = [
        {"key": each.key, "kind": each.kind, "gpus": each.gpus, "gpus_per_node": each.gpus_per_node, "config": each.config}
        for each in plan.stages
    ]  # fmt: skip
    return {"gpu_bytes": plan.gpu_bytes, "model": model or plan.model, "stages": stages}


def run(asked: Mapping[str, Any], report: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """The estimate of a request, which is kept for `known`.

    Args:
        asked: as `request` returns it
        report: gets a line before each stage is estimated

    Raises:
        UserError: the model's configuration is not known, or a setting is invalid.
    """
    with tempfile.TemporaryDirectory() as folder:
        path, answer = Path(folder, "request.json"), Path(folder, "answer.json")
        path.write_text(json.dumps(asked, default=str))
        line = [sys.executable, "-P", "-m", PROGRAM, str(path)]
        with answer.open("w") as out, subprocess.Popen(line, stdout=out, stderr=subprocess.PIPE, text=True) as process:
            errors = _errors(process, report)
        if process.returncode == INVALID_INPUT:
            raise UserError(errors[-1].removeprefix("error: "))
        if process.returncode:
            raise RuntimeError(f"{PROGRAM} ended with exit code {process.returncode}:\n" + "\n".join(errors))
        found: dict[str, Any] = json.loads(answer.read_text())
    _keep(asked, found)
    return found


def _errors(process: subprocess.Popen[str], report: Callable[[str], None]) -> list[str]:
    """What a program writes to standard error until it ends, without its progress, which is reported."""
    assert process.stderr is not None
    lines = []
    for each in map(str.strip, process.stderr):
        if each.startswith(PROGRESS):
            report(each)
        elif each:
            lines.append(each)
    return lines


def known(asked: Mapping[str, Any]) -> dict[str, Any] | None:
    """The last estimate of a request by this version of the recipes, for any size of a GPU's memory; None without one."""
    try:
        found: dict[str, Any] = json.loads(_path(asked).read_text())
    except (OSError, ValueError):
        return None
    return found


def _keep(asked: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    path = _path(asked)
    with contextlib.suppress(OSError):  # only a note of `gog validate` depends on it
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found))


def _path(asked: Mapping[str, Any]) -> Path:
    """Of a request's estimate in the user's cache: named by its content, by the recipes' code and by the model's."""
    from gog import base_source  # with numpy, which `gog validate` does without where no GPUs are named

    files = [*stage_command.presets().parent.rglob("*.py")]
    if (folder := base_source.local(asked["model"])) is not None:
        files.append(folder / "config.json")
    newest = max(each.stat().st_mtime_ns for each in files if each.is_file())
    content = json.dumps([newest, {key: value for key, value in asked.items() if key != "gpu_bytes"}], default=str)
    name = hashlib.blake2b(content.encode(), digest_size=12).hexdigest()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "gog", "estimates", f"{name}.json")


# ---------------------------------------------------------------- text


def text(found: Mapping[str, Any], plan: Plan, *, model: str | None = None) -> str:
    """The estimate as tables, and what would run out first.

    Args:
        found: the answer
        plan: the stages and GPUs that it is about
        model: base model that was asked for; None: the manifest's
    """
    size = f"{found['parameters'] / 1e9:.2f} billion parameters"
    asked = model or plan.model
    source = "" if found["model"] == asked else f" (built-in configuration, because {asked} is not on this machine)"
    lines = [f"{found['model']}{source}: {size}; memory of each GPU in GB of 10^9 bytes"]
    for sized, each in zip(plan.stages, found["stages"], strict=True):
        lines += ["", f"{each['key']} on {sized.gpus} x {found['gpu_bytes'] / 1e9:g} GB"]
        lines += table(each, found["gpu_bytes"])
        lines += [f"  {line}" for line in _beside(each, sized)]
    return "\n".join([*lines, "", found["verdict"]])


def _beside(stage: Mapping[str, Any], sized: Sized) -> Iterator[str]:
    """What a stage needs beside GPU memory."""
    processes = wording.plural(sized.gpus_per_node, "process", "processes")
    yield f"memory of each machine: {_gb(stage['host_bytes'])} GB for {processes}, each of which loads the base model"
    if stage["disk_bytes"]:
        yield f"checkpoints in the store: {_gb(stage['disk_bytes'])} GB"
    if speed := stage["speed"]:
        parts = (("sampling", speed["rollout_seconds"]), ("updating", speed["update_seconds"]))
        step = " and ".join(f"{_span(seconds)} of {what}" for what, seconds in parts if seconds)
        yield f"time of an optimizer step: about {step}, assuming {speed['assumes']}"
    yield from (f"note: {note}" for note in stage["notes"])


def table(stage: Mapping[str, Any], gpu_bytes: int) -> list[str]:
    """Items as rows, phases as columns, with totals and headroom."""
    phases = stage["phases"]
    found = dict.fromkeys(item for phase in phases for item in phase["items"])
    items = sorted(found, key=lambda item: item.endswith("(assumed)"))
    rows = [("", [TITLES.get(phase["name"], phase["name"]) for phase in phases])]
    rows += [(item, [_gb(phase["items"].get(item, 0)) for phase in phases]) for item in items]
    rows.append(("total", [_gb(phase["total"]) for phase in phases]))
    rows.append(("headroom", [_gb(gpu_bytes - phase["total"]) for phase in phases]))
    return [f"  {name:<28}" + "".join(f"{cell:>13}" for cell in cells) for name, cells in rows]


def _gb(size: int) -> str:
    """
    >>> _gb(17_530_000_000), _gb(1), _gb(0)
    ('17.53', '<0.01', '-')
    """
    return f"{size / 1e9:.2f}" if abs(size) >= 5e6 else "<0.01" if size else "-"


def _span(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
