"""Several workers test side by side: what failed is printed at once, and long files come first."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import workers

ROOT = Path(__file__).parents[2]
INNER = """
from pathlib import Path
from support.operator_builders import until
def test_fails():
    assert 1 + 1 == 3, 'the sum'
def test_waits():
    until(Path({folder!r}, 'go').exists)
"""


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT / "tests")}


@pytest.mark.parametrize("number", ["0", "1"])
def test_a_failure_is_printed_while_other_tests_still_run(tmp_path, number):
    (tmp_path / "test_inner.py").write_text(INNER.format(folder=str(tmp_path)))
    line = [sys.executable, "-u", "-m", "pytest", "-q", "-p", "support.workers", "-p", "no:cacheprovider", "-n", number]
    inner = subprocess.Popen([*line, tmp_path], env=environment(), cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    failed = next(text for text in inner.stdout if "failed in call" in text)
    (tmp_path / "go").touch()
    rest, _ = inner.communicate()
    assert failed.startswith("test_inner.py::test_fails failed in call: ")
    assert failed.endswith("test_inner.py:5: AssertionError: the sum\n")
    assert "1 failed, 1 passed" in rest


def test_the_files_that_come_first_exist():
    assert [name for name in workers.LONGEST if not (ROOT / name).is_file()] == []


def test_workers_start_with_the_longest_files_and_end_with_those_that_need_an_api_server(monkeypatch):
    monkeypatch.setattr(workers, "LONGEST", ("long.py", "shorter.py"))
    files = ["api.py", "b.py", "a.py", "shorter.py", "long.py"]
    assert sorted(files, key=lambda file: workers.place(file, {"api.py"})) == [
        "long.py",
        "shorter.py",
        "b.py",
        "a.py",
        "api.py",
    ]
