"""A test session that is killed leaves no process: neither daemons nor forks, neither an API server nor its etcd."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import kube, reaper
from support.operator_builders import until

TESTS = Path(__file__).parents[1]
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
HEAD = "import os, subprocess, time\nfrom pathlib import Path\n"
DAEMON = """
def test_hangs(tmp_path):
    script = 'setsid sleep 600 & echo $! >daemon'
    subprocess.run(['bash', '-c', script], cwd={folder!r}, stdout=subprocess.DEVNULL)
    if (fork := os.fork()) == 0:
        time.sleep(600)
    daemon = Path({folder!r}, 'daemon').read_text()
    Path({folder!r}, 'started').write_text(f'{{daemon}} {{fork}} {{os.getpid()}}')
    Path({folder!r}, 'up').touch()
    time.sleep(600)
"""
CLUSTER = """
def test_hangs(bare_api_server):
    Path({folder!r}, 'up').write_text(str(bare_api_server.folder))
    time.sleep(600)
"""


class Session:
    """A pytest session of its own whose one test hangs.

    Args:
        folder: of the session.
        test: its source.
        under_make: whether it is started by a process whose name is make.
        workers: processes of pytest-xdist that test; 0: the session itself.
    """

    def __init__(self, folder: Path, test: str, *, under_make: bool = False, workers: int = 0) -> None:
        self.up = folder / "up"
        (folder / "test_inner.py").write_text(HEAD + test.format(folder=str(folder)))
        line = [sys.executable, "-m", "pytest", "-p", "support.reaper", "-p", "support.kube", "-p", "no:cacheprovider"]
        line += ["-n", str(workers)]
        command = [*line, "--rootdir", str(folder), str(folder / "test_inner.py")]
        if under_make:
            (folder / "Makefile").write_text("t:\n\tGOG_PARENT=$$PPID exec " + " ".join(command) + "\n")
            command = ["make", "-s", "-C", str(folder), "t"]
        environment = {**os.environ, "PYTHONPATH": str(TESTS)}
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
        until(lambda: self.up.exists() or self.process.poll() is not None)
        assert self.process.poll() is None
        self.pytest = next(pid for pid in reaper.marked(os.environ[reaper.MARK]) if _is_inner(pid, folder))
        self.mark = next(each for each in map(_mark_of, _processes()) if each.startswith(f"{self.pytest}-"))

    def running(self) -> list[int]:
        return reaper.marked(self.mark) + [pid for pid in _processes() if _parent_of(pid) == self.pytest]

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def _processes() -> list[int]:
    return [int(each.name) for each in Path("/proc").glob("[0-9]*")]


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _is_inner(pid: int, folder: Path) -> bool:
    words = _read(pid, "cmdline").split(b"\0")
    return b"pytest" in words and str(folder / "test_inner.py").encode() in words


def _mark_of(pid: int) -> str:
    needle = f"{reaper.MARK}=".encode()
    found = (each for each in _read(pid, "environ").split(b"\0") if each.startswith(needle))
    return next(found, b"").removeprefix(needle).decode()


def _parent_of(pid: int) -> int:
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return int(fields[1]) if fields else 0


@linux
@pytest.mark.parametrize("under_make", [False, True], ids=["pytest", "make"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_daemon_and_a_fork_die_with_a_killed_session(tmp_path, under_make, workers):
    session = Session(tmp_path, DAEMON, under_make=under_make, workers=workers)
    daemon, fork, tester = started = [int(pid) for pid in (tmp_path / "started").read_text().split()]
    assert all(map(_read, started, ["cmdline"] * 3)) and _parent_of(fork) == tester
    assert (tester == session.pytest) == (workers == 0) and daemon in reaper.marked(_mark_of(daemon))
    session.kill()
    until(lambda: not session.running() and not any(map(_read, started, ["cmdline"] * 3)), 30)
    until(lambda: not any(_is_inner(pid, tmp_path) for pid in _processes()), 30)


@linux
@pytest.mark.apiserver
def test_an_api_server_dies_with_a_killed_session(tmp_path):
    kube.build()  # or the session would not be up in time
    session = Session(tmp_path, CLUSTER)
    folder = Path(session.up.read_text())
    started = {each.name: int(each.read_text()) for each in (folder / "pid").iterdir()}
    assert set(started) == {"etcd", "apiserver", "kcm"} and set(started.values()) <= set(session.running())
    session.kill()
    until(lambda: not any(str(folder).encode() in _read(pid, "cmdline") for pid in _processes()), 30)
    kube.stop(folder)
    folder.with_suffix(".lock").unlink(missing_ok=True)  # another session may have removed it already
