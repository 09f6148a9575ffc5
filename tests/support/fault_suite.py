"""Plays many fault cases, several at a time: each process has its own client, all share one API server."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor

from support.fault_cases import Case, Outcome, run_case

PROCESSES = 2


def processes() -> ProcessPoolExecutor:
    """Processes that play cases, one per core."""
    return ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn"))


def play_all(pool: Executor, kubeconfig: str, prefix: str, cases: Iterable[Case]) -> Iterator[Outcome]:
    """Plays cases several at a time, in order. prefix: of their namespaces."""
    waiting = [pool.submit(run_case, kubeconfig, f"{prefix}-{number}", case) for number, case in enumerate(cases)]
    for each in waiting:
        yield each.result()
