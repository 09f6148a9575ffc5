"""Objects that are being deleted. One that is deleted in the foreground stays until its children are gone."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import pytest
from support.operator_builders import make_stage, make_tool_server

from gog_operator import reconcile
from gog_operator.api.objects import Object

NOW = datetime(2026, 1, 5, tzinfo=UTC)
AGENT = {"version": "assistant/1", "store": {"uri": "s3://bucket/agent"}, "data": {"world": {}}}


@pytest.mark.parametrize(
    "thing",
    [
        make_stage(),
        make_tool_server(),
        make_tool_server("agent", **AGENT, agent={"model": {"base": "tiny"}, "endpoints": {"policy": {}}}),
    ],
    ids=["stage", "server", "agent"],
)
def test_an_object_that_is_being_deleted_gets_no_new_children(thing: Object) -> None:
    leaving = thing.model_copy(update={"metadata": thing.metadata.model_copy(update={"deletion_timestamp": NOW})})
    cluster = cast(Any, None)  # nothing is observed of it, so nothing can be done for it
    decision = reconcile.decide(cluster, leaving, NOW)
    assert decision.actions == () and decision.status == leaving.status and decision.requeue_after is None
