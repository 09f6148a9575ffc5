"""SIGTERM against whole stages: what was done is saved within the grace period, and the next attempt resumes from there."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.killed_stage import SETTINGS, Run, workers
from support.tcp_server import TcpServer

from gog_recipes.runtime.interruption import CODE

SLOW, EXHAUSTIVE = pytest.mark.slow, pytest.mark.exhaustive
GRACE_SECONDS = 30
"""What torchrun gives its workers, and Kubernetes a pod."""
PLAYED_BY_RANK_1 = 6
"""Trajectories of a step: three of each of its two questions."""
Straight = Callable[[str, int], Run]


def ends(process: subprocess.Popen[bytes]) -> bool:
    """Asks an attempt to end; whether it does so as interrupted, within the grace period, with all of its processes."""
    all_of_it = [process.pid, *workers(process)]
    process.send_signal(signal.SIGTERM)
    return process.wait(GRACE_SECONDS) == CODE and not alive(all_of_it)


def alive(pids: Iterable[int]) -> list[int]:
    """Those of some processes that have not ended."""
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@contextlib.contextmanager
def hanging_tool() -> Iterator[tuple[str, threading.Event]]:
    """The URL of a tool that answers no call inside, and an event that is set once it was called."""
    called, over = threading.Event(), threading.Event()

    def hang(connection: socket.socket) -> None:
        called.set()
        over.wait()

    with TcpServer(hang) as server:
        try:
            yield f"http://127.0.0.1:{server.port}", called
        finally:
            over.set()


def patient(run: Run) -> dict[str, Any]:
    """Settings of tools whose calls wait longer than an attempt may take to end."""
    return run.config.tools.model_dump(mode="json") | {"deadline_seconds": 600, "budget_seconds": 900}


@pytest.mark.parametrize("ranks", [pytest.param(1, marks=EXHAUSTIVE), pytest.param(2, marks=SLOW)])
def test_grpo_saves_its_last_step_and_every_turn_of_the_next_one(
    ranks: int, chain: Path, make: Any, uninterrupted: Straight, tmp_path: Path
) -> None:
    straight, run = uninterrupted("grpo", ranks), Run("grpo", chain, tmp_path, make, SETTINGS["grpo"])
    assert ends(run.started(ranks, until=lambda: len(run.journal(2)[0]) >= 3)), run.log()
    assert run.newest().step == 1, "no checkpoint was due"
    _, tokens = run.journal(2)
    run.finish(ranks)
    assert (run.result(), run.tensors()) == (straight.result(), straight.tensors())
    assert run.lines()[1]["generated_tokens"] <= straight.lines()[1]["generated_tokens"] - tokens


@SLOW
def test_one_rank_that_has_played_is_asked_to_end_while_a_tool_of_the_other_hangs(
    chain: Path, make: Any, endpoints: dict[str, str], uninterrupted: Straight, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    straight, run = uninterrupted("grpo", 2), Run("grpo", chain, tmp_path, make, SETTINGS["grpo"])
    with hanging_tool() as (url, called):
        run.configure(SETTINGS["grpo"] | {"endpoints": endpoints, "tools": patient(run)})
        for name in ("grounding", "imageSearch", "textSearch"):
            monkeypatch.setenv(f"{name}_0", url)
            monkeypatch.setenv(f"{name}_1", endpoints[name])
            run.override(f"endpoints.{name}", "${oc.env:" + name + "_${oc.env:RANK}}")
        process = run.started(2, until=lambda: called.is_set() and len(run.journal(1, rank=1)[0]) == PLAYED_BY_RANK_1)
        all_of_it = [process.pid, *workers(process)]
        (drained,) = [pid for pid in all_of_it if b"RANK=1" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")]
        os.kill(drained, signal.SIGTERM)  # its pod alone is asked
        try:
            assert process.wait(GRACE_SECONDS) == CODE and not alive(all_of_it), run.log()
        finally:
            if process.poll() is None:
                run.kill(process)
    assert run.store.latest("grpo") is None and len(run.journal(1, rank=1)[0]) == PLAYED_BY_RANK_1
    _, tokens = run.journal(1)
    run.configure(SETTINGS["grpo"])
    run.finish(2)
    assert (run.result(), run.tensors()) == (straight.result(), straight.tensors())
    assert run.lines()[0]["generated_tokens"] <= straight.lines()[0]["generated_tokens"] - tokens


@EXHAUSTIVE
def test_sft_of_two_ranks_saves_the_step_under_way(
    chain: Path, make: Any, uninterrupted: Straight, tmp_path: Path
) -> None:
    straight, run = uninterrupted("sft", 2), Run("sft", chain, tmp_path, make, SETTINGS["sft"])
    assert ends(run.started(2, until=lambda: run.steps() >= 13)), run.log()
    assert run.newest().step == run.steps() and 13 <= run.steps() < 40
    run.finish(2)
    assert (run.result(), run.tensors()) == (straight.result(), straight.tensors())


@EXHAUSTIVE
def test_a_checkpoint_that_is_being_written_is_whole_or_absent(
    chain: Path, make: Any, uninterrupted: Straight, tmp_path: Path
) -> None:
    straight, run = uninterrupted("sft", 1), Run("sft", chain, tmp_path, make, SETTINGS["sft"] | {"save_every": 1})
    adapter = Path(run.config.workdir or "") / "checkpoint" / "adapter_config.json"
    assert ends(run.started(1, until=adapter.exists)), run.log()
    run.store.fetch(run.newest(), tmp_path / "fetched")  # verifies every file
    run.finish()
    assert (run.result(), run.tensors()) == (straight.result(), straight.tensors())


@EXHAUSTIVE
def test_tools_that_hang_do_not_delay_the_end(
    chain: Path, make: Any, endpoints: dict[str, str], uninterrupted: Straight, tmp_path: Path
) -> None:
    straight, run = uninterrupted("grpo", 1), Run("grpo", chain, tmp_path, make, SETTINGS["grpo"])
    with hanging_tool() as (url, called):
        dead = dict.fromkeys(("grounding", "imageSearch", "textSearch"), url)
        run.configure(SETTINGS["grpo"] | {"endpoints": endpoints | dead, "tools": patient(run)})
        assert ends(run.started(1, until=called.is_set)), run.log()
    assert run.store.latest("grpo") is None and run.journal(1)[1] > 0
    run.configure(SETTINGS["grpo"])
    run.finish()
    assert (run.result(), run.tensors()) == (straight.result(), straight.tensors())


@EXHAUSTIVE
@pytest.mark.parametrize("ranks", [1, 2])
def test_grpo_that_is_asked_to_end_twice_in_every_step_equals_the_uninterrupted_run(
    ranks: int, chain: Path, make: Any, uninterrupted: Straight, tmp_path: Path
) -> None:
    straight, run = uninterrupted("grpo", ranks), Run("grpo", chain, tmp_path, make, SETTINGS["grpo"])
    for step in (1, 1, 2, 2):
        before, tokens = run.journal(step)
        more = len(before) + 2
        assert ends(run.started(ranks, until=lambda: len(run.journal(step)[0]) >= more)), run.log()  # noqa: B023
        latest = run.store.latest("grpo")
        assert (latest.step if latest else 0) == step - 1
        kept, taken_over = run.journal(step)
        assert set(before) <= set(kept) and taken_over >= tokens, "an attempt loses nothing of those before it"
    _, tokens = run.journal(2)
    run.finish(ranks)
    assert (run.result(), run.tensors()) == (straight.result(), straight.tensors())
    assert run.lines()[1]["generated_tokens"] <= straight.lines()[1]["generated_tokens"] - tokens
    assert run.store.objects("journal/") == []


@pytest.mark.parametrize("ranks", [pytest.param(1, marks=SLOW), pytest.param(2, marks=EXHAUSTIVE)])
def test_a_stage_that_is_asked_again_and_again_ends_at_once_and_loses_nothing_that_was_saved(
    ranks: int, chain: Path, make: Any, uninterrupted: Straight, tmp_path: Path
) -> None:
    straight, run = uninterrupted("grpo", ranks), Run("grpo", chain, tmp_path, make, SETTINGS["grpo"])
    process = run.started(ranks, until=lambda: len(run.journal(2)[0]) >= 3)
    all_of_it = [process.pid, *workers(process)]
    while process.returncode is None:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.01)
    assert process.returncode == CODE and not alive(all_of_it), run.log()
    _, tokens = run.journal(2)
    run.finish(ranks)
    assert (run.result(), run.tensors()) == (straight.result(), straight.tensors())
    assert run.lines()[1]["generated_tokens"] <= straight.lines()[1]["generated_tokens"] - tokens


@SLOW
def test_a_stage_that_loads_ends_at_once_and_leaves_nothing(chain: Path, make: Any, tmp_path: Path) -> None:
    run = Run("grpo", chain, tmp_path, make, SETTINGS["grpo"])
    maps: list[Path] = []

    def loads_torch() -> bool:
        return bool(maps) and "libtorch_python" in maps[0].read_text()

    process = run.start()
    maps.append(Path(f"/proc/{process.pid}/maps"))
    while not loads_torch():
        assert process.poll() is None, run.log()
        time.sleep(0.002)
    assert ends(process), run.log()
    assert run.store.latest("grpo") is None and run.store.objects("journal/") == []
