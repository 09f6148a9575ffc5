"""A stage's jobs on this machine, by TorchX's `local_cwd` scheduler.

TorchX compiles the job. Before the job is scheduled, our name and log folder (`logs/<stage>/<attempt>/`) replace the
generated ones. One public method of the scheduler is overridden, to record every process as soon as it exists and to
obtain its exit code. The scheduler installs signal handlers when it is created; they are restored, because `gog run`
handles interruptions itself.

Jobs are kept in memory only. An attempt that has a log folder but no job was started by an earlier control loop, and
counts as lost.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from gog_operator.api import exit_codes
from gog_operator.cluster import files, processes
from gog_operator.plan.actions import JobView

SESSION = "gog"
END = "SUCCESS"
"""File that TorchX leaves beside the logs of every job, however it ended."""
GRACE_SECONDS = 20.0
"""Seconds between SIGTERM and SIGKILL, in which a stage can write a checkpoint."""


class LocalJobs:
    def __init__(self, register: processes.Processes) -> None:
        self.register = register
        self._jobs: dict[str, _Job] = {}
        self._runner: Any = None

    def create(self, name: str, app: Any, log_folder: Path) -> None:
        """Compiles an AppDef and starts it under the given name; does nothing if this process already started it."""
        if name in self._jobs:
            return
        info = self.runner.dryrun(app, "local_cwd", {"log_dir": str(log_folder)})
        _rename(info.request, name, log_folder)
        job = self._jobs[name] = _Job(name, log_folder)
        self._starting = job
        with files.as_user_error(log_folder):
            job.handle = self.runner.schedule(info)

    def view(self, name: str, log_folder: Path) -> JobView | None:
        job = self._jobs.get(name)
        if job is None:
            return JobView("lost", lines=job_log(log_folder)) if log_folder.is_dir() else None
        if any(each.poll() is None for each in job.processes):
            job.kill_if_overdue()
            return JobView("running")
        if job.ended is None:
            job.ended = self._close(job)
        return job.ended

    def cancel(self, name: str) -> None:
        """Sends SIGTERM. A later `view` sends SIGKILL when the grace period is over."""
        job = self._jobs.get(name)
        if job is not None and job.ended is None and job.cancelled is None:
            job.cancelled = time.monotonic()
            for each in job.processes:
                processes.signal_children(each, signal.SIGTERM)

    def close(self, grace: float, hurry: Any) -> None:
        """Ends every job before this process exits. See `processes.end` for the arguments."""
        for job in self._jobs.values():
            processes.end(job.processes, grace, hurry)
            if job.ended is None and job.handle:
                job.ended = self._close(job)

    def running(self) -> bool:
        return any(each.poll() is None for job in self._jobs.values() for each in job.processes)

    def _close(self, job: _Job) -> JobView:
        """The result of a job whose processes have exited. Reading TorchX's status flushes the logs."""
        for each in job.processes:
            processes.signal_children(each, signal.SIGKILL)  # workers may outlive their leader
        self.runner.status(job.handle)
        self.register.forget(job.name)
        code = exit_codes.normalized(next((each.returncode for each in job.processes if each.returncode), 0))
        state = exit_codes.state(code) if job.cancelled is None else "cancelled"
        _name_end(job.log_folder, state)
        return JobView(state, code, job_log(job.log_folder), "it received SIGINT or SIGTERM" if state == "lost" else "")

    @property
    def runner(self) -> Any:
        if self._runner is None:
            self._runner = self._make_runner()
        return self._runner

    def _make_runner(self) -> Any:
        """Creates the TorchX runner. TorchX is imported here, because only running a stage needs it."""
        from torchx.runner import Runner
        from torchx.schedulers import local_scheduler

        jobs = self

        class Scheduler(local_scheduler.LocalScheduler):
            def run_local_job(self, args: list[str], env: dict[str, str], **more: Any) -> subprocess.Popen[bytes]:
                env["PATH"] = os.environ.get("PATH", os.defpath)  # TorchX puts the working directory first
                process: subprocess.Popen[bytes] = super().run_local_job(args=args, env=env, **more)
                jobs._started(process)
                return process

        def factory(session_name: str, **_: Any) -> Scheduler:
            handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
            try:
                return Scheduler(session_name, image_provider_class=local_scheduler.CWDImageProvider)
            finally:
                for number, handler in handlers.items():
                    _restore(number, handler)

        return Runner(SESSION, {"local_cwd": factory})

    def _started(self, process: subprocess.Popen[bytes]) -> None:
        self._starting.processes.append(process)
        self.register.record(self._starting.name, process.pid)


class _Job:
    def __init__(self, name: str, log_folder: Path) -> None:
        self.name, self.log_folder = name, log_folder
        self.processes: list[subprocess.Popen[bytes]] = []
        self.handle: Any = None
        self.cancelled: float | None = None
        self.ended: JobView | None = None

    def kill_if_overdue(self) -> None:
        """Kills a cancelled job whose grace period is over."""
        if self.cancelled is not None and time.monotonic() - self.cancelled > GRACE_SECONDS:
            for each in self.processes:
                processes.signal_children(each, signal.SIGKILL)


def _name_end(log_folder: Path, state: str) -> None:
    """Renames TorchX's SUCCESS file, which holds the exit codes, to the job's actual state."""
    if state != "succeeded":
        with contextlib.suppress(FileNotFoundError):  # removed by hand; only the logs are needed
            (log_folder / END).rename(log_folder / {"lost": "INTERRUPTED"}.get(state, state.upper()))


def job_log(log_folder: Path) -> tuple[str, ...]:
    """The last lines that the job's processes wrote to stderr, or to stdout if stderr is empty."""
    for name in ("stderr.log", "stdout.log"):
        lines = [line for path in sorted(log_folder.rglob(name)) for line in processes.tail(path)]
        if any(line.strip() for line in lines):
            return tuple(lines)
    return ()


def _rename(request: Any, name: str, log_folder: Path) -> None:
    """Replaces the name and the log folder that TorchX generated."""
    generated, folder = request.app_id, request.log_dir

    def ours(text: str) -> str:
        return text.replace(folder, str(log_folder)).replace(generated, name)

    request.app_id, request.log_dir = name, str(log_folder)
    for replicas in request.role_params.values():
        for each in replicas:
            each.args = [ours(arg) for arg in each.args]
            each.env = {key: ours(value) for key, value in each.env.items()}
            each.stdout, each.stderr, each.combined = (ours(p) for p in (each.stdout, each.stderr, each.combined))
    request.role_log_dirs = {role: [ours(path) for path in paths] for role, paths in request.role_log_dirs.items()}


def _restore(number: signal.Signals, handler: Any) -> None:
    try:
        signal.signal(number, handler if handler is not None else signal.SIG_DFL)
    except ValueError:  # outside the main thread TorchX installs no handlers either
        return
