"""Stages as real processes that are killed or asked to end in mid-episode, and a judge that counts what it is asked."""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from gog import judging, store, trajectory_zip
from gog.journal import Chains, Found, Reader
from gog.spec import CONFIGS
from gog.store import Store
from gog.trajectory import Trajectory

PATIENCE = 1800.0
"""Seconds for an attempt on a machine that is busy with other work."""
FEW = {"concurrent_episodes": 6}
"""Few episodes at once, so that a play takes several waves and a kill finds some trajectories finished, some not."""
SETTINGS: dict[str, dict[str, Any]] = {
    "sft": {"stage": "again", "epochs": 20, "max_steps": 40, "save_every": 10},
    "grpo": {
        "levels": ["easy", "1", "2"],
        "questions_per_step": 5,
        "group_size": 3,
        "steps": 2,
        "save_every": 2,
        "deterministic": True,
        "seed": 4,  # both steps learn with it
        "updates_per_rollout": 2,  # what a resumed stage repeats
        **FEW,
    },
    "stratify": {"stage": "again", "questions": 9, "rollouts": 2, **FEW},
    "evaluate": {"policies": ["sft"], "questions": 12, "bootstrap": 100, **FEW},
}
"""Small stages after the chain."""


class Judge:
    """A judge that counts what it is asked, by question and answer."""

    def __init__(self) -> None:
        self.asked: Counter[tuple[str, str]] = Counter()
        judge = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                question, answers, answer = judging.read_case(body["messages"][-1]["content"])
                judge.asked[question, answer] += 1
                word = "Yes" if answer in answers else "No"
                reply = json.dumps({"choices": [{"message": {"role": "assistant", "content": word}}]}).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

            def log_message(self, *_: object) -> None:
                """Logs nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def judge() -> Iterator[Judge]:
    made = Judge()
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


class Run:
    """A stage over a copy of the finished chain."""

    def __init__(self, kind: str, chain: Path, root: Path, make: Any, settings: Mapping[str, Any]) -> None:
        self.kind, self.root = kind, root
        source, copy = Store(chain / "store"), store.open_store(f"file://{root}/store")
        for stage in ("curate", "sft", "stratify"):
            manifest = source.latest(stage)
            assert manifest is not None
            files = {name: source.open(manifest, name) for name in manifest.files}
            copy.publish(stage, manifest.step, files, meta=manifest.meta, parents=manifest.parents)
        self._make = make
        self.store = Store(root / "store")
        self.configure(settings)

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Sets the settings of the attempts that follow."""
        self.config = self._make(CONFIGS[self.kind], self.root, **settings)
        (self.root / "config.yaml").write_text(json.dumps(self.config.model_dump(mode="json", by_alias=True)))

    def override(self, name: str, value: str) -> None:
        """Sets one setting of the attempts that follow to what OmegaConf makes of a value in each process."""
        first, last = name.split(".")
        path = self.root / "config.yaml"
        values = json.loads(path.read_text())
        values[first][last] = value
        path.write_text(json.dumps(values))

    def start(self, ranks: int = 1) -> subprocess.Popen[bytes]:
        """Starts an attempt as `gog stage` does."""
        torchrun = ["--standalone", f"--nproc_per_node={ranks}"] if ranks > 1 else []
        program = ["-m", "gog_recipes.runtime.launch", *torchrun, "-m", f"gog_recipes.{self.kind}"]
        line = [sys.executable, "-W", "ignore", *program, "--config", str(self.root / "config.yaml")]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}  # not at import: it lacks the mark of support.reaper there
        with (self.root / "log").open("a") as log:
            return subprocess.Popen(line, stdout=log, stderr=log, env=environment, start_new_session=True)

    def started(self, ranks: int, until: Callable[[], bool]) -> subprocess.Popen[bytes]:
        """Starts an attempt, and returns while it runs as soon as a condition holds."""
        process, deadline = self.start(ranks), time.monotonic() + PATIENCE
        while not until():
            assert process.poll() is None, self.log()
            if time.monotonic() > deadline:
                self.kill(process)
                raise AssertionError(self.log())
            time.sleep(0.01)
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kills every process of an attempt by SIGKILL."""
        for pid in [*workers(process), process.pid]:
            os.kill(pid, signal.SIGKILL)
        process.wait(60)

    def kill_at(self, ranks: int, judged: int, step: int) -> None:
        """Starts it, and kills every process when the step's journal holds so many judged trajectories."""
        self.kill(self.started(ranks, until=lambda: len(self.journal(step)[0]) >= judged))

    def code(self, process: subprocess.Popen[bytes]) -> int:
        """Exit code of an attempt, which must end by itself."""
        try:
            return process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill(process)
            raise

    def finish(self, ranks: int = 1) -> None:
        """Runs an attempt to its end, which must be a good one."""
        assert self.code(self.start(ranks)) == 0, self.log()

    def log(self) -> str:
        return (self.root / "log").read_text()[-3000:]

    def steps(self) -> int:
        """Steps that the newest attempt has finished."""
        path = Path(self.config.workdir or "") / "metrics.jsonl"
        return path.read_text().count("\n") if path.exists() else 0

    def found(self, step: int, rank: int | None = None) -> dict[tuple[str, int], Found]:
        """What the journals of a step, or of one rank of it, hold of each trajectory, by question and number of the sample."""
        keys = [each.key for each in self.store.objects(f"journal/{self.config.key}/")]
        writer = r"\d{5}" if rank is None else f"{rank:05d}"
        chains = Chains()
        Reader(self.store, [key for key in keys if re.search(rf"-{step:09d}/.*-{writer}-\d+$", key)], chains).read()
        return {key: each for key in list(chains._records) if (each := chains.found(*key)) is not None}

    def journal(self, step: int, rank: int | None = None) -> tuple[list[tuple[str, str]], int]:
        """Question and answer of each judged trajectory in the journals of a step, or of one rank of it, and the tokens
        sampled in them."""
        found = self.found(step, rank).values()
        segments = [segment for each in found for segment in each.segments if segment.source == "model"]
        judged = [(each.trajectory.question, each.trajectory.answer or "") for each in found if each.trajectory]
        return judged, sum(len(segment.tokens) for segment in segments)

    def newest(self) -> store.Manifest:
        """The newest checkpoint, of which there must be one."""
        manifest = self.store.latest(self.config.key)
        assert manifest is not None
        return manifest

    def trajectories(self) -> list[Trajectory]:
        """Those that the newest checkpoint keeps."""
        return trajectory_zip.Archive(self.store.open(self.newest(), "trajectories.zip")).trajectories()

    def weights(self) -> str:
        """Hash of the trained adapter."""
        return self.newest().files["adapter_model.safetensors"].hash

    def tensors(self) -> dict[str, str]:
        """Hashes of adapters and of the optimizer's state, by file."""
        files = self.newest().files
        return {name: files[name].hash for name in files if name.endswith(".safetensors")}

    def lines(self) -> list[dict[str, Any]]:
        """The metric log of the newest checkpoint."""
        return [json.loads(line) for line in self.store.open(self.newest(), "metrics.jsonl").read_text().splitlines()]

    def result(self) -> Any:
        """What the stage found, without times."""
        names = {
            "grpo": ("step", "reward_mean", "accuracy_mean", "learned", "tool_calls_mean", "trajectories"),
            "sft": ("step", "loss", "grad_norm"),
        }
        if self.kind in names:
            return [[line[name] for name in names[self.kind]] for line in self.lines()]
        name = {"stratify": "levels.jsonl", "evaluate": "answers.jsonl"}[self.kind]
        rows = [json.loads(line) for line in self.store.open(self.newest(), name).read_text().splitlines()]
        return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def workers(process: subprocess.Popen[bytes]) -> list[int]:
    """Processes of torchrun's workers, each of which has a session of its own."""
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(each) for each in found]


@pytest.fixture(scope="session")
def uninterrupted(chain: Path, make: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Run]:
    """uninterrupted(kind, ranks): a finished stage, to which one that was killed or asked to end is compared."""

    @functools.cache
    def finished(kind: str, ranks: int) -> Run:
        run = Run(kind, chain, tmp_path_factory.mktemp(f"{kind}-{ranks}"), make, SETTINGS[kind])
        run.finish(ranks)
        return run

    return finished
