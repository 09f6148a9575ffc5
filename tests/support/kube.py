"""A real API server for tests marked `apiserver`: one per session, started by tests/cluster in a folder of its own.

Problem: a fake API server agrees with its author. Decision: kube-apiserver, etcd and the controller manager themselves,
on free loopback ports, with the CRDs of this project, Volcano and KServe, but without their controllers: tests write the
status that Volcano and KServe would. A missing program is built; where Go is missing too, the tests are skipped and one
line of the summary reports it. Sessions run side by side. The processes of a killed session die with it (`reaper`), its
folder is removed by the next session. There is no node: no pod ever starts.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import pytest
import yaml

from support import ports

ROOT = Path(__file__).resolve().parents[2]
KIT = ROOT / "tests/cluster"
CLUSTER = Path(os.environ.get("GOG_CLUSTER") or Path.home() / ".cache/gog-cluster")
NEEDED = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl")
MISSING = "tests on a real API server did not run: its programs are not built, and there is no Go to build them"
START_TRIES = 3
"""Another program may take a free port before the server does."""


@dataclass(frozen=True)
class ApiServer:
    """A running API server."""

    folder: Path
    """Its state: kubeconfigs, logs, process ids."""
    port: int
    """On the loopback interface."""
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "admin.kubeconfig"

    @property
    def server(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def audit_log(self) -> Path:
        """One JSON line for each request that it answered."""
        return self.folder / "audit.log"

    def kubectl(self, *args: str | Path, input: str | None = None, check: bool = True) -> str:
        """The output of one kubectl call as the administrator.

        Args:
            args: of kubectl.
            input: its stdin.
            check: whether it must succeed; if not, its stderr is part of the output.

        Raises:
            AssertionError: with kubectl's own message.
        """
        command = [CLUSTER / "bin/kubectl", f"--kubeconfig={self.kubeconfig}", *args]
        done = subprocess.run(command, input=input, capture_output=True, text=True, timeout=120, check=False)
        if not check:
            return done.stdout + done.stderr
        assert done.returncode == 0, f"kubectl {' '.join(map(str, args))}: {done.stderr.strip()}"
        return done.stdout

    def apply(self, *documents: dict[str, object]) -> str:
        """Applies documents, also over fields that the chart of another test owns."""
        return self.kubectl(
            "apply", "--server-side", "--force-conflicts", "-f", "-", input=yaml.safe_dump_all(documents)
        )

    def namespace(self, prefix: str = "test") -> str:
        """Creates a namespace that enforces the restricted Pod Security level. Returns its name."""
        name = f"{prefix}-{next(self._numbers)}"
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        return name


def available() -> bool:
    """Whether the API server's programs exist or can be built."""
    return built() or shutil.which("go") is not None


def built() -> bool:
    return (CLUSTER / "addons").is_dir() and all((CLUSTER / "bin" / name).exists() for name in NEEDED)


def build() -> None:
    """Builds the API server's programs where they are missing."""
    if not built():
        subprocess.run([KIT / "build", "api"], check=True)


def obtainable(name: str) -> bool:
    """Whether `program` can return it."""
    return (CLUSTER / "bin" / name).exists() or shutil.which("go") is not None


def program(name: str) -> Path:
    """A program of the kit that is a group of its own (`helm`), built if it is missing. Skips the test without Go."""
    if not obtainable(name):
        pytest.skip(MISSING)
    if not (CLUSTER / "bin" / name).exists():
        subprocess.run([KIT / "build", name], check=True)
    return CLUSTER / "bin" / name


@pytest.fixture(scope="session")
def api_server() -> Iterator[ApiServer]:
    """The session's API server, with every CRD applied."""
    with serving() as server:
        yield server


@pytest.fixture(scope="session")
def bare_api_server() -> Iterator[ApiServer]:
    """A second one, whose controller manager only collects garbage and ends namespaces: Jobs and Deployments are advanced
    by the test, at once and in the same order every time."""
    settings = {
        "GOG_CONTROLLERS": "garbage-collector-controller,namespace-controller",
        "GOG_AUDIT": "",
        "GOGC": "400",  # a fifth less processor time of the API server, for some 200 MiB
    }
    with serving("bare", **settings) as server:
        yield server


@contextmanager
def serving(suffix: str = "", **environment: str) -> Iterator[ApiServer]:
    """An API server for the time of the block.

    Args:
        suffix: of its folder, different for each server of a session.
        environment: of tests/cluster/up.
    """
    build()
    folder, lock = claim_folder(suffix)
    server = start(folder, **environment)
    try:
        crds = sorted((ROOT / "manifests/crds").glob("*.yaml"))
        for file in crds:
            server.kubectl("apply", "--server-side", "-f", file)
        if crds:
            names = [f"crd/{yaml.safe_load(file.read_text())['metadata']['name']}" for file in crds]
            server.kubectl("wait", "--for=condition=Established", "--timeout=60s", *names)
            wait_until_served(server)
        yield server
    finally:
        stop(folder)
        Path(lock.name).unlink()  # before it is released, or another session may remove it first
        lock.close()


def wait_until_served(server: ApiServer, namespace: str | None = None) -> None:
    """Waits until every resource that the operator knows can be listed: for a moment after its definition it cannot."""
    from gog_operator.cluster import kube, paths
    from support.operator_builders import until

    api = kube.connect(1, str(server.kubeconfig))

    def served() -> bool:
        try:
            return all(api.call("GET", each.path(namespace)) for each in paths.KNOWN)
        except kube.ApiError:
            return False

    until(served)


def start(folder: Path, **environment: str) -> ApiServer:
    for attempt in range(1, START_TRIES + 1):
        api, etcd, peer = ports.free(3)
        where = {"GOG_API_PORT": str(api), "GOG_ETCD_PORT": str(etcd), "GOG_ETCD_PEER_PORT": str(peer)}
        run = kit("up", folder, "api", **{"GOG_AUDIT": "1", **where, **environment})
        if run.returncode == 0:
            return ApiServer(folder, api)
        stop(folder)
        if attempt == START_TRIES:
            raise RuntimeError(f"tests/cluster/up api: {run.stderr.strip()}")
    raise AssertionError("unreachable")


def stop(folder: Path) -> None:
    kit("down", folder)


def kit(script: str, folder: Path, *args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = os.environ | {"GOG_CLUSTER": str(CLUSTER), "GOG_CLUSTER_RUN": str(folder)} | environment
    return subprocess.run([KIT / script, *args], env=settings, capture_output=True, text=True, check=False)


def claim_folder(suffix: str = "") -> tuple[Path, TextIO]:
    """Claims a run folder for as long as the returned file is open, and removes what dead sessions left.

    The kernel releases the lock of a process that dies in any way.
    """
    sessions = CLUSTER / "sessions"
    sessions.mkdir(parents=True, exist_ok=True)
    with (sessions / "guard").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        for left in sorted(sessions.glob("*.lock")):
            with left.open("w") as old:
                try:
                    fcntl.flock(old, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                stop(left.with_suffix(""))
                left.unlink(missing_ok=True)  # its owner may have ended meanwhile
        lock = (sessions / f"{os.getpid()}{suffix}.lock").open("w")
        fcntl.flock(lock, fcntl.LOCK_EX)
    return Path(lock.name).with_suffix(""), lock


# --- pytest's hooks: where the kit is not available, report it once ---


@pytest.hookimpl(trylast=True)  # after -m has deselected tests
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if available():
        return
    for item in items:
        if item.get_closest_marker("apiserver"):
            item.add_marker(pytest.mark.skip(reason=MISSING))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Counts reports, because workers collect the tests and this process prints the summary."""
    if count := sum(MISSING in str(each.longrepr) for each in terminalreporter.stats.get("skipped", ())):
        terminalreporter.write_line(f"{count} {MISSING}")
