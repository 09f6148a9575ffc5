"""Every extension point is used by an addition that a contributor can copy from docs/architecture.md."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import extension_points

EXAMPLES = extension_points.examples(extension_points.DOCUMENT.read_text(encoding="utf-8"))
TITLES = [example.title for example in EXAMPLES]


@pytest.fixture
def checkout(tmp_path):
    extension_points.copy_checkout(tmp_path)
    return tmp_path


def test_every_extension_point_has_an_example():
    assert list(extension_points.LIMITS) == TITLES


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy with all examples, and what is derived from them."""
    folder = tmp_path_factory.mktemp("extended")
    extension_points.copy_checkout(folder)
    for example in EXAMPLES:
        extension_points.apply(example, folder)
    extension_points.generate(folder)
    return folder


@pytest.mark.parametrize("example", EXAMPLES, ids=TITLES)
def test_an_addition_touches_no_more_files_than_promised(example, checkout):
    extension_points.apply(example, checkout)
    written, _ = extension_points.touched(checkout)
    assert len(written) <= extension_points.LIMITS[example.title], written
    assert example.tests, "an example shows its test"


def test_all_additions_work_together(extended):
    done = extension_points.run_tests(extended, *(test for example in EXAMPLES for test in example.tests))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("example", [each for each in EXAMPLES if each.neighbours], ids=lambda each: each.title)
def test_the_neighbours_of_an_addition_still_pass(example, extended):
    done = extension_points.run_tests(extended, *example.neighbours)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_change_without_exactly_one_place_is_refused():
    with pytest.raises(ValueError, match=r"a\.py: 2 places"):
        extension_points.patched("x\nx\n", " x\n+y\n", "a.py")
    with pytest.raises(ValueError, match=r"a\.py: 0 places"):
        extension_points.patched("x\n", "-z\n", "a.py")


def test_hunks_add_and_remove_lines_at_their_places():
    assert extension_points.patched("a\nb\nc\n", " a\n+x\n@@\n-c\n", "a.py") == "a\nx\nb\n"
