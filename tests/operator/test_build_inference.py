"""A ToolServer as an InferenceService: when its pods restart, their resources, the arguments of their server."""

from __future__ import annotations

import copy
import dataclasses
import json
import re

import hypothesis
import pytest
import support.operator_golden as golden
from hypothesis import strategies

from gog import admin_tokens
from gog import spec as settings
from gog_operator.build import admin, inference, meta, pods


def made(role="grounding", data=golden.DATA, **spec):
    return inference.service(golden.tool_server(role, **spec), golden.PLATFORM, data)


def container_of(service):
    (container,) = service["spec"]["predictor"]["containers"]
    return container


def flag(service, name):
    line = container_of(service)["command"]
    return line[line.index(name) + 1] if name in line else None


def test_gog_sets_the_replicas_and_the_service_is_cluster_local():
    head = made(replicas=3)["metadata"]
    assert head["annotations"]["serving.kserve.io/deploymentMode"] == "Standard"
    assert head["annotations"]["serving.kserve.io/autoscalerClass"] == "none"
    assert head["labels"]["networking.kserve.io/visibility"] == "cluster-local"
    assert made(replicas=3)["spec"]["predictor"]["minReplicas"] == 3


def test_a_back_end_and_its_options_are_on_the_command_line():
    plain, chosen = made(), made(backend="my_index:make", options={"shards": 2, "path": "/d"})
    assert flag(chosen, "--backend") == "my_index:make"
    assert json.loads(flag(chosen, "--options")) == {"path": "/d", "shards": 2}
    assert (flag(plain, "--backend"), flag(plain, "--options")) == (None, None)


def test_probes_query_the_server_and_allow_its_startup_seconds():
    container = container_of(made(startupSeconds=61))
    startup = container["startupProbe"]
    assert startup["failureThreshold"] * startup["periodSeconds"] >= 61
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == startup["httpGet"]["path"] == "/healthz"
    assert container["ports"][0]["containerPort"] == container["readinessProbe"]["httpGet"]["port"] == 8080


def test_a_terminating_pod_has_time_for_its_requests_in_flight():
    service = made()
    asleep = container_of(service)["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert service["spec"]["predictor"]["terminationGracePeriodSeconds"] > asleep + 25


@pytest.mark.parametrize(("resources", "expected"), [({}, "RollingUpdate"), (golden.GPUS, "Recreate")])
def test_with_gpus_the_old_pod_terminates_before_the_new_one_starts(resources, expected):
    assert made(resources=resources)["spec"]["predictor"]["deploymentStrategy"]["type"] == expected


@pytest.mark.parametrize("change", [{"version": "grpo/80"}, {"replicas": 5}, {"suspend": True}])
def test_version_replicas_and_suspend_do_not_change_the_annotations_of_pods(change):
    before, after = (
        made("policy", data=None, **{"base": "tiny", "version": "grpo/40", **more}) for more in ({}, change)
    )
    assert before["metadata"]["annotations"][meta.HASH] == after["metadata"]["annotations"][meta.HASH]
    assert inference.current(before, after) is ("version" in change)


@pytest.mark.parametrize("change", [{"image": "other"}, {"resources": golden.GPUS}, {"failures": {"rate": 0.5}}])
def test_a_changed_pod_setting_makes_the_service_out_of_date(change):
    assert not inference.current(made(), made(**change))


def test_fields_that_kserve_added_do_not_make_the_service_out_of_date():
    live = copy.deepcopy(made())
    live["metadata"]["annotations"]["example.org/note"] = "x"
    live["spec"]["predictor"]["model"] = {}
    assert inference.current(live, made())
    live["metadata"]["annotations"].pop(meta.HASH)
    assert not inference.current(live, made())


def test_only_roles_that_read_the_dataset_receive_its_location_and_credentials():
    reader, other = made("textSearch"), made("grounding")
    assert flag(reader, "--data") == "s3://runs/world"
    assert settings.StoreSpec.model_validate_json(flag(reader, "--store")).endpoint_url == "http://s3.example:7070"
    assert secrets_of(reader) == ["s3"]
    assert flag(other, "--data") is None and secrets_of(other) == []
    assert len(other["spec"]["predictor"]["volumes"]) == 2


def secrets_of(service):
    """Secrets that the pods have as files."""
    volumes = service["spec"]["predictor"]["volumes"]
    return [each["secret"]["secretName"] for each in volumes if "secret" in each]


def test_a_server_reads_the_store_with_keys_that_may_only_read_where_there_are_some():
    store = {**golden.STORE, "readerSecretName": "s3-reader"}
    reader, policy = made("textSearch", store=store), made("policy", base="tiny", store=store)
    assert secrets_of(reader) == secrets_of(policy) == ["s3-reader"]
    assert secrets_of(made("textSearch", store={"uri": "s3://b", "readerSecretName": "s3-reader"})) == ["s3-reader"]


def test_a_dataset_in_a_folder_needs_no_store():
    service = made("imageSearch", data=settings.DataSpec(path="/data"))
    assert flag(service, "--data") == "/data" and flag(service, "--store") is None


def test_a_policy_receives_its_base_its_store_and_its_version():
    service = made("policy", data=None, base="s3://models/qwen", version="grpo/120")
    assert (flag(service, "--model"), flag(service, "--version")) == ("s3://models/qwen", "@/etc/gog/version")
    assert json.loads(flag(service, "--store"))["uri"] == "s3://runs/world"
    assert container_of(service)["image"] == golden.PLATFORM.trainer_image
    assert flag(made("policy", base="tiny", resources=golden.GPUS), "--device") == "cuda"
    assert flag(made("policy", base="tiny", dtype="bfloat16"), "--dtype") == "bfloat16"


def test_the_model_name_of_requests_is_not_passed_to_the_server():
    assert flag(made("judge", model="qwen3-32b"), "--model") is None


def test_a_policy_pod_reads_its_version_from_a_file_outside_its_spec():
    old, new = (golden.tool_server("policy", base="tiny", version=version) for version in ("grpo/40", "grpo/80"))
    mounted = made("policy", base="tiny")["spec"]["predictor"]["volumes"]
    files = [inference.version_file(each, golden.PLATFORM) for each in (old, new)]
    assert [each["data"]["version"] for each in files] == ["grpo/40", "grpo/80"]
    assert {"name": "config", "configMap": {"name": files[0]["metadata"]["name"]}} in mounted


def test_a_back_end_that_needs_torch_uses_the_trainers_image():
    detector = made(backend="grounding-dino", options={"weights": "hf://org/model"})
    index = made("imageSearch", backend="embeddings", options={"index": "/index"})
    assert {container_of(each)["image"] for each in (detector, index)} == {golden.PLATFORM.trainer_image}
    assert container_of(made(backend="my_index:make"))["image"] == golden.PLATFORM.tools_image


def test_the_other_servers_use_the_tools_image_unless_the_spec_names_one():
    assert container_of(made("judge"))["image"] == golden.PLATFORM.tools_image
    assert container_of(made("judge", image="mine:1"))["image"] == "mine:1"


@pytest.mark.parametrize(
    ("requests", "limits", "expected"),
    [
        ({}, {}, ({"cpu": "100m", "memory": "256Mi"}, {"cpu": "1", "memory": "2Gi"})),
        ({"cpu": "4", "memory": "8Gi"}, {}, ({"cpu": "4", "memory": "8Gi"}, {"cpu": "4", "memory": "8Gi"})),
        ({}, {"cpu": "50m"}, ({"cpu": "50m", "memory": "256Mi"}, {"cpu": "50m", "memory": "2Gi"})),
        (
            {"nvidia.com/gpu": "1"},
            {"memory": "1Gi"},
            (
                {"nvidia.com/gpu": "1", "cpu": "4", "memory": "1Gi"},
                {"nvidia.com/gpu": "1", "cpu": "4", "memory": "1Gi"},
            ),
        ),
    ],
)
def test_requests_never_exceed_limits_and_defaults_are_small_without_a_gpu(requests, limits, expected):
    resources = container_of(made(resources={"requests": requests, "limits": limits}))["resources"]
    assert (resources["requests"], resources["limits"]) == expected


def test_a_server_with_gpus_is_sized_by_their_number():
    made = inference._resources(settings.ResourcesSpec(limits={"nvidia.com/gpu": 2}))
    expected = {"cpu": "8", "memory": "64Gi", "nvidia.com/gpu": "2"}
    assert made == {"requests": expected, "limits": expected}
    own = inference._resources(settings.ResourcesSpec(limits={"nvidia.com/gpu": 1, "memory": "16Gi"}))
    assert (
        own["limits"] == {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": "1"} and own["requests"]["memory"] == "16Gi"
    )


def test_a_headless_service_resolves_to_every_pod_of_a_policy():
    service, headless = made("policy"), inference.headless(golden.tool_server("policy"))
    assert headless["spec"]["clusterIP"] == "None" and headless["spec"]["publishNotReadyAddresses"]
    assert headless["spec"]["selector"] == {"app": f"isvc.{service['metadata']['name']}-predictor"}
    assert headless["metadata"]["name"] not in (service["metadata"]["name"], f"{service['metadata']['name']}-predictor")


def test_the_api_key_of_a_server_comes_from_its_secret():
    assert container_of(made("judge", secretName="key"))["envFrom"] == [{"secretRef": {"name": "key"}}]


def expanded(text: str, value: str = "EXPANDED") -> str:
    """What a kubelet makes of a command's or a variable's text (k8s.io/kubernetes, third_party/forked/golang/expansion)."""
    return re.sub(r"\$(?:(\$)|\([^)]*\)|(\()|)", lambda m: _kubelet(m, value), text)


def _kubelet(found: re.Match[str], value: str) -> str:
    if found[1]:
        return "$"
    return value if found[0].endswith(")") else found[0]


@hypothesis.given(strategies.text("$()aA"))
def test_what_a_kubelet_would_expand_reaches_the_server_as_it_is(text):
    assert expanded(pods.literal(text)) == text


def test_a_model_folder_may_be_named_like_a_variable():
    assert expanded("/models/$(HOME)") == "/models/EXPANDED"
    assert flag(made("policy", base="/models/$(HOME)"), "--model") == "/models/$$(HOME)"


def test_a_policy_on_a_base_of_the_hub_gets_the_token_of_its_secret():
    served = made("policy", base="hf://org/model", baseSecretName="hub")
    assert {"secretRef": {"name": "hub"}} in container_of(served)["envFrom"]


def test_only_a_server_that_reads_a_dataset_of_the_hub_gets_the_token_of_its_secret():
    data = settings.DataSpec(uri="hf://datasets/org/pool", secret_name="hub")
    source = {"secretRef": {"name": "hub"}}
    search = made("textSearch", data)
    assert source in container_of(search)["envFrom"] and flag(search, "--data") == data.uri
    assert source not in container_of(made("judge", data)).get("envFrom", [])


KEYED = dataclasses.replace(golden.PLATFORM, admin_key=b"k" * 32)


def test_a_policy_s_pods_hold_the_digest_of_the_token_and_nothing_from_which_it_follows():
    server = golden.tool_server("policy", base="tiny")
    written = inference.version_file(server, KEYED)["data"]
    token = admin.token(server, KEYED)
    assert admin_tokens.matches(f"Bearer {token}", written["admin"])
    documents = json.dumps([written, inference.service(server, KEYED, None)])
    assert token not in documents and KEYED.admin_key.decode() not in documents + repr(KEYED)
    assert flag(inference.service(server, KEYED, None), "--admin-digest") == "@/etc/gog/admin"


def test_a_token_is_for_one_server_of_one_namespace_alone():
    server = golden.tool_server("policy", base="tiny")
    others = [
        server.model_copy(update={"metadata": server.metadata.model_copy(update={field: "other"})})
        for field in ("namespace", "name", "uid")
    ]
    assert len({admin.token(each, KEYED) for each in (server, *others)}) == 4


def test_the_operator_s_key_restarts_no_server():
    """Its pods read the digest from a file, so that they also learn of another one."""
    server = golden.tool_server("policy", base="tiny")
    services = [
        inference.service(server, dataclasses.replace(KEYED, admin_key=key * 32), None)["metadata"]["annotations"]
        for key in (b"k", b"l")
    ]
    assert services[0] == services[1]
