"""The figures of `kubectl get`."""

from __future__ import annotations

from support.operator_builders import NOW, READY_DATA, STORE, make_run, make_stage

from gog_operator.api.objects import Progress, Summary
from gog_operator.plan import run as run_rule
from gog_operator.plan import stage as stage_rule
from gog_operator.plan import summary
from gog_operator.plan.actions import JobView, StoreView


def progress(**metrics):
    return Progress(step=41, total=120, metrics=metrics)


def test_a_stage_shows_steps_reward_and_failures_as_text():
    stage = make_stage("GRPOStage", status={"attempt": 1, "observed_attempt": 1})
    facts = stage_rule.Facts(
        JobView("running"), StoreView("unknown"), progress(reward=0.4672, tool_failure_ratio=0.0181), READY_DATA
    )
    figures = stage_rule.plan(stage, facts, NOW).status.summary
    assert figures == Summary(progress="41/120", reward="0.47", tool_failures="1.8%")


def test_a_figure_that_is_no_longer_reported_keeps_its_last_value():
    assert summary.of_stage(Progress(), Summary(progress="3/3", reward="0.5")) == Summary(progress="3/3", reward="0.5")


def test_a_run_shows_its_current_stage_and_keeps_the_reward_after_training():
    run = make_run()
    run = run.model_copy(update={"status": run.status.model_copy(update={"summary": Summary(reward="0.91")})})
    first = run_rule.plan(run, run_rule.Facts({}, {}, READY_DATA, STORE), NOW).status.summary
    assert (first.stage, first.progress, first.reward) == ("curate", "", "0.91")
