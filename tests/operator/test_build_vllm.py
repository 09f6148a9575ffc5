"""A vLLM under KServe: its command line, its size, where it finds weights, and who holds which secret."""

from __future__ import annotations

import json

import pytest
import support.operator_golden as golden

from gog import mounts
from gog_operator.build import inference, pods, vllm

HUB = {"base": "hf://org/model", "baseSecretName": "hub"}


def predictor(role="policy", **spec):
    body = HUB | spec
    made = golden.tool_server(role, runtime="vllm", **{key: value for key, value in body.items() if value is not None})
    return inference.service(made, golden.PLATFORM, None)["spec"]["predictor"]


def line_of(pod):
    return pod["containers"][0]["command"]


def value_of(pod, name):
    line = line_of(pod)
    return line[line.index(name) + 1] if name in line else None


def test_a_policy_takes_token_ids_and_adapters_and_a_judge_is_an_ordinary_model():
    policy, judge = predictor(), predictor("judge", model="judge-120b")
    assert line_of(policy)[:2] == ["vllm", "serve"] and "--enable-lora" in line_of(policy)
    assert value_of(policy, "--logprobs-mode") == "processed_logprobs"
    assert value_of(judge, "--served-model-name") == "judge-120b" and "--enable-lora" not in line_of(judge)
    assert [each["name"] for each in judge["containers"]] == ["kserve-container"]


def test_a_pod_without_resources_has_one_gpu_and_one_with_several_is_split_over_them():
    one, four = predictor(), predictor(resources={"limits": {"nvidia.com/gpu": "4"}})
    assert one["containers"][0]["resources"]["limits"] == {vllm.GPU: "1", "cpu": "6", "memory": "48Gi"}
    assert four["containers"][0]["resources"]["requests"] == {vllm.GPU: "4", "cpu": "24", "memory": "192Gi"}
    assert (value_of(one, "--tensor-parallel-size"), value_of(four, "--tensor-parallel-size")) == (None, "4")
    assert four["deploymentStrategy"] == {"type": "Recreate"}, "the old pod's GPUs are free first"


def test_resources_that_name_no_gpu_are_of_a_cpu_and_given_amounts_stay():
    small = predictor(resources={"requests": {"cpu": "1"}, "limits": {"memory": "4Gi"}})["containers"][0]["resources"]
    assert small == {"requests": {"cpu": "1", "memory": "4Gi"}, "limits": {"cpu": "2", "memory": "4Gi"}}


@pytest.mark.parametrize(
    ("limits", "size"), [({"cpu": "2"}, "2Gi"), ({vllm.GPU: "1"}, "2Gi"), ({vllm.GPU: "4"}, "8Gi")]
)
def test_every_vllm_has_shared_memory_without_which_it_does_not_start(limits, size):
    volumes = predictor(resources={"limits": limits})["volumes"]
    assert {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": size}} in volumes


@pytest.mark.parametrize("resource", ["nvidia.com/mig-3g.40gb", "amd.com/gpu", "gpu.intel.com/i915"])
def test_parts_of_gpus_and_those_of_other_vendors_count(resource):
    assert vllm.is_gpu(resource) is (resource != "gpu.intel.com/i915")


def test_type_and_image_size_of_training_are_vllm_s_and_options_override_them():
    pod = predictor(dtype="bfloat16", maxPixels=802816, options={"max-model-len": 8192})
    assert value_of(pod, "--dtype") == "bfloat16" and value_of(pod, "--max-model-len") == "8192"
    assert json.loads(value_of(pod, "--mm-processor-kwargs")) == {"max_pixels": 802816}
    assert value_of(predictor(dtype="bfloat16", options={"dtype": "float32"}), "--dtype") == "float32"


def test_a_base_that_is_fetched_is_there_before_vllm_starts():
    pod = predictor()
    (fetch,) = pod["initContainers"]
    assert fetch["command"][:5] == ["gog", "move", "model", "hf://org/model", "/mnt/gog/fetched"]
    assert line_of(pod)[2] == "/mnt/gog/fetched/base"
    assert {"name": "fetched", "mountPath": "/mnt/gog/fetched", "readOnly": True} in pod["containers"][0][
        "volumeMounts"
    ]


def test_a_base_in_a_volume_is_read_there_and_nothing_is_fetched():
    pod = predictor(base="pvc://models/qwen", baseSecretName=None)
    assert "initContainers" not in pod and line_of(pod)[2] == "/mnt/gog/base"
    fetched = predictor(sources={"hf://org/model": "pvc://cache/model-1"})
    assert "initContainers" not in fetched and line_of(fetched)[2] == "/mnt/gog/base"
    assert predictor(base="/models/m", baseSecretName=None)["containers"][0]["command"][2] == "/models/m"


def secrets_of(container):
    sources = [each["secretRef"]["name"] for each in container.get("envFrom", ())]
    single = [each["valueFrom"]["secretKeyRef"]["name"] for each in container["env"] if "valueFrom" in each]
    files = {each["name"] for each in container["volumeMounts"]} & {"gog-store"}  # the volume of the store's Secret
    return {*sources, *single, *files}


def test_the_hub_s_token_and_the_store_s_keys_are_not_in_the_container_that_tenants_prompt():
    pod = predictor(version="grpo/120")
    server, receiver = pod["containers"]
    assert secrets_of(server) == set()
    assert secrets_of(receiver) == {"gog-store"}
    assert secrets_of(pod["initContainers"][0]) == {"gog-store", "hub"}


def test_a_judge_s_key_is_the_one_that_vllm_requires():
    (server,) = predictor("judge", secretName="judge-key")["containers"]
    assert {
        "name": "VLLM_API_KEY",
        "valueFrom": {"secretKeyRef": {"name": "judge-key", "key": "GOG_API_KEY"}},
    } in server["env"]


def test_the_receiver_shares_a_folder_with_vllm_and_holds_the_pod_back_until_the_version_is_loaded():
    server, receiver = predictor(version="grpo/120")["containers"]
    assert {"name": "adapters", "mountPath": "/adapters", "readOnly": True} in server["volumeMounts"]
    assert {"name": "adapters", "mountPath": "/adapters", "readOnly": False} in receiver["volumeMounts"]
    assert receiver["readinessProbe"]["httpGet"] == {"path": "/adapters/ready", "port": 8081, "scheme": "HTTP"}
    assert receiver["command"][receiver["command"].index("--version") + 1] == "/etc/gog/version"


def test_a_new_version_restarts_no_pod():
    hashes = {
        inference.service(golden.tool_server("policy", runtime="vllm", version=version, **HUB), golden.PLATFORM, None)[
            "metadata"
        ]["annotations"]["gog.dev/spec-hash"]
        for version in ("grpo/120", "grpo/240")
    }
    assert len(hashes) == 1


def test_all_containers_are_of_the_restricted_profile():
    pod = predictor(version="grpo/120")
    for container in (*pod["containers"], *pod["initContainers"]):
        assert container["securityContext"] == pods.container_security()


def test_a_stage_reads_a_fetched_base_from_its_volume_without_the_hub():
    _, job = golden.documents("stage-volumes")
    (task,) = job["spec"]["tasks"]
    (container,) = task["template"]["spec"]["containers"]
    env = {each["name"]: each.get("value") for each in container["env"]}
    assert json.loads(env[mounts.VARIABLE]) == {
        "hf://org/model": "/mnt/gog/base",
        "oci://registry.example/pool:1#pool": "/mnt/gog/data",
    }
