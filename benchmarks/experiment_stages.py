"""The stages of an experiment: what they compute decides their key, so experiments share what they have in common.

A manifest becomes the configurations of its stages, as the operator renders them. The key of a stage's checkpoints is a digest
of its settings, its data, its tools and the keys of the stages that it starts from. A stage whose key has a complete
checkpoint in the store is not run again; one that was killed resumes by its own journal.

Stages are forked from a process that has imported torch, which otherwise costs each of them ten seconds.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import multiprocessing
import os
import resource
import runpy
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Any

import ablations
import yaml

from gog import spec as settings
from gog import store
from gog_operator import parent_death
from gog_operator.api import manifest
from gog_operator.build import config as rendered
from gog_recipes import world
from gog_recipes.world import generate

CONFIGS = Path(__file__).parent.parent / "recipes" / "gog_recipes" / "configs" / "tiny"
ROLES = {"grounding": "grounding", "imageSearch": "image-search", "textSearch": "text-search", "judge": "judge"}
PLACEMENT = set(settings.Placement.model_fields)
CREDENTIALS = {"secret_name"}
"""Fields of a dataset that say who may read it, not what it holds."""
MODULES = [f"gog_recipes.{kind}" for kind in settings.STAGES]
START_SECONDS = 300


@dataclass(frozen=True)
class Planned:
    """One stage of an experiment."""

    kind: str
    """One of settings.STAGES."""
    key: str
    """Key of its checkpoints."""
    values: Mapping[str, Any]
    """Configuration of its recipe, without what depends on this machine."""
    served: str
    """JSON of what each tool's server is started with; empty for a stage without tools."""
    world: settings.WorldSpec
    """Its dataset."""


def plan(experiment: ablations.Experiment, seed: int, changes: Mapping[str, Any]) -> list[Planned]:
    """The stages of an experiment, in order.

    Args:
        experiment: which.
        seed: of its stages.
        changes: values by dotted path that hold for every manifest.
    """
    base, own, test = (
        _spec(ablations.document(each, seed, test=at_test, changes=changes))
        for each, at_test in ((ablations.BY_NAME["main"], False), (experiment, False), (experiment, True))
    )
    first = settings.STAGES.index(experiment.since)
    keys: dict[str, str] = {}
    found = []
    for place, kind in enumerate(settings.STAGES):
        spec = base if place < first else test if kind == "evaluate" else own
        planned = _planned(kind, spec, {need: keys[need] for need in settings.NEEDS[kind]})
        keys[kind] = planned.key
        found.append(planned)
    return found


def _spec(document: Mapping[str, Any]) -> settings.RunSpec:
    checked: Any = manifest.check(document, where="experiment")
    spec: settings.RunSpec = checked.spec
    return spec


def _planned(kind: str, spec: settings.RunSpec, inputs: dict[str, str]) -> Planned:
    assert spec.data.world is not None
    own = getattr(spec.stages, kind).model_dump(mode="json", exclude_unset=True, exclude=PLACEMENT)
    preset = yaml.safe_load((CONFIGS / f"{kind}.yaml").read_text())
    shared = {"model": spec.model, "tools": spec.tools} if settings.NEEDS_TOOLS[kind] else {"model": spec.model}
    common = {name: each.model_dump(mode="json", exclude_unset=True) for name, each in shared.items()}
    common = {name: {**preset.get(name, {}), **each} for name, each in common.items()}
    values = {
        **preset,
        **rendered.recipe_keys(own),
        **common,
        "seed": spec.seed,
        "inputs": inputs,
        "run": "experiments",
    }
    served = ""
    if settings.NEEDS_TOOLS[kind]:
        fields = ("failures", "options")
        tools = {name: getattr(spec.endpoints, settings_field(name)) for name in ROLES}
        served = json.dumps(
            {name: {f: each.model_dump(mode="json")[f] for f in fields} for name, each in tools.items()}
        )
    decisive = {key: value for key, value in values.items() if key not in ("data", "store")}
    if kind != "curate":  # whose teacher needs no model
        decisive["base"] = _base()
    data = [generate.VERSION, spec.data.model_dump(mode="json", exclude=CREDENTIALS)]
    text = json.dumps([kind, decisive, served, data], sort_keys=True)
    key = f"{kind}-{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}"
    return Planned(kind, key, values, served, spec.data.world)


@functools.cache
def _base() -> str:
    """Digest of the shipped model, which `base: tiny` alone does not identify."""
    return hashlib.blake2b((world.TINY / "model.safetensors").read_bytes(), digest_size=8).hexdigest()


def settings_field(tool: str) -> str:
    """Name of a tool's field in Python."""
    return "image_search" if tool == "imageSearch" else "text_search" if tool == "textSearch" else tool


class Bench:
    """Runs stages below a folder. Several processes may share the folder: a stage is run by one of them.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        for name in ("work", "locks", "store"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        self.store = store.open_store(f"file://{self.root / 'store'}")
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([*MODULES, "experiment_stages"])
        self._servers = Servers()

    def close(self) -> None:
        """Ends the tool servers."""
        self._servers.close()

    def is_done(self, stage: Planned) -> bool:
        """Whether its last checkpoint is in the store."""
        newest = self.store.latest(stage.key)
        return newest is not None and bool(newest.meta.get("complete"))

    def run(self, stage: Planned) -> None:
        """Runs a stage to its end, unless it is complete. Raises SystemExit where it fails."""
        with locked(self.root / "locks" / stage.key):
            if self.is_done(stage):
                return
            work = self.root / "work" / stage.key
            work.mkdir(exist_ok=True)
            data = self.data(stage.world)
            tools = self._servers.of(stage.served, data, self.root / "work") if stage.served else {}
            (work / "config.yaml").write_text(yaml.safe_dump(self._config(stage, data, work, tools)))
            process = self._context.Process(target=play, args=(stage.kind, str(work)))
            process.start()
            process.join()
            if process.exitcode or not self.is_done(stage):
                raise SystemExit(f"{stage.key} ended with {process.exitcode}; see {work / 'log'}")

    def data(self, world: settings.WorldSpec) -> Path:
        """The folder of a world; made first if it does not exist."""
        name = hashlib.blake2b(world.model_dump_json().encode(), digest_size=6).hexdigest()
        folder = self.root / f"data-{name}"
        with locked(self.root / "locks" / folder.name):
            generate.write(folder, world)
        return folder

    def cost(self, key: str) -> dict[str, float]:
        """Processor and wall seconds of a stage's last attempt; nothing where it was made elsewhere."""
        path = self.root / "work" / key / "cost.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def _config(self, stage: Planned, data: Path, work: Path, tools: Mapping[str, str]) -> dict[str, Any]:
        return {
            **stage.values,
            "stage": stage.key,
            "data": {"path": str(data)},
            "store": {"uri": f"file://{self.root / 'store'}"},
            "workdir": str(work),
            "endpoints": dict(tools),
            "backends": {
                tool: f"{tool} {stage.served}"[:1024] for tool in tools
            },  # not ports, which differ after a resume
        }


def play(kind: str, work: str) -> None:
    """Runs a recipe in this process, which was forked for it, and exits with its code."""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    log = os.open(f"{work}/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    started = time.monotonic()
    sys.argv = [f"gog_recipes.{kind}", "--config", f"{work}/config.yaml"]
    warnings.filterwarnings(
        "ignore", category=RuntimeWarning, module="runpy"
    )  # the module is imported already, on purpose
    try:
        runpy.run_module(f"gog_recipes.{kind}", run_name="__main__")
    finally:
        used = resource.getrusage(resource.RUSAGE_SELF)
        figures = {"cpu_seconds": used.ru_utime + used.ru_stime, "seconds": time.monotonic() - started}
        Path(work, "cost.json").write_text(json.dumps({name: round(each, 1) for name, each in figures.items()}))


def _die_with_parent() -> None:
    """Ends this process with the one that asked for it, which is not the one that forked it."""
    asked = multiprocessing.parent_process()
    assert asked is not None
    connection.wait([asked.sentinel])
    os._exit(137)


class Servers:
    """The tool servers of one set of settings, kept until another set is needed."""

    def __init__(self) -> None:
        self._wanted: tuple[str, str] | None = None
        self._urls: dict[str, str] = {}
        self._open = ExitStack()

    def of(self, served: str, data: Path, folder: Path) -> dict[str, str]:
        """URLs by tool."""
        if self._wanted != (served, str(data)):
            self.close()
            self._urls = self._open.enter_context(_started(json.loads(served), data, folder))
            self._wanted = (served, str(data))
        return self._urls

    def close(self) -> None:
        """Ends them."""
        self._open.close()
        self._wanted = None


@contextmanager
def _started(served: Mapping[str, Any], data: Path, folder: Path) -> Iterator[dict[str, str]]:
    processes, ready = {}, {}
    for tool, given in served.items():
        ready[tool] = folder / f"{tool}-{os.getpid()}.json"
        ready[tool].unlink(missing_ok=True)
        command = [str(Path(sys.executable).with_name("gog")), "serve", ROLES[tool], "--data", str(data)]
        command += ["--ready-file", str(ready[tool]), "--failures", json.dumps(given["failures"])]
        command += ["--options", json.dumps(given["options"]), "--timeout-seconds", "3"]
        environment = {**os.environ, parent_death.PARENT: str(os.getpid())}
        with (folder / f"{tool}.log").open("a") as log:
            processes[tool] = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not all(path.exists() for path in ready.values()):
            ended = [tool for tool, process in processes.items() if process.poll() is not None]
            if ended or time.monotonic() > deadline:
                raise SystemExit(f"the server of {(ended or ['the tools'])[0]} did not start; see {folder}/*.log")
            time.sleep(0.2)
        yield {tool: json.loads(path.read_text())["url"] for tool, path in ready.items()}
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            process.wait()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a lock that ends with this process, also where it is killed."""
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Whether this process holds a lock; False where another one does."""
    with path.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
