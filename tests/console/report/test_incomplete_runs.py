"""Reports of runs that are not whole: running, failed, damaged, or without stages."""

import shutil

import pytest
import support.report_builders as builders
from support.report_pages import data_of, rot, write

from gog import store


@pytest.mark.parametrize("count", range(len(builders.ALL)))
def test_missing_stages_are_shown_as_such(tmp_path, count):
    stages = builders.ALL[:count]
    html, summary = write(builders.make_run(tmp_path, stages=stages, steps=6, questions=6))
    states = {row["name"]: row["condition"] for row in summary["stages"]}
    assert [states[stage] for stage in builders.ALL[count:]] == ["Not started"] * (5 - count)
    assert "Evaluate has not started." in html
    assert set(summary["levels"]) == {"easy", "1", "2"} and summary["evaluation"] == []


def test_a_failed_run_says_where_and_why(tmp_path):
    html, summary = write(builders.make_run(tmp_path, stages=builders.ALL[:4], failed="grpo", steps=6))
    assert summary["condition"] == "Failed"
    assert "The run failed in stage grpo" in html
    assert "the judge decided only 31 of 80 answers" in html
    assert len(summary["grpo"]) == 6


def test_a_running_run_shows_its_time_until_now(tmp_path):
    html, summary = write(builders.make_run(tmp_path, stages=("curate", "sft"), running="sft"))
    row = next(row for row in summary["stages"] if row["name"] == "sft")
    assert (row["condition"], row["seconds"]) == ("Running", 540 - 74)
    assert "The run is in stage sft" in html


def test_an_empty_folder_still_gives_a_page(tmp_path):
    html, summary = write(tmp_path)
    assert "This run has no objects" in html
    assert summary["stages"] == [] and summary["levels"] == {"easy": 0, "1": 0, "2": 0}


def test_a_stage_that_was_started_alone_has_a_report(tmp_path):
    folder = builders.make_run(tmp_path, stages=("curate", "sft"))
    for path in (folder / "objects").iterdir():
        if "sftstage" not in path.name:
            path.unlink()
    _, summary = write(folder)
    assert (summary["run"], summary["condition"]) == ("world-sft", "Complete")
    assert [row["name"] for row in summary["stages"]] == ["curate", "sft"]


def test_a_store_without_objects_has_a_report(tmp_path):
    folder = builders.make_run(tmp_path, steps=6, questions=6)
    shutil.rmtree(folder / "objects")
    html, summary = write(folder)
    assert [row["condition"] for row in summary["stages"]] == ["Stored"] * 5
    assert len(summary["grpo"]) == 6 and "Benchmark test" in html


@pytest.mark.parametrize(
    ("stage", "name", "lost"),
    [("evaluate", "results.json", "evaluation"), ("stratify", "levels.jsonl", None), ("sft", "metrics.jsonl", "sft")],
)
def test_a_corrupt_blob_is_reported_and_hides_nothing_else(tmp_path, stage, name, lost):
    folder = builders.make_run(tmp_path, steps=6, questions=6)
    rot(folder, stage, name)
    html, summary = write(folder)
    assert "1 piece could not be read" in html and f"{name} of {stage}/" in html
    assert [problem["where"].split(" of ")[0] for problem in summary["problems"]] == [name]
    for part in ("sft", "grpo", "evaluation"):
        assert bool(summary[part]) == (part != lost)
    assert sum(summary["levels"].values()) == 400  # the manifest itself tells the counts


def test_a_corrupt_newest_checkpoint_falls_back_to_the_previous_one(tmp_path):
    folder = builders.make_run(tmp_path, steps=10, questions=6)
    rot(folder, "grpo", "metrics.jsonl")
    html, summary = write(folder)
    assert len(summary["grpo"]) == 8
    assert "metrics.jsonl of grpo/10" in html


def test_a_corrupt_archive_hides_only_its_trajectories(tmp_path):
    folder = builders.make_run(tmp_path, steps=10, questions=20)
    rot(folder, "grpo", "trajectories.zip", step=4)
    html, summary = write(folder)
    shown = data_of(html)["trajectories"]
    assert {each["step"] for each in shown if each["key"] == "grpo"} == {2, 6, 8, 10}
    assert [problem["where"] for problem in summary["problems"]] == ["trajectories of grpo/4"]


def test_an_incomplete_last_line_is_skipped(tmp_path):
    folder = builders.make_run(tmp_path, stages=("curate",))
    log = tmp_path / "metrics.jsonl"
    log.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    store.Store(folder / "store").publish("sft", 2, {"metrics.jsonl": log})
    _, summary = write(folder)
    assert summary["sft"] == [{"step": 1, "loss": 2.0}] and summary["problems"] == []


def test_a_damaged_manifest_and_a_damaged_object_are_named(tmp_path):
    folder = builders.make_run(tmp_path, steps=6, questions=6)
    next((folder / "store" / "manifests" / "evaluate").iterdir()).write_text('{"version": 1, "sta')
    (folder / "objects" / "broken.yaml").write_text("kind: [GoGRun")
    html, summary = write(folder)
    assert {problem["where"] for problem in summary["problems"]} >= {"objects/broken.yaml", "evaluate/1"}
    assert summary["evaluation"] == [] and "could not be read" in html


# ---- strangers
