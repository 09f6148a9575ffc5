"""torchrun for recipes exits as its workers do, and as interrupted after SIGTERM."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gog_recipes.runtime.interruption import CODE

pytestmark = pytest.mark.slow

LAUNCH = [sys.executable, "-W", "ignore", "-m", "gog_recipes.runtime.launch", "--standalone", "--nproc_per_node=2"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
STARTED = """import os, sys, time
open(f'{sys.argv[1]}/pid-{os.environ["RANK"]}', 'w').write(str(os.getpid()))
"""
SAVES = f"""import signal
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
{STARTED}
while not asked:
    time.sleep(0.01)
time.sleep(1)
open(f'{{sys.argv[1]}}/asked-{{os.environ["RANK"]}}', 'w').write(str(len(asked)))
sys.exit({CODE})
"""


@pytest.mark.parametrize(("ending", "code"), [("sys.exit(2)", 2), ("os.kill(os.getpid(), 9)", 137)])
def test_it_exits_with_the_code_of_the_worker_that_failed_first(ending, code, tmp_path):
    worker = tmp_path / "worker.py"
    worker.write_text(f"import os, sys\nif os.environ['RANK'] == '1':\n    {ending}\n")
    done = subprocess.run([*LAUNCH, str(worker)], env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    assert "ChildFailedError" not in done.stderr  # the worker's own message is the last one


def test_sigterm_ends_stuck_workers_and_then_the_launcher(tmp_path):
    process = started(tmp_path, f"{STARTED}time.sleep(600)")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == CODE
    assert not any(alive(tmp_path))


def test_workers_save_in_peace_while_the_launcher_gets_sigterm_again_and_again(tmp_path):
    process = started(tmp_path, SAVES)
    while process.returncode is None:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.01)
    assert process.returncode == CODE
    assert not any(alive(tmp_path))
    assert [(tmp_path / f"asked-{rank}").read_text() for rank in range(2)] == ["1", "1"]


def started(folder, source):
    """A launcher whose workers run."""
    worker = folder / "worker.py"
    worker.write_text(source)
    process = subprocess.Popen([*LAUNCH, str(worker), str(folder)], env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not all((folder / f"pid-{rank}").is_file() and pid_of(folder, rank) for rank in range(2)):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    return process


def alive(folder):
    """Whether each worker still runs."""
    return [Path(f"/proc/{pid_of(folder, rank)}").exists() for rank in range(2)]


def pid_of(folder, rank):
    return (folder / f"pid-{rank}").read_text()
