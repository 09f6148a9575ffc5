"""Presets of an administrator: copied into what a run creates, below what its manifest sets, and never changed there."""

from __future__ import annotations

from typing import Any

import pytest
from support.operator_builders import manifest
from support.remote_harness import STORE, Workplace

from gog_operator.api import objects, presets
from gog_operator.build import children
from gog_operator.cluster import paths
from gog_operator.cluster.kube import MERGE

EFA = {
    "pods": [{"targets": ["stages"], "labels": {"net": "efa"}}],
    "workers": {"gpus": 8, "gpuResource": "nvidia.com/gpu", "memory": "512Gi"},
    "scheduling": {"queue": "h100", "nodeSelector": {"pool": "h100", "zone": "a"}},
}


def preset(**spec: Any) -> presets.GoGRuntime:
    body = {"apiVersion": "gog.dev/v1alpha1", "kind": "GoGRuntime", "metadata": {"name": "h100-efa"}, "spec": spec}
    return presets.GoGRuntime.model_validate(body)


def stage(**spec: Any) -> Any:
    return objects.KINDS["GRPOStage"].model_validate(manifest("GRPOStage", store=STORE, **spec))


def test_a_stage_without_settings_of_its_own_has_those_of_the_preset():
    made: Any = presets.applied(stage(), preset(**EFA))
    assert (made.spec.workers.gpus, made.spec.workers.memory, made.spec.scheduling.queue) == (8, "512Gi", "h100")
    assert [each.labels for each in made.spec.pods] == [{"net": "efa"}]


def test_what_a_manifest_sets_takes_precedence_field_by_field():
    own = {"workers": {"gpus": 2}, "scheduling": {"nodeSelector": {"zone": "b"}}, "pods": [{"labels": {"net": "tcp"}}]}
    made: Any = presets.applied(stage(**own), preset(**EFA))
    assert (made.spec.workers.gpus, made.spec.workers.memory) == (2, "512Gi")
    assert made.spec.scheduling.node_selector == {"pool": "h100", "zone": "b"}
    assert [each.labels["net"] for each in made.spec.pods] == ["efa", "tcp"], (
        "patches of the manifest are the later ones"
    )


def test_a_server_takes_patches_and_scheduling_and_no_workers():
    body = {
        "apiVersion": "gog.dev/v1alpha1",
        "kind": "ToolServer",
        "metadata": {"name": "j"},
        "spec": {"role": "judge"},
    }
    made: Any = presets.applied(objects.ToolServer.model_validate(body), preset(**EFA))
    assert made.spec.scheduling.queue == "h100" and not hasattr(made.spec, "workers")


def test_an_empty_preset_changes_nothing():
    assert presets.applied(stage(), preset()) == stage()


def test_a_resumed_stage_keeps_the_scheduling_of_its_preset_and_follows_its_run():
    run = objects.GoGRun.model_validate(
        manifest(store=STORE, runtime="h100-efa", scheduling={"nodeSelector": {"zone": "c"}})
    )
    made: Any = presets.applied(stage(scheduling={"nodeSelector": {"zone": "b"}}), preset(**EFA))
    assert children.scheduling_patch(made, run) == {"nodeSelector": {"zone": "c"}}


@pytest.fixture
def place(api_server):
    return Workplace(api_server)


@pytest.fixture
def named(place):
    """A cluster-scoped preset's name that no other test has; the preset is deleted afterwards."""
    name = f"h100-{place.namespace}"
    yield name
    place.server.kubectl("delete", "gogruntime", name, "--ignore-not-found")


def write(place: Workplace, name: str, **spec: Any) -> None:
    body = {"apiVersion": "gog.dev/v1alpha1", "kind": "GoGRuntime", "metadata": {"name": name}, "spec": spec}
    place.api.call("POST", paths.RUNTIMES.path(None), body=body)


def ready(place: Workplace) -> dict[str, Any]:
    return place.conditions("GoGRun", "world").get("Ready", {})


@pytest.mark.apiserver
def test_a_run_whose_preset_is_missing_says_so_and_starts_when_it_appears(place, named):
    place.apply(runtime=named)
    place.until(lambda: ready(place).get("reason") == "RuntimeNotFound")
    assert ready(place)["status"] == "False"
    assert ready(place)["message"].startswith(f"spec.runtime: there is no GoGRuntime {named} (ask an administrator")
    write(place, named, **EFA)
    place.until(lambda: place.condition("GoGRun", "world", "Complete"))
    assert all(each["spec"]["scheduling"]["queue"] == "h100" for each in place.stages())


@pytest.mark.apiserver
def test_an_edit_of_a_preset_changes_no_stage_that_exists_and_a_deletion_stops_none(place, named):
    write(place, named, **EFA)
    place.scenario.outcome = lambda name: ""
    place.apply(runtime=named)
    place.until(lambda: place.stages() and place.phase("world-curate-a1") == "Running")
    before = place.stages()[0]["spec"]
    place.api.call("PATCH", paths.RUNTIMES.path(None, named), body={"spec": {"workers": {"gpus": 1}}}, content=MERGE)
    place.round()
    assert place.stages()[0]["spec"] == before and before["workers"]["gpus"] == 8
    reason = ready(place)["reason"]
    place.server.kubectl("delete", "gogruntime", named)
    place.round()
    assert ready(place)["reason"] == reason != "RuntimeNotFound", "what exists needs no preset"
