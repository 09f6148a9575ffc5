"""`kill -9` of `gog run` at any moment: nothing runs without it, and the next `gog run` continues as if nothing had happened."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys

import pytest
import yaml
from support.operator_builders import until

STEPS = 6


def writes(harness) -> int:
    """The number of writes to the run's objects so far."""
    total = 0
    for path in (harness.run / "objects").glob("*.yaml"):
        body = yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        total += int(body["metadata"]["resourceVersion"])
    return total


def kill_after(harness, path, more: int) -> bool:
    """Starts `gog run` and kills it after so many more writes. Returns False when it ended by itself."""
    process = harness.start("run", path)
    goal = writes(harness) + more
    until(lambda: writes(harness) >= goal or process.poll() is not None)
    if process.poll() is not None:
        return False
    process.send_signal(signal.SIGKILL)
    process.wait()
    until(lambda: not harness.living(), patience=30)
    return True


@pytest.mark.parametrize("seed", [1, 2])
def test_a_run_that_is_killed_repeatedly_completes_and_repeats_nothing_committed(harness, seed):
    chance = random.Random(seed)
    harness.stage = {key: {"steps": STEPS, "seconds": 0.05, "save_every": 2} for key in ("curate", "sft", "grpo")}
    path = str(harness.write(stages={"skip": ["stratify", "evaluate"]}, store={"uri": f"file://{harness.run}/store"}))
    done: dict[str, int] = {}
    for _ in range(5):
        if not kill_after(harness, path, chance.randint(1, 12)):
            break
        for stage in ("curate", "sft", "grpo"):
            if STEPS in harness.committed(stage):
                assert done.setdefault(stage, len(harness.starts(stage))) == len(harness.starts(stage))
    code, output = harness.gog("run", path)
    assert code == 0, output
    assert harness.conditions("gogrun.world") == {"Complete": "Complete"} and harness.living() == set()
    for stage in ("curate", "sft", "grpo"):
        starts = [each["from"] for each in harness.starts(stage)]
        assert harness.committed(stage) == [2, 4, 6]
        assert starts == sorted(starts) and starts[-1] < STEPS, "each attempt resumes from the last checkpoint"
        if stage in done:
            assert len(starts) == done[stage], "what is committed is not done again"


def test_a_process_that_survives_its_control_loop_is_ended_by_the_next(harness):
    """On a system that does not tie children to parents, the next control loop finds them by their mark."""
    harness.stage = {"sft": {"hang": True}}
    path = str(harness.write("SFTStage", store={"uri": f"file://{harness.run}/store"}))
    first = harness.start("run", path)
    until(lambda: harness.starts("sft"))

    orphan = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"],
        env=os.environ | {"GOG_RUN_FOLDER": str(harness.run)},
        start_new_session=True,
    )
    first.send_signal(signal.SIGKILL)
    first.wait()
    harness.stage = {}
    code, output = harness.gog("run", path)
    assert code == 0 and "ended 1 processes that an earlier gog left behind" in output
    assert orphan.wait(10) == -signal.SIGKILL
