"""What a command that resumes a run changes in its folder."""

from __future__ import annotations

import pytest
from support.operator_builders import NOW, holding, later, make_run

from gog_console.commands import run
from gog_operator.api.objects import GoGRun
from gog_operator.api.records import ToolCheck
from gog_operator.cluster.local import LocalCluster

LONG_DOWN = ToolCheck(number=12, waited_seconds=2_390, retry_time=later(300))


@pytest.mark.parametrize(("ended", "kept"), [((), ToolCheck()), (holding("Failed"), LONG_DOWN)])
def test_a_killed_run_that_is_started_again_has_all_its_patience_with_tools(tmp_path, ended, kept):
    cluster = LocalCluster(tmp_path / "world")
    cluster.create(make_run(checkTools=True))
    made = cluster.get(GoGRun, "world")
    status = {"start_time": NOW, "tool_check": LONG_DOWN, "conditions": ended}
    cluster.patch_status(made, made.status.model_copy(update=status))
    found = run.open_cluster(tmp_path / "world").get(GoGRun, "world")
    assert (found.status.tool_check, found.status.start_time) == (kept, NOW)
