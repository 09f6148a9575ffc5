"""What make gives to the programs that it starts."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def seen(expression: str, *arguments: str, **environment: str) -> str:
    """What a recipe's shell prints for an expression in double quotes."""
    outer = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    command = ["make", "-s", "--eval", f'seen: ; @printf "%s" "{expression}"', "seen", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=outer | environment, capture_output=True, text=True, check=True)
    return done.stdout


def test_programs_write_bytecode_also_where_the_environment_forbids_it():
    assert seen("$$PYTHONDONTWRITEBYTECODE", PYTHONDONTWRITEBYTECODE="1") == ""


@pytest.mark.parametrize(("workers", "options"), [("1", []), ("3", ["-n", "3"]), ("auto", ["-n", "auto"])])
def test_the_number_of_workers_is_the_users_and_one_is_the_session_itself(workers, options):
    assert seen("$(PARALLEL)", f"WORKERS={workers}").split()[:2] == options
