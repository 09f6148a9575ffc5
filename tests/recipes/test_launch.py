"""torchrun for recipes exits as its workers do, and as interrupted after SIGTERM."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

LAUNCH = [sys.executable, "-W", "ignore", "-m", "gog_recipes.runtime.launch", "--standalone", "--nproc_per_node=2"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize(("ending", "code"), [("sys.exit(2)", 2), ("os.kill(os.getpid(), 9)", 137)])
def test_it_exits_with_the_code_of_the_worker_that_failed_first(ending, code, tmp_path):
    worker = tmp_path / "worker.py"
    worker.write_text(f"import os, sys\nif os.environ['RANK'] == '1':\n    {ending}\n")
    done = subprocess.run([*LAUNCH, str(worker)], env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    assert "ChildFailedError" not in done.stderr  # the worker's own message is the last one


def test_sigterm_ends_stuck_workers_and_then_the_launcher(tmp_path):
    worker = tmp_path / "worker.py"
    started = "open(f'{sys.argv[1]}/pid-{os.environ[\"RANK\"]}', 'w').write(str(os.getpid()))"
    worker.write_text(f"import os, sys, time\n{started}\ntime.sleep(600)\n")
    process = subprocess.Popen([*LAUNCH, str(worker), str(tmp_path)], env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not all((tmp_path / f"pid-{rank}").is_file() and pid_of(tmp_path, rank) for rank in range(2)):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 130
    assert not any(Path(f"/proc/{pid_of(tmp_path, rank)}").exists() for rank in range(2))


def pid_of(folder, rank):
    return (folder / f"pid-{rank}").read_text()
