"""`kill -9` of `gog run` at any moment: nothing goes on without it, and the next one goes on as if nothing had been."""

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


def writes(workshop) -> int:
    """How often the run's objects have been written."""
    total = 0
    for path in (workshop.run / "objects").glob("*.yaml"):
        body = yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        total += int(body["metadata"]["resourceVersion"])
    return total


def kill_after(workshop, path, more: int) -> bool:
    """A life of `gog run` that ends by SIGKILL once so many more writes were made; False when it ended by itself."""
    process = workshop.start("run", path)
    goal = writes(workshop) + more
    until(lambda: writes(workshop) >= goal or process.poll() is not None)
    if process.poll() is not None:
        return False
    process.send_signal(signal.SIGKILL)
    process.wait()
    until(lambda: not workshop.living(), patience=30)
    return True


@pytest.mark.parametrize("seed", [1, 2])
def test_a_run_that_is_killed_again_and_again_completes_and_does_nothing_twice(workshop, seed):
    chance = random.Random(seed)
    workshop.stage = {key: {"steps": STEPS, "seconds": 0.05, "save_every": 2} for key in ("curate", "sft", "grpo")}
    path = str(workshop.write(stages={"skip": ["stratify", "evaluate"]}, store={"uri": f"file://{workshop.run}/store"}))
    done: dict[str, int] = {}
    for _ in range(5):
        if not kill_after(workshop, path, chance.randint(1, 12)):
            break
        for stage in ("curate", "sft", "grpo"):
            if STEPS in workshop.committed(stage):
                assert done.setdefault(stage, len(workshop.starts(stage))) == len(workshop.starts(stage))
    code, told = workshop.gog("run", path)
    assert code == 0, told
    assert workshop.conditions("gogrun.world") == {"Complete": "Complete"} and workshop.living() == set()
    for stage in ("curate", "sft", "grpo"):
        begun = [each["from"] for each in workshop.starts(stage)]
        assert workshop.committed(stage) == [2, 4, 6]
        assert begun == sorted(begun) and begun[-1] < STEPS, "each attempt goes on where the last checkpoint is"
        if stage in done:
            assert len(begun) == done[stage], "what is committed is not done again"


def test_what_survives_its_parent_is_ended_by_the_next_life(workshop):
    """On a system that does not tie children to parents the next life finds them by their mark."""
    workshop.stage = {"sft": {"hang": True}}
    path = str(workshop.write("SFTStage", store={"uri": f"file://{workshop.run}/store"}))
    first = workshop.start("run", path)
    until(lambda: workshop.starts("sft"))

    orphan = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"],
        env=os.environ | {"GOG_RUN_FOLDER": str(workshop.run)},
        start_new_session=True,
    )
    first.send_signal(signal.SIGKILL)
    first.wait()
    workshop.stage = {}
    code, told = workshop.gog("run", path)
    assert code == 0 and "ended 1 processes that an earlier gog left behind" in told
    assert orphan.wait(10) == -signal.SIGKILL
