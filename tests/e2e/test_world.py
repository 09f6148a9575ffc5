"""The world example as a user runs it, killed in the middle of GRPO and resumed. Takes minutes.

Where a Prometheus is available, it scrapes the run, and the panels' failure rates are compared with the injected ones.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import openai
import pytest
import yaml
from support import kube, ports
from support.operator_builders import until
from support.real_prometheus import Span, serving

from gog import dataset, spec
from gog_console.dashboards import run_board, tools_board, training_board
from gog_console.dashboards.prometheus import Prometheus

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "world.yaml"
GOG = [sys.executable, "-m", "gog_console"]
STEPS = 80
"""Of GRPO, a third fewer than the example has."""
KILLED_AFTER = 25
"""Steps of GRPO before the kill; the newest checkpoint is then at step 20."""


def progress(folder: Path) -> int:
    try:
        return int(json.loads((folder / "work" / "grpo" / "progress.json").read_text())["step"])
    except (OSError, ValueError):
        return 0


SCRAPE_SECONDS = 5
CONFIGURATION = """
global: {{scrape_interval: {seconds}s, evaluation_interval: {seconds}s}}
rule_files: [{rules}]
scrape_configs:
  - job_name: gog
    http_sd_configs: [{{url: "http://127.0.0.1:{port}/targets", refresh_interval: {seconds}s}}]
"""
"""The configuration in docs/metrics.md, with the chart's rules."""


@dataclass
class Watched:
    """A run's folder, and the Prometheus that scraped it, if available."""

    folder: Path
    source: Prometheus | None
    began: float
    ended: float = 0.0


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A run that was killed with SIGKILL during GRPO and resumed to completion."""
    place = tmp_path_factory.mktemp("runs")
    (port,) = ports.free(1)
    with ExitStack() as stack:
        source = None
        if kube.obtainable("prometheus"):
            rules = ROOT / "charts/gog/files/rules.yaml"
            configuration = CONFIGURATION.format(port=port, seconds=SCRAPE_SECONDS, rules=rules)
            source = stack.enter_context(serving(tmp_path_factory.mktemp("prometheus"), configuration))
        watched = Watched(place / "world", source, time.time())
        killed_and_resumed(place, port)
        watched.ended = time.time()
        yield watched


def killed_and_resumed(place: Path, port: int) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    rest = ["--dir", str(place), "--metrics-port", str(port)]
    first = subprocess.Popen([*GOG, "run", str(EXAMPLE), "--set", f"stages.grpo.steps={STEPS}", *rest], env=environment)
    until(lambda: first.poll() is not None or progress(place / "world") >= KILLED_AFTER, patience=1200)
    assert first.poll() is None, "the run ended before it could be killed"
    first.send_signal(signal.SIGKILL)
    first.wait()
    resumed = subprocess.run([*GOG, "resume", "world", *rest], env=environment, timeout=1500)
    assert resumed.returncode == 0


@pytest.fixture(scope="module")
def run(watched: Watched) -> Path:
    return watched.folder


@pytest.fixture(scope="module")
def summary(run):
    return json.loads((run / "report" / "summary.json").read_text())


def test_every_stage_is_complete_and_only_grpo_was_tried_twice(summary):
    assert {stage["name"]: stage["condition"] for stage in summary["stages"]} == dict.fromkeys(
        ("curate", "sft", "stratify", "grpo", "evaluate"), "Complete"
    )
    assert [stage["attempts"] for stage in summary["stages"]] == [1, 1, 1, 2, 1]


def test_the_reward_series_has_no_gap_and_no_repeat(summary):
    assert [line["step"] for line in summary["grpo"]] == list(range(1, STEPS + 1))


def test_the_policy_learns(summary):
    rewards = [line["reward_mean"] for line in summary["grpo"]]
    assert sum(rewards[-10:]) / 10 - sum(rewards[:10]) / 10 >= 0.15


def test_rl_beats_sft_and_sft_beats_not_choosing(summary):
    low = {(pair["a"], pair["b"]): pair["ci95"][0] for pair in summary["comparisons"]}
    assert low["grpo", "sft"] > 0
    assert low["sft", "direct"] > 0
    assert low["sft", "whole-image"] > 0


def test_all_levels_occur(summary):
    assert all(summary["levels"][level] > 0 for level in ("easy", "1", "2"))


@pytest.fixture(scope="module")
def steps(run):
    """Lines of GRPO's metrics.jsonl, one per step."""
    return [json.loads(line) for line in (run / "work" / "grpo" / "metrics.jsonl").read_text().splitlines()]


def test_injected_failures_occurred_and_their_trajectories_were_excluded(steps):
    assert sum(line["excluded"] for line in steps) > 0
    assert any(line["tool_failure_ratio"] > 0 for line in steps)


def test_engine_and_trainer_agree_and_nothing_is_read_twice(steps):
    assert max(line["logp_diff_max"] for line in steps if line["learned"]) < 1e-4
    assert max(line["prefill_ratio"] for line in steps) <= 1.05


def test_the_report_is_self_contained(run):
    page = (run / "report" / "index.html").read_text()
    assert "Content-Security-Policy" in page
    assert page.count("data:image/png;base64") >= 50


# ---- metrics in Prometheus


@pytest.fixture(scope="module")
def span(watched: Watched) -> Span:
    if watched.source is None:
        pytest.skip(kube.MISSING)
    return Span(watched.source, watched.began, watched.ended, SCRAPE_SECONDS)


@pytest.mark.parametrize(
    "board", [run_board.BOARD, tools_board.BOARD, training_board.BOARD], ids=lambda board: board.name
)
def test_every_panel_shows_something_of_a_real_run(span, board):
    # The example allows one attempt per call, so that failures reach the policy.
    permitted = {
        *(tools_board.NO_AGENT, tools_board.NO_CREDIT, tools_board.NO_DECISION),
        *(training_board.ON_A_GPU, training_board.SEVERAL_RANKS),
    }
    assert set(span.empty(board).values()) <= permitted


@pytest.mark.parametrize("tool", ["grounding", "imageSearch", "textSearch"])
def test_the_injected_failure_rate_is_read_from_the_panels_within_its_interval(span, tool):
    endpoint = yaml.safe_load(EXAMPLE.read_text())["spec"]["endpoints"][tool]
    injection = spec.FailureInjection.model_validate(endpoint["failures"])
    assert span.reads_back(tool, injection, starts=2)  # by `gog run`, and by `gog resume` after the kill


def test_the_trained_policy_answers_chats_and_shows_its_steps(run):
    (port,) = ports.free(1)
    line = [*GOG, "chat", "world", "--dir", str(run.parent), "--port", str(port)]
    chatting = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    try:
        assert chatting.stdout is not None and chatting.stdout.readline().startswith(f"grpo/{STEPS} of world: http://")
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none")
        right, searched, questions = 0, 0, dataset.read_questions(run / "data", "test")[:20]
        for question in questions:
            data = base64.b64encode((run / "data" / question.image).read_bytes()).decode()
            image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
            content = [image, {"type": "text", "text": question.question}]
            answer = client.chat.completions.create(
                model="world", messages=[{"role": "user", "content": content}], extra_body={"trace": True}
            )
            right += answer.choices[0].message.content in question.answers
            searched += any(step["action"] != "answer" for step in answer.gog_steps)
        assert right >= 14, "held-out accuracy is above 90 %"
        assert searched >= 10
    finally:
        chatting.send_signal(signal.SIGINT)
        assert chatting.wait(60) == 0
