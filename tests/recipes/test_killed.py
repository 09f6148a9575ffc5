"""Stages killed by SIGKILL in mid-episode, as real processes: the next attempt repeats no finished turn and no verdict."""

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
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from gog import judging, store
from gog.journal import Chains, Reader
from gog.spec import CONFIGS
from gog.store import Store

SETTINGS: dict[str, dict[str, Any]] = {
    "grpo": {
        "levels": ["easy", "1", "2"],
        "questions_per_step": 5,
        "group_size": 3,
        "steps": 2,
        "save_every": 2,
        "deterministic": True,
    },
    "stratify": {"stage": "again", "questions": 9, "rollouts": 2},
    "evaluate": {"policies": ["sft"], "questions": 12, "bootstrap": 100},
}
SAMPLES = {"grpo": 15, "stratify": 18, "evaluate": 12}
"""Trajectories of a play. Those of `evaluate` have questions of their own, so no two of them share a verdict."""
FEW = {"concurrent_episodes": 6}
"""Few episodes at once, so that a play takes several waves and a kill finds some trajectories finished, some not."""
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

    def __init__(self, kind: str, chain: Path, root: Path, make: Any, endpoints: dict[str, str], judge: Judge) -> None:
        self.kind, self.root = kind, root
        source, copy = Store(chain / "store"), store.open_store(f"file://{root}/store")
        for stage in ("curate", "sft", "stratify"):
            manifest = source.latest(stage)
            assert manifest is not None
            files = {name: source.open(manifest, name) for name in manifest.files}
            copy.publish(stage, manifest.step, files, meta=manifest.meta, parents=manifest.parents)
        settings = SETTINGS[kind] | FEW | {"endpoints": endpoints | {"judge": judge.url}}
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
        process, deadline = self.start(ranks), time.monotonic() + 400
        while len(self.journal(step)[0]) < judged:
            assert process.poll() is None and time.monotonic() < deadline, self.log()
            time.sleep(0.002)
        workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for pid in [*map(int, workers), process.pid]:
            os.kill(pid, signal.SIGKILL)
        process.wait(60)

    def finish(self, ranks: int) -> None:
        assert self.start(ranks).wait(400) == 0, self.log()

    def log(self) -> str:
        return (self.root / "log").read_text()[-3000:]

    def journal(self, step: int) -> tuple[list[tuple[str, str]], int]:
        """Question and answer of each judged trajectory in the journals of a step, and the tokens sampled in them."""
        keys = [each.key for each in self.store.objects(f"journal/{self.config.key}/")]
        chains = Chains()
        Reader(self.store, [key for key in keys if re.search(f"-{step:09d}/", key)], chains).read()
        found = [each for key in list(chains._records) if (each := chains.found(*key)) is not None]
        segments = [segment for each in found for segment in each.segments if segment.source == "model"]
        judged = [(each.trajectory.question, each.trajectory.answer or "") for each in found if each.trajectory]
        return judged, sum(len(segment.tokens) for segment in segments)

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


def case(kind: str, ranks: int, then: int, *, fast: bool = False) -> Any:
    marks = () if fast else (pytest.mark.slow,)
    return pytest.param(kind, ranks, then, id=f"{kind} of {ranks}, then {then}", marks=marks)


@pytest.mark.parametrize(
    ("kind", "ranks", "then"),
    [
        case("grpo", 1, 1, fast=True),
        case("grpo", 2, 2),
        case("grpo", 2, 1),
        case("grpo", 1, 2),
        case("stratify", 1, 1),
        case("stratify", 2, 1),
        case("evaluate", 1, 1),
        case("evaluate", 2, 2),
    ],
)
def test_a_stage_that_is_killed_repeats_neither_finished_turns_nor_verdicts(
    kind: str, ranks: int, then: int, chain: Path, make: Any, endpoints: dict[str, str], judge: Judge, tmp_path: Path
) -> None:
    step = 2 if kind == "grpo" else 0
    for name in ("straight", "killed"):
        (tmp_path / name).mkdir()
    straight = Run(kind, chain, tmp_path / "straight", make, endpoints, judge)
    straight.finish(ranks)
    judge.asked = Counter()
    killed = Run(kind, chain, tmp_path / "killed", make, endpoints, judge)
    killed.kill_at(ranks, 3, step)
    judged, tokens = killed.journal(step)
    before, judge.asked = judge.asked, Counter()
    killed.finish(then)
    what = f"step {step}" if kind == "grpo" else "sft"
    assert f"{killed.config.key}: resumed {what}: {len(judged)} trajector" in killed.log()
    assert killed.result() == straight.result()
    assert killed.store.objects("journal/") == [], "a checkpoint deletes its journals"
    if kind == "evaluate":
        assert not [pair for pair in judged if judge.asked[pair]], "a verdict that was kept is asked for again"
        assert max((before + judge.asked).values()) <= 2
    if kind == "grpo":
        assert killed.lines()[0]["generated_tokens"] == 0, "a step whose play had finished is not sampled again"
    if ranks == then:
        assert sum(judge.asked.values()) <= SAMPLES[kind] - len(judged)
        if kind == "grpo":
            assert killed.weights() == straight.weights(), "the resumed run equals the uninterrupted one bit for bit"
            assert killed.lines()[1]["generated_tokens"] <= straight.lines()[1]["generated_tokens"] - tokens
