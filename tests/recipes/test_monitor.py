"""A stage's metrics: where they are served, how the process ends, counts of other ranks."""

from __future__ import annotations

import json
import os
import threading
import time
import urllib.request

import pytest

from gog import metrics, spec
from gog.metrics import serving
from gog.trajectory import Segment, Trajectory
from gog_recipes.rollout.rollout_stats import sampled, sampled_tokens
from gog_recipes.runtime import monitor
from gog_recipes.runtime.ranks import SINGLE, Ranks
from gog_recipes.runtime.stage import Stage


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """make(**environment): a stage that serves at the port that the environment names."""
    made = []

    def make(ranks=SINGLE, **environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        body = {"model": {"base": "tiny"}, "data": {"path": str(tmp_path)}, "workdir": str(tmp_path / "work")}
        store = {"uri": f"file://{tmp_path}/store"}
        made.append(Stage(spec.GRPOConfig.model_validate(body | {"store": store, "steps": 9}), ranks))
        return made[-1]

    yield make
    for each in made:
        if each.monitor is not None:
            each.monitor.shutdown()
            each.monitor.server_close()


def scrape(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return answer.read().decode()


def value(name, **labels):
    return metrics.REGISTRY.get_sample_value(name, labels)


LOCAL = {serving.PORT: "0", serving.HOST: "127.0.0.1"}


def test_without_a_port_nothing_is_served(stage):
    assert stage().monitor is None


def test_a_stage_on_one_machine_writes_its_port_into_the_work_folder(stage):
    one = stage(**LOCAL)
    written = json.loads((one.workdir / serving.PORT_FILE).read_text())
    assert written == {"port": one.monitor.server_port, "pid": os.getpid()}
    assert 'gog_train_step{stage="grpo"} 0.0' in scrape(written["port"])


def test_only_rank_0_serves(stage):
    assert stage(Ranks(1, 2), **LOCAL).monitor is None


def test_a_stage_that_was_scraped_ends_after_one_more_scrape(stage):
    one = stage(**LOCAL, **{serving.LINGER: "60"})
    scrape(one.monitor.server_port)
    ending = threading.Thread(target=one.end, daemon=True)
    ending.start()
    for _ in range(1000):
        if ending.is_alive():
            scrape(one.monitor.server_port)
    ending.join(10)
    assert not ending.is_alive()


def test_a_stage_that_was_never_scraped_ends_at_once(stage):
    stage(**LOCAL, **{serving.LINGER: "3600"}).end()


def test_progress_and_the_newest_checkpoint_are_in_the_metrics(stage):
    one, begun = stage(), time.time()
    one.report(3, 9)
    assert (value("gog_train_step", stage="grpo"), value("gog_train_steps_planned", stage="grpo")) == (3, 9)
    advanced = value("gog_train_last_step_timestamp_seconds", stage="grpo")
    assert advanced >= begun
    one.report(3, 9)  # the same step again is not progress
    assert value("gog_train_last_step_timestamp_seconds", stage="grpo") == advanced
    weights = one.workdir / "weights"
    weights.write_text("1")
    before = value("gog_store_bytes_total", operation="publish")
    one.publish(3, {"weights": weights}, meta={}, parents=[])
    assert value("gog_checkpoint_timestamp_seconds", stage="grpo") >= int(begun)
    assert value("gog_store_bytes_total", operation="publish") == before + 1
    assert value("gog_store_operations_total", operation="commit", outcome="ok") >= 1


def test_counts_of_other_ranks_are_on_the_page_of_rank_0(monkeypatch):
    class Two(Ranks):
        def gather(self, item):
            return [item, item]

    monkeypatch.setattr(monitor.page, "others", ())
    metrics.record_trajectory("gathered", "counted")
    monitor.gather_counts(SINGLE)
    line = 'gog_rollout_trajectories_total{stage="gathered",status="counted"}'
    assert f"{line} 1.0" in serving.text(monitor.page)[1].decode()
    monitor.gather_counts(Two(0, 2))
    assert f"{line} 2.0" in serving.text(monitor.page)[1].decode()


def test_entropy_is_the_mean_negative_log_prob_and_staleness_the_age_of_the_oldest_weights():
    def segment(source, version, *logprobs):
        return Segment(source=source, version=version, tokens=(1,) * len(logprobs), logprobs=logprobs)

    played = [
        Trajectory.model_construct(segments=(segment("prompt", 0), segment("model", 4, -1.0, -2.0))),
        Trajectory.model_construct(segments=(segment("model", 2, -3.0), segment("observation", 0))),
    ]
    assert sampled([sampled_tokens(item) for item in played], 5) == {
        "entropy": 2.0,
        "staleness": 3,
        "staleness_mean": pytest.approx((1 + 1 + 3) / 3),
    }
