"""Which candidates the viewer marks as chosen, by the functions of trajectory.js in Node.

Numbers continue in the next grounding, so a later gaze may select a candidate of any grounding before it. Only those of the
tiny model begin at 1 in each.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from importlib import resources
from typing import Any

import pytest

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="the viewer's marks were not tried: there is no Node")


def ground(*numbers: int) -> dict[str, Any]:
    return {"action": "ground", "seen": {"candidates": [{"n": number} for number in numbers]}}


def gaze(*numbers: int) -> dict[str, Any]:
    return {"action": "gaze", "selected": numbers, "seen": {"results": []}}


ANSWER = {"action": "answer"}
CONTINUED = (ground(1, 2), gaze(2), ground(3, 4), gaze(1), gaze(3, 2), ANSWER)
BEGUN_ANEW = (ground(1, 2), gaze(2), ground(1, 2), gaze(1), ANSWER)


def evaluated(expression: str, turns: tuple[dict[str, Any], ...]) -> Any:
    """What an expression over `turns` gives beside the functions of trajectory.js."""
    assert NODE is not None
    source = (resources.files("gog_console.report") / "trajectory.js").read_text(encoding="utf-8")
    functions = re.findall(r"^(?:const \w+ = \(turn\) =>[^\n]*;|function \w+\(turns.*?^})$", source, re.M | re.S)
    program = "\n".join(
        [*functions, f"const turns = {json.dumps(turns)};", f"console.log(JSON.stringify({expression}));"]
    )
    done = subprocess.run([NODE, "-e", program], capture_output=True, text=True, timeout=60, check=True)
    return json.loads(done.stdout)


def test_a_candidate_that_a_later_gaze_selects_is_marked_in_its_own_grounding():
    assert evaluated("[chosenOf(turns, 0), chosenOf(turns, 2)]", CONTINUED) == [[2, 1, 2], [3]]


def test_of_numbers_that_begin_anew_the_newest_candidate_is_marked():
    assert evaluated("[chosenOf(turns, 0), chosenOf(turns, 2)]", BEGUN_ANEW) == [[2], [1]]


def test_a_gaze_is_shown_with_the_groundings_that_it_selects_from_and_other_turns_with_the_newest():
    places = [[0], [0], [2], [0], [0, 2], [2]]
    assert evaluated("turns.map((_, number) => groundsOf(turns, number))", CONTINUED) == places


def test_an_unseen_search_and_an_unknown_number_mark_nothing():
    unseen = {"action": "ground", "selected": [1], "seen": {"results": []}}
    assert evaluated("turns.map((_, number) => groundsOf(turns, number))", (unseen, ANSWER)) == [[], []]
    assert evaluated("chosenOf(turns, 0)", (ground(1), gaze(7))) == []
