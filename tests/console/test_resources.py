"""Claims about the reading of a run folder's objects: everything that shows a run agrees on its state."""

import os
from datetime import timedelta

import pytest
import yaml
from support.operator_builders import NOW, make_run, make_stage

from gog_console import resources
from gog_console.report import gather
from gog_console.run_files import RunFolder
from gog_console.status import document, run_page
from gog_console.viewer import sources
from gog_operator.api import conditions
from gog_operator.api.meta import Reason
from gog_operator.cluster.files import ObjectFiles

STATES = {
    "Not started": (),
    "Training": (("Ready", False, Reason.TRAINING, ""),),
    "Running": (("Ready", True, Reason.READY, ""),),
    "JudgeDown": (("Ready", False, Reason.JUDGE_DOWN, "the judge does not answer"),),
    "Suspended": (("Ready", False, Reason.SUSPENDED, ""), ("Suspended", True, Reason.SUSPENDED, "by the user")),
    "Complete": (("Ready", True, Reason.READY, ""), ("Complete", True, Reason.COMPLETE, "")),
    "Failed": (("Ready", False, Reason.STAGE_FAILED, ""), ("Failed", True, Reason.STAGE_FAILED, "stage sft failed")),
}
"""Conditions by the state that is shown."""


def in_state(thing, name):
    listed = ()
    for each in STATES[name]:
        listed = conditions.put(listed, *each, now=NOW)
    started = None if name == "Not started" else NOW
    status = thing.status.model_copy(update={"conditions": listed, "start_time": started})
    return thing.model_copy(update={"status": status})


def folder_of(tmp_path, name):
    files = ObjectFiles(tmp_path / "world" / "objects")
    for thing in (make_run(), make_stage()):
        files.create(in_state(thing, name), now=NOW)
    return tmp_path / "world"


def edit(folder, change):
    """Changes the documents of a folder in place."""
    for path in (folder / "objects").glob("*.yaml"):
        body = yaml.safe_load(path.read_text())
        change(body)
        path.write_text(yaml.safe_dump(body))


@pytest.mark.parametrize("name", STATES)
def test_the_report_the_viewer_and_the_status_agree_on_a_state(tmp_path, name):
    folder = folder_of(tmp_path, name)
    report = gather.gather(folder, NOW)
    shown = document.of_run(run_page.read(RunFolder(folder), NOW), NOW)
    listing = sources.of_run(folder).list()
    assert (report.condition, report.message) == (shown["condition"], shown["message"])
    assert report.condition == name
    assert listing.state == ("Failed: stage sft failed" if name == "Failed" else name)
    stage = report.stage("sft")
    (row,) = [each for each in shown["stages"] if each["name"] == "sft"]
    assert (stage.condition, stage.message) == (row["condition"], row["message"])
    assert report.problems == () and listing.problems == ()


def test_a_run_of_a_newer_version_has_the_state_that_it_reports(tmp_path):
    folder = folder_of(tmp_path, "JudgeDown")

    def newer(body):
        body["spec"]["podTemplate"] = {"spec": {}}
        body["status"]["conditions"][0] |= {"reason": "WaitingForQuota", "message": "no GPU is free"}

    edit(folder, newer)
    report, listing = gather.gather(folder, NOW), sources.of_run(folder).list()
    assert (report.condition, report.message) == ("WaitingForQuota", "no GPU is free")
    assert listing.state == "WaitingForQuota"
    assert report.problems == () and listing.problems == ()


def test_a_damaged_field_is_a_problem_of_its_file_and_hides_nothing_else(tmp_path):
    folder = folder_of(tmp_path, "Complete")
    edit(folder, lambda body: body["status"].update(startTime="yesterday"))
    report, listing = gather.gather(folder, NOW), sources.of_run(folder).list()
    assert report.condition == listing.state == "Complete"
    assert {each.where for each in report.problems} == {
        "objects/gogrun.world.yaml",
        "objects/sftstage.world-stage.yaml",
    }
    assert all(each.what.startswith("status.startTime: is 'yesterday'") for each in report.problems)
    assert {where for where, _ in listing.problems} == {each.where for each in report.problems}


DAMAGES = {
    "torn": b"kind: [GoGRun",
    "not text": b"\xff\xfe\x00",
    "an impossible time": b"kind: GoGRun\nmetadata: {creationTimestamp: 2026-13-45}",
    "deep": b"[" * 5000,
    "empty": b"",
    "no object": b"a: 1",
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file_is_one_problem(tmp_path, name):
    (tmp_path / "gogrun.world.yaml").write_bytes(DAMAGES[name])
    things, (problem,) = resources.read(tmp_path)
    assert things == [] and problem.where == "objects/gogrun.world.yaml"


@pytest.mark.skipif(os.getuid() == 0, reason="root reads every file")
def test_an_unreadable_file_is_one_problem(tmp_path):
    (tmp_path / "gogrun.world.yaml").touch(mode=0)
    things, (problem,) = resources.read(tmp_path)
    assert things == [] and problem.what.startswith("not readable")


def test_objects_of_other_groups_are_skipped():
    assert resources.of_documents([{"kind": "Pod", "spec": 5}, {"kind": "ConfigMap"}, None, 5]) == ([], [])


def test_times_without_a_zone_are_utc(tmp_path):
    folder = folder_of(tmp_path, "Complete")
    moment = NOW.replace(tzinfo=None).isoformat()
    edit(folder, lambda body: body["status"].update(startTime=moment, completionTime=moment))
    report = gather.gather(folder, NOW + timedelta(hours=1))
    assert report.completed == NOW and report.stage("sft").started == NOW
