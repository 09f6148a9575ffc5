"""`gog run` calls the tools before its first stage, in front of servers that exist; the stages are toys."""

from __future__ import annotations

import pytest
from support import loopback
from support.loopback import PATHS, WORKING, responds


@pytest.fixture
def serve():
    """serve(handlers): the address of tools that work but for these."""
    with loopback.in_a_thread() as start:
        yield start


def run(harness, url, **spec):
    """Exit code and output of a run with these tools."""
    endpoints = {tool: {"url": url} for tool in PATHS}
    stages = {"skip": ["sft", "stratify", "grpo", "evaluate"]}
    return harness.gog("run", str(harness.write(stages=stages, **{"endpoints": endpoints, "checkTools": True, **spec})))


def condition(harness, type_):
    found = harness.object("gogrun.world")["status"]["conditions"]
    return next((each for each in found if each["type"] == type_), None)


def test_the_stages_follow_when_every_tool_answers(harness, serve):
    code, output = run(harness, serve())
    assert code == 0, output
    assert f"✓ world: {len(PATHS)} servers answer" in output
    assert harness.conditions("gogrun.world") == {"Complete": "Complete", "ToolsChecked": "ToolsAnswer"}


def test_a_wrong_key_ends_the_run_before_its_first_stage_and_a_resumed_run_checks_again(harness, serve):
    wrong = {"judge": [responds(b"no", 401), responds(b"no", 401), *WORKING["judge"]]}
    url = serve(wrong)
    code, output = run(harness, url)
    assert code == 2 and not harness.starts("curate")
    assert "put the key into the environment variable JUDGE_GOG_API_KEY" in output
    assert condition(harness, "ToolsChecked")["reason"] == "ToolsFailed"
    code, _ = harness.gog("resume", "world")
    assert code == 2, "it is refused a second time"
    code, output = harness.gog("resume", "world")
    assert code == 0 and len(harness.starts("curate")) == 1, output


def test_a_tool_that_is_down_is_called_again_and_the_wait_is_shown(harness, serve):
    down = {"textSearch": [responds(b"", 503), responds(b"", 503), *WORKING["textSearch"]]}
    code, output = run(harness, serve(down))
    assert code == 0, output
    assert "! world: endpoints.textSearch: it fails: HTTP 503" in output and "check 2 in 2 s" in output
    assert len(harness.starts("curate")) == 1


def test_the_check_can_be_turned_off(harness, serve):
    code, output = run(harness, serve({"judge": [responds(b"", 401)]}), checkTools=False)
    assert code == 0 and condition(harness, "ToolsChecked") is None, output
