"""A pytest plugin for sessions of several workers (pytest-xdist), and for what a session prints while it runs.

A worker tests whole files (`--dist loadfile`), so tests that share the fixtures of a module stay together; fixtures of the
session are made once per worker that uses them. Workers start with the files that take longest, so that none is still
busy with one long after the others have ended, and end with those that need an API server, whose programs may still be
being built.
"""

from __future__ import annotations

import pytest

LONGEST = (
    "tests/e2e/test_world.py",
    "tests/architecture/test_extension_points.py",
    "tests/recipes/test_killed.py",
    "tests/recipes/test_ranks.py",
    "tests/recipes/test_terminated.py",
    "tests/e2e/test_busy_machine.py",
    "tests/e2e/test_served_agent.py",
    "tests/e2e/test_traces.py",
    "tests/recipes/test_sharding.py",
    "tests/recipes/test_chain.py",
    "tests/recipes/test_dtypes.py",
    "tests/recipes/test_storage_faults.py",
)
"""Files of minutes. One that is missing here costs time, nothing else."""
MAX_REASON = 500
"""Characters of a failure's first line."""


@pytest.hookimpl(trylast=True)  # after the reporter
def pytest_configure(config: pytest.Config) -> None:
    if config.pluginmanager.hasplugin("terminalreporter"):  # a worker has none
        config.pluginmanager.register(Failures(config))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In workers only: xdist distributes files in the order in which they were collected."""
    if hasattr(config, "workerinput"):
        late = {file_of(item.nodeid) for item in items if item.get_closest_marker("apiserver")}
        items.sort(key=lambda item: place(file_of(item.nodeid), late))


def file_of(nodeid: str) -> str:
    return nodeid.partition("::")[0]


def place(file: str, late: set[str]) -> int:
    """The place of a file in the order: files of the same place keep theirs."""
    if file in LONGEST:
        return LONGEST.index(file)
    return len(LONGEST) + (file in late)


class Failures:
    """Prints each failure in a line when it happens: a session that is killed never prints its reports."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    @pytest.hookimpl(trylast=True)  # after the reporter's own letter
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            reporter = self.config.pluginmanager.getplugin("terminalreporter")
            reporter.write_line(f"\n{report.nodeid} failed in {report.when}: {reason(report)}", red=True)


def reason(report: pytest.TestReport) -> str:
    """Place and first line of a failure."""
    crash = getattr(report.longrepr, "reprcrash", None)
    text = f"{crash.path}:{crash.lineno}: {crash.message}" if crash else str(report.longrepr)
    return text.strip().partition("\n")[0][:MAX_REASON]
