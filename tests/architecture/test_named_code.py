"""Pages name functions and tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINKED = re.compile(r"\[[^\]]+\]\(\.\./([^)]+\.py)\):\s((?:`[\w.]+`(?:,\s)?)+)")
"""A link to a module, and the names that follow it: `[agent.py](../core/gog/agent.py): `Episode._turn``."""
DEFINED = r"(?:^|\n)\s*(?:async def|def|class) {name}\b|(?:^|\n){name}\b[^\n]*="
NAMES = [
    (match[1], name)
    for match in LINKED.finditer((ROOT / "docs/architecture.md").read_text())
    for name in re.findall(r"`([\w.]+)`", match[2])
]


def test_the_walks_through_the_architecture_are_read() -> None:
    assert len(NAMES) > 25


@pytest.mark.parametrize(("file", "name"), NAMES, ids=[name for _, name in NAMES])
def test_what_the_architecture_page_names_is_in_the_file_that_it_names(file: str, name: str) -> None:
    text = (ROOT / file).read_text()
    assert all(re.search(DEFINED.format(name=re.escape(part)), text) for part in name.split("."))


def rows(page: str) -> list[tuple[str, str]]:
    """First and last cell of each row of a page's tables, without their heads."""
    lines = [line for line in (ROOT / "docs" / page).read_text().splitlines() if line.startswith("| ")]
    cells = [line.strip("| ").split(" | ") for line in lines]
    return [(each[0], each[-1]) for each in cells if each[0] != "tried"]


def test_every_attack_of_the_security_page_has_a_test_by_name() -> None:
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    found = rows("security.md")
    assert len(found) > 25
    for tried, cell in found:
        named = re.findall(r"`(test_\w+)(…?)`", cell)
        assert named, tried
        for name, rest in named:
            assert re.search(rf"def {name}{'' if rest else '[(]'}", tests), (tried, name)
