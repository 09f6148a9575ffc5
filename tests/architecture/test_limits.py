"""Files and functions stay short enough to be read at once: 400 lines and 60, a recipe's `train` 120.

A file that grows beyond this holds two things: split it where they meet. There are no exceptions.
"""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILE, FUNCTION, TRAIN = 400, 60, 120
"""Most lines of a file, of a function, and of a recipe's `train`."""


def sources() -> list[str]:
    """The Python files of the checkout, by their paths in it."""
    listed = subprocess.run(
        ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.py"),
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def functions(text: str) -> Iterator[tuple[str, int, int]]:
    """Name, first line and number of lines of each function, decorators excluded."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.lineno, node.end_lineno - node.lineno + 1


def limit(path: str, function: str) -> int:
    """Most lines of a function. A recipe is a file at the top of its package."""
    return TRAIN if function == "train" and Path(path).parent.as_posix() == "recipes/gog_recipes" else FUNCTION


def too_long(path: str, text: str) -> list[str]:
    """What of a file is longer than it may be."""
    lines = len(text.splitlines())
    found = [f"{path}: {lines} lines, {FILE} at most"] if lines > FILE else []
    return found + [
        f"{path}:{first} {name}: {count} lines, {limit(path, name)} at most"
        for name, first, count in functions(text)
        if count > limit(path, name)
    ]


def test_no_file_and_no_function_is_longer_than_it_may_be() -> None:
    found = [each for path in sources() for each in too_long(path, (ROOT / path).read_text(encoding="utf-8"))]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("path", "name", "lines", "refused"),
    [
        ("core/gog/a.py", "train", 61, True),
        ("recipes/gog_recipes/sft.py", "train", 61, False),
        ("recipes/gog_recipes/sft.py", "train", 121, True),
        ("recipes/gog_recipes/sft.py", "setup", 61, True),
        ("recipes/gog_recipes/models/a.py", "train", 61, True),
        ("tests/core/test_a.py", "test_a", 60, False),
    ],
)
def test_a_function_is_measured_from_its_signature_to_its_last_line(path: str, name: str, lines: int, refused: bool):
    text = f"def {name}():\n" + "    pass\n" * (lines - 1)
    assert bool(too_long(path, text)) == refused


def test_a_file_is_measured_whole() -> None:
    assert not too_long("core/gog/a.py", "a = 1\n" * FILE)
    assert too_long("core/gog/a.py", "a = 1\n" * (FILE + 1)) == ["core/gog/a.py: 401 lines, 400 at most"]
