"""A pytest plugin that runs the fault cases in shards (`--fault-shard 2/8`) and prints progress and a summary.

The hash of a case determines its shard. Shards are therefore the same in every run and on every machine, have nearly
the same size, and together contain all cases. Shard 2/80 is a random tenth of shard 2/8.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # every session loads this plugin, few need an operator
    from support.fault_cases import Case

PROGRESS_SECONDS = 30.0


@dataclass(frozen=True)
class Shard:
    index: int = 1
    """Number of the shard, from 1."""
    count: int = 1
    """Number of shards."""

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Parses a text such as `2/8`. Raises pytest.UsageError."""
        index, _, count = text.partition("/")
        if not (index.isdigit() and count.isdigit() and 1 <= int(index) <= int(count)):
            raise pytest.UsageError(f"--fault-shard {text}: not of the form 2/8")
        return cls(int(index), int(count))

    def __contains__(self, case: Case) -> bool:
        text = f"{case.variant}/{case.fault}/{case.call}".encode()
        number = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
        return number % self.count == self.index - 1

    def __str__(self) -> str:
        return f"shard {self.index}/{self.count}"


@dataclass
class Tally:
    """The results of a session."""

    shard: Shard
    log: Callable[[str], None]
    """Prints a line at once, bypassing pytest's capture."""
    played: int = 0
    """Number of finished cases."""
    total: int = 0
    """Number of cases in all shards."""
    wrong: int = 0
    """Number of cases with a wrong outcome."""
    seconds: float = 0.0
    """Wall time of the cases."""
    _printed: float = field(default_factory=time.monotonic)

    def add(self, wrong: bool, left: int) -> None:
        self.played, self.wrong = self.played + 1, self.wrong + wrong
        if time.monotonic() - self._printed >= PROGRESS_SECONDS or not left:
            self._printed = time.monotonic()
            self.log(f"faults, {self.shard}: {self.played} cases run, {left} left in this test, {self.wrong} failed")

    def summary(self) -> str:
        verdict = f"{self.wrong} failed" if self.wrong else "all passed"
        return (
            f"faults, {self.shard}: {self.played} of {self.total} cases run in {self.seconds:.0f} s"
            f" ({self.seconds / max(1, self.played):.1f} s a case): {verdict}"
        )


# -- pytest's hooks


TALLY = pytest.StashKey[Tally]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fault-shard", default="1/1", metavar="I/N", help="run the I-th of N shards of the fault cases")


def pytest_configure(config: pytest.Config) -> None:
    shard = Shard.parse(config.getoption("--fault-shard"))

    def log(line: str) -> None:
        reporter = config.pluginmanager.getplugin("terminalreporter")
        if reporter is None:  # in a worker of pytest-xdist
            return
        with config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            reporter.ensure_newline()
            reporter.write_line(line)

    config.stash[TALLY] = Tally(shard, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.stash[TALLY].played:
        terminalreporter.write_line(config.stash[TALLY].summary())
