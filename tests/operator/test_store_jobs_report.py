"""`gog move report`: a run's report in its store."""

from __future__ import annotations

import json

import pytest
import yaml
from support import report_builders, report_objects
from support.collector import Collector
from support.store_job_builders import move, objects_in, result_lines, uri_of

from gog import store as stores
from gog_console import report
from gog_console import store_report as writing
from gog_operator.store_jobs import config


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    return report_builders.make_run(tmp_path_factory.mktemp("runs"))


def test_a_report_in_a_store_is_the_report_of_the_run_folder(finished_run):
    report.write(finished_run, now=report_objects.NOW)
    own = stores.open_store((finished_run / "store").as_uri())
    asked = {"store": {"uri": "file:///s"}, "objects": objects_in(finished_run), "events": list(report_builders.EVENTS)}
    through_yaml = yaml.safe_load(yaml.safe_dump(asked))
    writing.write(config.Report.model_validate(through_yaml), own, report_objects.NOW)
    for name in ("index.html", "summary.json"):
        assert own.get_object(f"report/{name}") == (finished_run / "report" / name).read_bytes()


def test_the_store_job_that_writes_the_report_sends_the_run_s_span(tmp_path, finished_run):
    with Collector() as collector:
        found = objects_in(finished_run)
        (run,) = [each for each in found if each["kind"] == "GoGRun"]
        run["spec"]["traces"] = {"endpoint": collector.url}
        asked = {"store": {"uri": f"file://{finished_run}/store"}, "objects": found}
        assert move(tmp_path, "report", **asked) == 0
        (span,) = collector.spans
    assert (span.name, span["gog.run"], span["gog.outcome"]) == ("run", run["metadata"]["name"], "Complete")


def test_a_report_replaces_an_older_one_and_its_address_is_the_result(tmp_path, finished_run, capsys):
    asked = {"store": {"uri": (finished_run / "store").as_uri()}, "objects": objects_in(finished_run)}
    for _ in range(2):
        assert move(tmp_path, "report", **asked) == 0
    assert result_lines(capsys)[-1]["report"].endswith("report/index.html")
    assert "data:image/" in (finished_run / "store" / "report" / "index.html").read_text()


def test_a_report_of_a_run_with_an_empty_store_is_written(tmp_path, store):
    run = {"kind": "GoGRun", "metadata": {"name": "world"}, "spec": {}}
    assert move(tmp_path, "report", store=uri_of(store), objects=[run]) == 0
    assert json.loads(store.get_object("report/summary.json"))["run"] == "world"
