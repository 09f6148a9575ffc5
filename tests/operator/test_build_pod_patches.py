"""Patches of pods: merged into what gog builds, never in the place of what it needs, and only into the pods they name."""

from __future__ import annotations

from typing import Any

import pytest
import support.operator_golden as golden

from gog import spec as settings
from gog.errors import UserError
from gog_operator.api import manifest, sequence, yaml_reader
from gog_operator.build import children, inference, pod_patches, store_jobs, volcano
from gog_operator.build.platform import Platform

PROXY = {"env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}]}
EFA = golden.PATCH


def pods_of(stage: Any, platform: Platform = golden.PLATFORM) -> list[dict[str, Any]]:
    return [task["template"] for task in volcano.job(stage, platform)["spec"]["tasks"]]


def container(template: dict[str, Any]) -> dict[str, Any]:
    (found,) = template["spec"]["containers"]
    return found


def env(template: dict[str, Any]) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container(template)["env"]}


def store_job(patches: list[dict[str, Any]], command: Any = "check") -> dict[str, Any]:
    given = tuple(settings.PodPatch.model_validate(each) for each in patches)
    store = settings.StoreSpec.model_validate(golden.STORE)
    _, job = store_jobs.job("w", golden.run(), command, {}, store, golden.PLATFORM, patches=given)
    template: dict[str, Any] = job["spec"]["template"]
    return template


def server(*patches: dict[str, Any], **spec: Any) -> dict[str, Any]:
    made = inference.service(golden.tool_server("judge", pods=list(patches), **spec), golden.PLATFORM, None)
    predictor: dict[str, Any] = made["spec"]["predictor"]
    return {"metadata": {key: predictor.get(key, {}) for key in ("labels", "annotations")}, "spec": predictor}


def test_every_field_of_a_patch_is_in_every_pod_of_its_stage():
    for template in pods_of(golden.stage(pods=[EFA], workers={"replicas": 2})):
        pod, one = template["spec"], container(template)
        assert env(template)["FI_PROVIDER"] == "efa" and env(template)["OMP_NUM_THREADS"] == "8"
        assert {"configMapRef": {"name": "nccl"}} in one["envFrom"]
        assert {"models", "qwen", "tmp", "work"} <= {each["name"] for each in pod["volumes"]}
        assert {"/models", "/work/qwen", "/tmp"} <= {each["mountPath"] for each in one["volumeMounts"]}
        assert pod["imagePullSecrets"] == [{"name": "registry"}]
        assert template["metadata"]["labels"]["team"] == "vision"
        assert pod["affinity"] == EFA["affinity"]
        assert pod["topologySpreadConstraints"] == EFA["topologySpreadConstraints"]
        assert pod["tolerations"] == [{"key": "efa", "operator": "Exists"}] and pod["nodeSelector"] == {"pool": "h100"}
        assert (pod["runtimeClassName"], pod["priorityClassName"]) == ("nvidia", "urgent")
        assert pod["terminationGracePeriodSeconds"] == 120
        assert pod["resourceClaims"] == [{"name": "nic", "resourceClaimTemplateName": "roce"}]
        assert one["resources"]["claims"] == [{"name": "nic", "request": "one"}]
        assert pod["securityContext"] | {"runAsUser": 2000, "supplementalGroups": [7]} == pod["securityContext"]
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["seccompProfile"]
        assert one["resources"]["limits"] == {"vpc.amazonaws.com/efa": "4", "hugepages-2Mi": "1Gi"}
        assert one["resources"]["requests"] == one["resources"]["limits"] | {"cpu": "100m", "memory": "256Mi"}


def test_the_cases_above_cover_every_field_that_can_be_patched():
    assert set(EFA) == {info.alias for info in settings.PodPatch.model_fields.values()}


def test_a_job_has_the_priority_of_its_patched_pods():
    assert volcano.job(golden.stage(pods=[EFA]), golden.PLATFORM)["spec"]["priorityClassName"] == "urgent"


@pytest.mark.parametrize(
    ("targets", "stage", "judge", "mover", "check"),
    [
        ([], True, True, True, True),
        (["stages"], True, False, False, False),
        (["grpo"], True, False, False, False),
        (["sft"], False, False, False, False),
        (["servers"], False, True, False, False),
        (["judge", "policy"], False, True, False, False),
        (["storeJobs"], False, False, True, False),
        (["toolChecks", "grpo"], True, False, False, True),
    ],
)
def test_a_patch_reaches_the_pods_that_it_names_and_no_others(targets, stage, judge, mover, check):
    patch = {**PROXY, "targets": targets}
    found = [
        pods_of(golden.stage(pods=[patch]))[0],
        server(patch),
        store_job([patch]),
        store_job([patch], "tools"),
    ]
    assert ["HTTPS_PROXY" in env(each) for each in found] == [stage, judge, mover, check]


def test_a_later_patch_takes_precedence_and_keeps_what_it_does_not_name():
    later = {"env": [{"name": "HTTPS_PROXY", "value": "http://other:1"}], "labels": {"a": "2"}}
    first = {**PROXY, "labels": {"a": "1", "b": "1"}, "nodeSelector": {"pool": "a"}}
    (template,) = pods_of(golden.stage(pods=[first, later], scheduling={"nodeSelector": {"zone": "z"}}))
    assert env(template)["HTTPS_PROXY"] == "http://other:1"
    assert {"a": "2", "b": "1"}.items() <= template["metadata"]["labels"].items()
    assert template["spec"]["nodeSelector"] == {"zone": "z", "pool": "a"}


def test_gog_s_own_secrets_take_precedence_over_those_of_a_patch():
    own = {"envFrom": [{"secretRef": {"name": "mine"}}]}
    (template,) = pods_of(golden.stage(pods=[own], model={"base": "hf://org/model", "secretName": "hub"}))
    assert [each["secretRef"]["name"] for each in container(template)["envFrom"]] == ["mine", "hub"]


def test_annotations_that_keep_trainers_in_place_are_a_default_that_a_patch_may_change():
    key = "cluster-autoscaler.kubernetes.io/safe-to-evict"
    (plain,), (patched,) = pods_of(golden.stage()), pods_of(golden.stage(pods=[EFA]))
    assert plain["metadata"]["annotations"][key] == "false" and patched["metadata"]["annotations"][key] == "true"
    assert patched["metadata"]["annotations"]["karpenter.sh/do-not-disrupt"] == "true"


def test_a_server_keeps_the_time_that_it_needs_to_end():
    assert server({"terminationGracePeriodSeconds": 30})["spec"]["terminationGracePeriodSeconds"] == 45
    assert server({"terminationGracePeriodSeconds": 90})["spec"]["terminationGracePeriodSeconds"] == 90


def test_a_changed_patch_restarts_a_server_and_a_store_job_s_patch_does_not():
    def hash_of(*patches: dict[str, Any]) -> str:
        made = inference.service(golden.tool_server("judge", pods=list(patches)), golden.PLATFORM, None)
        return str(made["metadata"]["annotations"]["gog.dev/spec-hash"])

    assert hash_of() == hash_of({**PROXY, "targets": ["storeJobs"]})
    assert len({hash_of(), hash_of(PROXY), hash_of({"labels": {"a": "b"}}), hash_of({"annotations": {"a": "b"}})}) == 4


def test_a_part_of_a_gpu_makes_a_server_use_and_free_the_gpu_like_a_whole_one():
    mig = {"resources": {"nvidia.com/mig-1g.10gb": 1}}
    made = golden.tool_server("policy", base="tiny", pods=[mig])
    predictor = inference.service(made, golden.PLATFORM, None)["spec"]["predictor"]
    assert predictor["deploymentStrategy"] == {"type": "Recreate"}
    assert predictor["containers"][0]["command"][-2:] == ["--device", "cuda"]


def test_workers_ask_for_gpus_by_the_name_that_the_cluster_has_for_them_and_are_never_best_effort():
    workers = {"gpus": 2, "gpuResource": "nvidia.com/mig-3g.40gb"}
    (template,) = pods_of(golden.stage(workers=workers))
    found = container(template)["resources"]
    assert found["limits"] == {"nvidia.com/mig-3g.40gb": "2"}
    assert found["requests"] == {"nvidia.com/mig-3g.40gb": "2", "cpu": "100m", "memory": "256Mi"}


GIVEN = {"cpu": "50m", "memory": "64Mi"}


@pytest.mark.parametrize("workers", [{}, GIVEN], ids=["no amounts", "amounts of the workers"])
@pytest.mark.parametrize(
    "patch",
    [
        {"resources": {"nvidia.com/mig-1g.10gb": 1}},
        {"resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "h100"}]},
    ],
    ids=["a part", "a claim"],
)
def test_a_trainer_that_has_its_gpu_by_a_patch_is_not_best_effort_either(patch, workers):
    (template,) = pods_of(golden.stage(pods=[patch], workers=workers))
    requests = container(template)["resources"]["requests"]
    assert {key: requests[key] for key in GIVEN} == (workers or {"cpu": "100m", "memory": "256Mi"})


def test_a_run_gives_each_child_the_patches_for_its_pods():
    grpo, judge, movers = ({**PROXY, "targets": [each]} for each in ("grpo", "judge", "storeJobs"))
    run = golden.thing("GoGRun", "world", {"model": {"base": "tiny"}, "data": {"world": {}}, "store": golden.STORE}
                       | {"pods": [grpo, judge, movers]})  # fmt: skip
    store = settings.StoreSpec.model_validate(golden.STORE)
    stages = {step.key: children.stage(run, step, {}, store) for step in sequence.steps(run)}
    servers = {each.spec.role: each for each in children.tool_servers(run, store)}

    def targets(thing: Any) -> list[str]:
        return [each for patch in thing.spec.pods for each in patch.targets]

    assert targets(stages["grpo"]) == ["grpo", "storeJobs"] and targets(stages["sft"]) == ["storeJobs"]
    assert targets(servers["judge"]) == ["judge"] and targets(servers["grounding"]) == []


def test_a_template_is_not_changed_by_its_patches():
    template = {"metadata": {"labels": {}}, "spec": {"containers": [{"env": []}]}}
    made = pod_patches.apply(template, (settings.PodPatch.model_validate(PROXY),), "stages")
    assert made["spec"]["containers"][0]["env"] and not template["spec"]["containers"][0]["env"]


def mounts(path: str) -> str:
    body = f"volumes: [{{name: m, emptyDir: {{}}}}], volumeMounts: [{{name: m, mountPath: '{path}'}}]"
    text = f"kind: ToolServer\napiVersion: gog.dev/v1alpha1\nmetadata: {{name: s}}\nspec: {{role: judge, pods: [{{{body}}}]}}"
    try:
        manifest.check(yaml_reader.mapping(text, where="s.yaml"), where="s.yaml")
    except UserError as error:
        return error.sentence()
    return ""


@pytest.mark.parametrize("path", ["/tmp/", "//tmp", "/./work", "/data/../etc/gog-store", "/data/..", "/tmp/."])
def test_a_folder_of_gog_is_refused_in_every_form_of_its_path(path):
    """A kubelet resolves the path, so that the volume would lie over what gog mounts."""
    assert ".mountPath" in mounts(path)


@pytest.mark.parametrize("path", ["/data/", "/data/.cache", "/a..b/c...", "/tmp2/"])
def test_another_folder_is_accepted_however_it_is_called(path):
    assert mounts(path) == ""
