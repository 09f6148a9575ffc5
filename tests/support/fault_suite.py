"""Runs fault cases in parallel. Each process has its own client; all of them share one API server."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor

from support.fault_cases import Case, Outcome, run_case

PROCESSES = 2


def processes() -> ProcessPoolExecutor:
    """A pool of processes that run cases, one per core."""
    return ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn"))


def play_all(pool: Executor, kubeconfig: str, prefix: str, cases: Iterable[Case]) -> Iterator[Outcome]:
    """Runs cases in parallel; yields their outcomes in order. prefix: prefix of their namespaces."""
    waiting = [pool.submit(run_case, kubeconfig, f"{prefix}-{number}", case) for number, case in enumerate(cases)]
    for each in waiting:
        yield each.result()
