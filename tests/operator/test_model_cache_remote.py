"""The fetch of a run's sources on a real API server: one job, its result in the status, and a remedy where it fails."""

from __future__ import annotations

import json

import pytest
from support.fault_harness import Harness, condition
from support.remote_harness import Workplace

from gog_operator.cluster import paths
from gog_operator.cluster.kube import items

pytestmark = pytest.mark.apiserver
HF = "hf://org/model"
FETCHED = {"base": {"folder": "model-1", "resolved": f"{HF}@abc", "bytes": 15_200_000_000}}
CACHED = {"model": {"base": HF}, "modelCache": {"claimName": "models"}}


@pytest.fixture
def place(api_server):
    return Workplace(api_server)


def ends(place, **end):
    place.scenario.store_job = lambda name: end if name.endswith("-fetch") else {}


def test_the_first_stage_mounts_what_one_job_has_fetched(place):
    ends(place, exitCode=0, message=json.dumps(FETCHED))
    place.apply(checkTools=False, **CACHED)
    place.until(place.stages)
    run = place.condition("GoGRun", "world", "ModelFetched")
    assert (run["status"], run["message"]) == ("True", f"{HF}@abc (15.2 GB)")
    (stage,) = place.stages()
    assert stage["spec"]["sources"] == {HF: "pvc://models/model-1"}
    jobs = [each["metadata"]["name"] for each in items(place.api, paths.JOBS.path(place.namespace))]
    assert [name for name in jobs if name.endswith("-fetch")] == ["world-fetch"]


def test_a_gated_model_ends_the_run_before_a_stage_exists(place):
    ends(place, exitCode=2, message="gog: hf://org/model: access to this model must be granted by its owner")
    place.apply(checkTools=False, **CACHED)
    place.until(lambda: place.condition("GoGRun", "world", "Failed"))
    failed = place.condition("GoGRun", "world", "Failed")
    assert failed["reason"] == "FetchFailed" and "must be granted by its owner" in failed["message"]
    assert not place.stages()


def attempts(harness):
    """Failed attempts to prepare what the run reads."""
    return harness.run.get("status", {}).get("preparation", {}).get("failures", 0)


def broken(harness, reason):
    """The message of the run's Ready condition, if it has that reason."""
    found = [each for each in harness.conditions() if each.startswith(f"world Ready False {reason}")]
    return found[0] if found else ""


def test_an_outage_of_the_hub_delays_the_run_and_does_not_end_it(bare_api_server):
    harness = Harness(str(bare_api_server.kubeconfig), "hub-outage", **{**CACHED, "checkTools": False})
    end = {"exitCode": 1, "message": "gog: hf://org/model: the Hub does not answer"}
    harness.scenario.store_job = lambda name: end if name.endswith("-fetch") else {}
    harness.until(lambda: attempts(harness) == 2)
    assert "the Hub does not answer" in broken(harness, "FetchFailed") and not harness.finished
    harness.scenario.store_job = lambda name: {}
    harness.until(lambda: harness.get("CurateStage", "world-curate"))
    assert attempts(harness) == 0


def test_an_outage_of_the_store_delays_a_dataset_and_one_that_is_refused_ends_the_run(bare_api_server):
    harness = Harness(str(bare_api_server.kubeconfig), "store-outage", checkTools=False)
    end = {"exitCode": 1, "message": "gog: s3://bucket: does not answer"}
    harness.scenario.store_job = lambda name: end if name.endswith("-data") else {}
    harness.until(lambda: attempts(harness) == 2)
    assert "does not answer" in broken(harness, "DataFailed") and not harness.finished
    end |= {"exitCode": 2, "message": "gog: holds another dataset"}
    harness.until(lambda: harness.finished)
    assert "holds another dataset" in condition(harness.run, "Failed", "True")["message"]
