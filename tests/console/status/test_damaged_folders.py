"""Run folders that are damaged, of a newer gog, or not of gog at all."""

from __future__ import annotations

import json

import pytest
import yaml
from support.operator_builders import NOW, holding, make_tool_server
from support.status_runs import all_lines, board_lines, grpo_at_work, keep, report, run_folder, words_of

from gog_console import cli
from gog_console.commands import status
from gog_console.status import overview
from gog_operator.api.meta import Reason
from gog_operator.cluster.lock import RunLock


def torn(folder):
    (folder / "objects" / "gogrun.world.yaml").write_text("{kind: GoGRun, metadata: [")


def of_another_api(folder):
    path = folder / "objects" / "gogrun.world.yaml"
    path.write_text(path.read_text().replace("gog.dev/v1alpha1", "gog.example/v1alpha1"))


def with_nothing_in_it(folder):
    (folder / "objects" / "gogrun.world.yaml").write_text("")


def without_objects(folder):
    for path in (folder / "objects").iterdir():
        path.unlink()


def without_their_folder(folder):
    without_objects(folder)
    (folder / "objects").rmdir()
    (folder / ".gog.lock").touch()


def empty(folder):
    without_objects(folder)
    (folder / "objects").rmdir()


DAMAGES = [torn, of_another_api, with_nothing_in_it, without_objects, without_their_folder, empty]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_listed_as_damaged_beside_the_others(runs, damage):
    run_folder(runs, "good")
    damage(run_folder(runs, "bad"))
    lines = {words_of(line)[0]: line for line in all_lines(runs)[1:]}
    assert set(lines) == {"good", "bad"}
    assert words_of(lines["bad"])[1] == "Damaged"
    assert "is not an object of gog" in lines["bad"] or "no objects" in lines["bad"]
    assert cli.main(["status"]) == 0 and cli.main(["status", "--json"]) == 0


def by_a_newer_gog(folder):
    """Adds to each object and to the progress reports what a newer gog may write."""
    for path in (folder / "objects").glob("*.yaml"):
        body = yaml.safe_load(path.read_text())
        body["metadata"]["shard"] = 3
        body["spec"]["nextFeature"] = {"mode": "fast"}
        newer = {
            "type": "Degraded",
            "status": "True",
            "reason": "SlowTool",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
        conditions = [newer, *body.get("status", {}).get("conditions", [])]
        for each in conditions[1:]:
            each |= {"reason": "Distilling", "severity": "Info"}
        body["status"] = {**body.get("status", {}), "conditions": conditions, "phaseOfMoon": "full"}
        path.write_text(yaml.safe_dump(body))
    for path in (folder / "work").rglob("progress.json"):
        path.write_text(
            json.dumps({**json.loads(path.read_text()), "worldSize": 8, "checkpoint": {"ref": "sft/1", "x": 1}})
        )


def test_a_run_of_a_newer_gog_is_shown_with_its_own_states(training, capsys):
    report(training, "grpo", 7, 90)
    by_a_newer_gog(training)
    with RunLock(training):
        (line,) = [words_of(each) for each in all_lines(training.parent)[1:]]
        page = board_lines(training)
    assert line[1] == "Distilling"
    assert any("Distilling" in each for each in page[1:])
    assert not any(each.startswith("!") for each in page)
    for command in (["status"], ["status", "--json"], ["status", training.name], ["status", training.name, "--json"]):
        assert cli.main(command) == 0
    assert "Degraded" not in capsys.readouterr().err


def test_a_run_of_a_newer_api_is_shown_and_said_to_be_of_a_newer_gog(training, capsys):
    by_a_newer_gog(training)
    for path in (training / "objects").glob("*.yaml"):
        path.write_text(path.read_text().replace("gog.dev/v1alpha1", "gog.dev/v9"))
    with RunLock(training):
        (line,) = [words_of(each) for each in all_lines(training.parent)[1:]]
        page = board_lines(training)
    assert line[1] == "Distilling", "not Damaged"
    sentence = "! GoGRun world apiVersion gog.dev/v9: written by a newer gog; this one shows what it knows of it"
    assert page[1] == sentence and any("Distilling" in each for each in page)
    assert cli.main(["status", training.name, "--json"]) == 0
    assert cli.main(["cancel", training.name]) == 2, "what changes a run reads strictly"


def test_progress_of_a_newer_gog_is_read_without_its_unknown_fields(runs):
    folder = run_folder(runs)
    report(folder, "sft", 7, 90, loss=0.5)
    by_a_newer_gog(folder)
    found = status.RunFolder(folder).progress("sft")
    assert (found.step, found.total, found.metrics, found.checkpoint.ref) == (7, 90, {"loss": 0.5}, "sft/1")


def test_a_value_that_this_version_cannot_read_is_named_and_hides_nothing_else(training):
    path = training / "objects" / "sftstage.world-stage.yaml"
    body = yaml.safe_load(path.read_text())
    body["spec"]["epochs"] = "as many as it takes"
    path.write_text(yaml.safe_dump(body))
    lines = board_lines(training)
    assert lines[1].startswith("! SFTStage world-stage spec.epochs: is 'as many as it takes'")
    assert any(words_of(line)[1:2] == ["sft"] for line in lines)


@pytest.mark.parametrize("damage", [torn, empty])
def test_the_status_of_a_damaged_run_is_refused_in_one_sentence(runs, damage, capsys):
    damage(run_folder(runs))
    assert cli.main(["status", "world"]) == 2
    assert capsys.readouterr().err.startswith("gog: runs")


def test_times_without_a_zone_are_taken_as_utc(runs):
    folder = run_folder(runs, "world", grpo_at_work())
    for path in (folder / "objects").iterdir():
        path.write_text(path.read_text().replace("+00:00", "").replace("Z'", "'"))
    (folder / "events.jsonl").write_text('{"time": "2026-03-14T09:26:00", "type": "Normal", "message": "by hand"}\n')
    assert "53s  ·  by hand" in "\n".join(board_lines(folder))
    assert words_of(all_lines(runs)[1])[0] == "world"


def test_a_server_that_was_started_alone_is_listed_as_a_run(runs):
    keep(runs / "judge", make_tool_server("judge", status={"conditions": holding("Ready", Reason.READY)}))
    assert words_of(all_lines(runs)[1])[:2] == ["judge", "Interrupted"]
    with RunLock(runs / "judge"):
        assert words_of(all_lines(runs)[1])[:2] == ["judge", "Ready"]
        assert words_of(board_lines(runs / "judge")[-1]) == ["judge", "True", "0"]


def test_a_folder_of_other_files_is_not_a_run(runs):
    (runs / "notes").mkdir()
    (runs / "notes" / "todo.txt").touch()
    (runs / ".cache").mkdir()
    assert overview.Overview(runs).read(NOW) == []
