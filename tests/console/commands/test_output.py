"""Output that goes away: a closed pipe, a full device, a terminal that lacks characters."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from support.operator_harness import GOG

FULL = Path("/dev/full")


def call(harness, *line: str, stdout: int, environment: dict[str, str] | None = None) -> tuple[int, str]:
    """Exit code and standard error of `gog`, with its output going to a file descriptor."""
    done = subprocess.run(
        [*GOG, *line],
        cwd=harness.folder,
        env=harness.environment() | (environment or {}),
        stdout=stdout,
        stderr=subprocess.PIPE,
        check=False,
    )
    return done.returncode, done.stderr.decode()


def closed_pipe() -> int:
    """The writing end of a pipe without a reader."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def test_a_run_completes_when_the_reader_of_its_output_has_gone(harness):
    path = harness.write("SFTStage", store={"uri": f"file://{harness.run}/store"})
    writer = closed_pipe()
    code, errors = call(harness, "run", str(path), stdout=writer)
    os.close(writer)
    assert (code, errors) == (0, "")
    assert "Complete" in harness.conditions("sftstage.world")


@pytest.mark.skipif(not FULL.exists(), reason="needs the device /dev/full")
def test_a_run_completes_when_its_output_is_full(harness):
    path = harness.write("SFTStage", store={"uri": f"file://{harness.run}/store"})
    with FULL.open("wb") as full:
        code, errors = call(harness, "run", str(path), stdout=full.fileno())
    assert (code, errors) == (0, "")
    assert "Complete" in harness.conditions("sftstage.world")


@pytest.mark.skipif(not FULL.exists(), reason="needs the device /dev/full")
def test_a_command_whose_output_is_lost_fails_and_says_why(harness):
    path = harness.write()
    with FULL.open("wb") as full:
        code, errors = call(harness, "validate", str(path), stdout=full.fileno())
    assert (code, errors) == (1, "gog: the output cannot be written: No space left on device\n")


def test_a_command_ends_without_an_error_when_its_reader_has_enough(harness):
    path = harness.write()
    writer = closed_pipe()
    code, errors = call(harness, "validate", str(path), stdout=writer)
    os.close(writer)
    assert (code, errors) == (0, "")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_narrow_encoding_breaks_neither_a_run_nor_its_status(harness, encoding):
    narrow = {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    path = harness.write("SFTStage", store={"uri": f"file://{harness.run}/store"})
    assert call(harness, "run", str(path), stdout=subprocess.DEVNULL, environment=narrow) == (0, "")
    assert call(harness, "status", "world", stdout=subprocess.DEVNULL, environment=narrow) == (0, "")
    done = subprocess.run(
        [*GOG, "status", "--json"],
        cwd=harness.folder,
        env=harness.environment() | narrow,
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout.decode(encoding))["runs"][0]["run"] == "world"
