"""Stages as real processes that are killed by SIGKILL in mid-episode, and a judge that counts what it is asked."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
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
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


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
        self.config = make(CONFIGS[kind], root, **settings)
        (root / "config.yaml").write_text(json.dumps(self.config.model_dump(mode="json", by_alias=True)))
        self.store = Store(root / "store")

    def start(self, ranks: int) -> subprocess.Popen[bytes]:
        program = ["-m", f"gog_recipes.{self.kind}", "--config", str(self.root / "config.yaml")]
        if ranks > 1:
            program = ["-m", "gog_recipes.runtime.launch", "--standalone", f"--nproc_per_node={ranks}", *program]
        with (self.root / "log").open("a") as log:
            line = [sys.executable, "-W", "ignore", *program]
            return subprocess.Popen(line, stdout=log, stderr=log, env=ENVIRONMENT, start_new_session=True)

    def kill_at(self, ranks: int, judged: int, step: int) -> None:
        """Starts it, and kills every process when the step's journal holds so many judged trajectories."""
        process, deadline = self.start(ranks), time.monotonic() + PATIENCE
        while len(self.journal(step)[0]) < judged:
            assert process.poll() is None and time.monotonic() < deadline, self.log()
            time.sleep(0.002)
        workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for pid in [*map(int, workers), process.pid]:
            os.kill(pid, signal.SIGKILL)
        process.wait(60)

    def finish(self, ranks: int) -> None:
        assert self.start(ranks).wait(PATIENCE) == 0, self.log()

    def log(self) -> str:
        return (self.root / "log").read_text()[-3000:]

    def found(self, step: int) -> dict[tuple[str, int], Found]:
        """What the journals of a step hold of each trajectory, by question and number of the sample."""
        keys = [each.key for each in self.store.objects(f"journal/{self.config.key}/")]
        chains = Chains()
        Reader(self.store, [key for key in keys if re.search(f"-{step:09d}/", key)], chains).read()
        return {key: each for key in list(chains._records) if (each := chains.found(*key)) is not None}

    def journal(self, step: int) -> tuple[list[tuple[str, str]], int]:
        """Question and answer of each judged trajectory in the journals of a step, and the tokens sampled in them."""
        found = self.found(step).values()
        segments = [segment for each in found for segment in each.segments if segment.source == "model"]
        judged = [(each.trajectory.question, each.trajectory.answer or "") for each in found if each.trajectory]
        return judged, sum(len(segment.tokens) for segment in segments)

    def trajectories(self) -> list[Trajectory]:
        """Those that the newest checkpoint keeps."""
        manifest = self.store.latest(self.config.key)
        assert manifest is not None
        return trajectory_zip.Archive(self.store.open(manifest, "trajectories.zip")).trajectories()

    def weights(self) -> str:
        """Hash of the trained adapter."""
        manifest = self.store.latest(self.config.key)
        assert manifest is not None
        return manifest.files["adapter_model.safetensors"].hash

    def lines(self) -> list[dict[str, Any]]:
        manifest = self.store.latest(self.config.key)
        assert manifest is not None
        return [json.loads(line) for line in self.store.open(manifest, "metrics.jsonl").read_text().splitlines()]

    def result(self) -> Any:
        """What the stage found, without times."""
        manifest = self.store.latest(self.config.key)
        assert manifest is not None
        if self.kind == "grpo":
            names = ("step", "reward_mean", "accuracy_mean", "learned", "tool_calls_mean", "trajectories")
            return [[line[name] for name in names] for line in self.lines()]
        name = {"stratify": "levels.jsonl", "evaluate": "answers.jsonl"}[self.kind]
        return self.store.open(manifest, name).read_text()
