"""Processes beside the control loop: locked out, recorded, found again, ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from support.operator_builders import until

from gog.errors import UserError
from gog_operator import hints, parent_death
from gog_operator.cluster import lock, processes, servers
from gog_operator.cluster.lock import RunLock
from gog_operator.cluster.processes import MARK, Processes

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


def sleeper(**env):
    process = subprocess.Popen(SLEEP, env={**os.environ, **env}, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_a_folder_has_one_holder_and_others_get_its_process_id(tmp_path):
    folder = tmp_path / "world"
    with RunLock(folder):
        assert lock.holder(folder) == os.getpid()
        with pytest.raises(UserError) as caught, RunLock(folder):
            pass
        assert str(caught.value) == (
            f"{folder}: is in use by process {os.getpid()} (wait for it, or end it with `{hints.call('cancel', folder)}`)"
        )
    assert lock.holder(folder) is None
    with RunLock(folder):
        pass


def test_a_lock_dies_with_its_holder(tmp_path):
    code = (
        "import time; from pathlib import Path; from gog_operator.cluster.lock import RunLock\n"
        f"RunLock(Path({str(tmp_path)!r})).__enter__(); print('up', flush=True); time.sleep(600)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    assert lock.holder(tmp_path) == holder.pid
    holder.kill()
    holder.wait()
    with RunLock(tmp_path):
        pass


def test_a_recorded_process_of_an_earlier_control_loop_is_ended(tmp_path):
    left = sleeper()
    Processes(tmp_path).record("server", left.pid)
    assert Processes(tmp_path).end_leftovers() == 1
    assert left.wait(5) == -signal.SIGKILL
    assert Processes(tmp_path).leftovers() == set()


@linux
def test_an_unrecorded_process_is_found_by_its_mark(tmp_path):
    left, other = sleeper(**{MARK: str(tmp_path)}), sleeper(**{MARK: f"{tmp_path}-2"})
    try:
        assert Processes(tmp_path).leftovers() == {left.pid}
        Processes(tmp_path).end_leftovers()
        assert left.wait(5) == -signal.SIGKILL and other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_a_reused_process_id_is_left_alone(tmp_path):
    stranger = sleeper()
    try:
        folder = tmp_path / "processes"
        folder.mkdir()
        (folder / "server.json").write_text(json.dumps({"pid": stranger.pid, "started": "1"}))
        (folder / "spoilt.json").write_text("{")
        assert Processes(tmp_path).end_leftovers() == 0
        assert stranger.poll() is None and list(folder.iterdir()) == []
    finally:
        stranger.kill()
        stranger.wait()


def test_sigterm_comes_before_sigkill(tmp_path):
    code = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); print('up', flush=True); time.sleep(600)"
    polite = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
    assert polite.stdout is not None
    polite.stdout.readline()
    processes.end([polite], grace=10)
    assert polite.returncode == 7


def test_workers_that_ignore_sigterm_are_killed_too():
    worker = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    )
    code = (
        "import subprocess, sys\n"
        f"worker = subprocess.Popen([sys.executable, '-c', {worker!r}], stdout=subprocess.PIPE)\n"
        "worker.stdout.readline(); print(worker.pid, flush=True); worker.wait()"
    )
    leader = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
    assert leader.stdout is not None
    worker_id = int(leader.stdout.readline())
    processes.end([leader], grace=10)
    until(lambda: processes.start_time(worker_id) is None)


def orphan():
    """A leader that has exited, and its worker, which ignores SIGTERM."""
    worker = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    )
    code = (
        "import subprocess, sys\n"
        f"worker = subprocess.Popen([sys.executable, '-c', {worker!r}], stdout=subprocess.PIPE)\n"
        "worker.stdout.readline(); print(worker.pid, flush=True)"
    )
    leader = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, start_new_session=True)
    assert leader.stdout is not None
    worker_id = int(leader.stdout.readline())
    leader.wait(10)
    assert processes.start_time(worker_id) is not None
    return leader, worker_id


def test_workers_of_a_leader_that_has_exited_are_killed_at_the_end():
    leader, worker_id = orphan()
    processes.end([leader], grace=10)
    until(lambda: processes.start_time(worker_id) is None)


def test_workers_of_a_server_that_has_exited_are_killed_before_it_is_started_again(tmp_path):
    leader, worker_id = orphan()
    made = servers.LocalServers(Processes(tmp_path), tmp_path / "logs")
    now = datetime.now(UTC)
    made._servers["policy"] = servers._Server(leader, tmp_path / "log", tmp_path / "ready", now)
    made.start("policy", "policy", lambda ready: SLEEP, now, {})
    until(lambda: processes.start_time(worker_id) is None)
    made.close()


@linux
def test_a_child_dies_with_its_parent_even_after_exec():
    grandchild = "from gog_operator import parent_death; parent_death.die_with_parent(); import os; os.execvp('sleep', ['sleep', '600'])"
    child = (
        "import os, subprocess, sys, time\n"
        f"process = subprocess.Popen([sys.executable, '-c', {grandchild!r}],"
        f" env={{**os.environ, {parent_death.PARENT!r}: str(os.getpid())}}, start_new_session=True)\n"
        "path = f'/proc/{process.pid}/comm'\n"
        "while open(path).read().strip() != 'sleep': time.sleep(0.01)\n"
        "print(process.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    tied = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    until(lambda: processes.start_time(tied) is None)


def test_a_child_whose_parent_died_before_the_check_ends_at_once():
    code = "from gog_operator import parent_death; parent_death.die_with_parent(); print('still here')"
    gone = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, parent_death.PARENT: "999999"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert gone.returncode == 1 and gone.stdout == ""
    assert gone.stderr == "gog: process 999999, which started this one, is gone\n"


def test_a_log_s_end_is_read_without_control_characters(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"first\n" * 10_000 + b"10%\r50%\r100% done\n\x1b[31mlast\xff\n")
    assert processes.tail(path, 2) == ("100% done", "[31mlast\ufffd")
    assert processes.tail(tmp_path / "none") == ()
