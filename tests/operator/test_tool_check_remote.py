"""The check of a run's tools on a real API server: its pod, and what its outcome does to the run."""

from __future__ import annotations

import json

import pytest
from support.remote_harness import Workplace

from gog_operator.cluster import paths
from gog_operator.cluster.kube import items

pytestmark = pytest.mark.apiserver
REMEDY = "endpoints.judge: it refuses the key (replace the key in GOG_API_KEY of the Secret judge-key)"
JUDGE = {"judge": {"url": "https://judge.internal", "secretName": "judge-key"}}


@pytest.fixture
def place(api_server):
    return Workplace(api_server)


def ends(place, **outcomes):
    """Ends the checks of these numbers so: `n1={"outcome": "failed"}`."""

    def end(name):
        found = outcomes.get(f"n{name.rpartition('-')[2]}") if "-tools-" in name else None
        return {"exitCode": 0, "message": json.dumps(found)} if found else {}

    place.scenario.store_job = end


def test_a_wrong_key_ends_the_run_before_a_job_with_gpus_exists(place):
    ends(place, n1={"outcome": "failed", "message": REMEDY})
    place.apply(checkTools=True, endpoints=JUDGE)
    place.until(lambda: place.condition("GoGRun", "world", "Failed"))
    checked = place.conditions("GoGRun", "world")["ToolsChecked"]
    assert (checked["status"], checked["reason"], checked["message"]) == ("False", "ToolsFailed", REMEDY)
    assert not place.stages() and not list(items(place.api, paths.VOLCANO_JOBS.path(place.namespace)))
    assert f"world failed: {REMEDY}" in [each["message"] for each in place.events()]


def test_a_tool_that_is_down_is_checked_by_a_second_pod_and_the_first_stage_follows(place):
    ends(place, n1={"outcome": "unavailable", "message": "endpoints.judge: it fails: HTTP 503", "seconds": 12.5})
    place.apply(checkTools=True, endpoints=JUDGE)
    place.until(place.stages)
    waited = place.find(paths.OURS["GoGRun"].path(place.namespace, "world"))["status"]["toolCheck"]["waitedSeconds"]
    assert waited == 14.5, "the first check and the delay after it"
    jobs = {each["metadata"]["name"]: each for each in items(place.api, paths.JOBS.path(place.namespace))}
    assert [name for name in jobs if "-tools-" in name] == ["world-tools-2"], "the newest, for its log"
    assert place.find(paths.CONFIG_MAPS.path(place.namespace, "world-tools-1")) is None
    assert place.condition("GoGRun", "world", "ToolsChecked")["reason"] == "ToolsAnswer"
    (container,) = jobs["world-tools-2"]["spec"]["template"]["spec"]["containers"]
    keys = {each["name"]: each["valueFrom"]["secretKeyRef"] for each in container["env"] if "valueFrom" in each}
    assert keys == {"JUDGE_GOG_API_KEY": {"name": "judge-key", "key": "GOG_API_KEY"}}
    configmap = place.find(paths.CONFIG_MAPS.path(place.namespace, "world-tools-2"))
    written = json.loads(configmap["data"]["config.yaml"])
    assert written["endpoints"]["judge"] == "https://judge.internal" and written["onCluster"] is True
    assert set(written["endpoints"]) == {"grounding", "imageSearch", "textSearch", "judge"}
