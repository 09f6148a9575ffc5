"""An endpoint as an InferenceService: when its pods restart, what they may use, what their server is told."""

from __future__ import annotations

import copy
import json
import re

import hypothesis
import pytest
import support.operator_golden as golden
from hypothesis import strategies

from gog import spec as settings
from gog_operator.build import inference, meta, pods


def made(role="grounding", data=golden.DATA, **spec):
    return inference.service(golden.endpoint(role, **spec), golden.PLATFORM, data)


def container_of(service):
    (container,) = service["spec"]["predictor"]["containers"]
    return container


def flag(service, name):
    line = container_of(service)["command"]
    return line[line.index(name) + 1] if name in line else None


def test_kserve_leaves_replicas_to_us_and_callers_stay_inside_the_cluster():
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


def test_probes_ask_the_server_itself_and_it_has_its_time_to_start():
    container = container_of(made(startupSeconds=61))
    startup = container["startupProbe"]
    assert startup["failureThreshold"] * startup["periodSeconds"] >= 61
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == startup["httpGet"]["path"] == "/healthz"
    assert container["ports"][0]["containerPort"] == container["readinessProbe"]["httpGet"]["port"] == 8080


def test_a_pod_that_goes_answers_what_it_has_before_it_goes():
    service = made()
    asleep = container_of(service)["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert service["spec"]["predictor"]["terminationGracePeriodSeconds"] > asleep + 25


@pytest.mark.parametrize(("resources", "expected"), [({}, "RollingUpdate"), (golden.GPUS, "Recreate")])
def test_with_gpus_one_pod_goes_before_the_next_comes(resources, expected):
    assert made(resources=resources)["spec"]["predictor"]["deploymentStrategy"]["type"] == expected


@pytest.mark.parametrize("change", [{"version": "grpo/80"}, {"replicas": 5}, {"suspend": True}])
def test_neither_another_version_nor_more_replicas_nor_a_pause_change_what_pods_inherit(change):
    before, after = (
        made("policy", data=None, **{"base": "tiny", "version": "grpo/40", **more}) for more in ({}, change)
    )
    assert before["metadata"]["annotations"][meta.HASH] == after["metadata"]["annotations"][meta.HASH]
    assert inference.current(before, after) is ("version" in change)


@pytest.mark.parametrize("change", [{"image": "other"}, {"resources": golden.GPUS}, {"failures": {"rate": 0.5}}])
def test_what_pods_are_made_of_makes_a_service_out_of_date(change):
    assert not inference.current(made(), made(**change))


def test_what_kserve_added_does_not_make_a_service_out_of_date():
    live = copy.deepcopy(made())
    live["metadata"]["annotations"]["somebody.else/note"] = "x"
    live["spec"]["predictor"]["model"] = {}
    assert inference.current(live, made())
    live["metadata"]["annotations"].pop(meta.HASH)
    assert not inference.current(live, made())


def test_readers_are_told_where_the_dataset_is_and_may_reach_it_and_others_are_not():
    reader, other = made("textSearch"), made("grounding")
    assert flag(reader, "--data") == "s3://runs/world"
    assert settings.StoreSpec.model_validate_json(flag(reader, "--store")).endpoint_url == "http://s3.example:7070"
    assert container_of(reader)["envFrom"] == [{"secretRef": {"name": "s3"}}]
    assert flag(other, "--data") is None and "envFrom" not in container_of(other)
    assert len(other["spec"]["predictor"]["volumes"]) == 2


def test_a_dataset_in_a_folder_needs_no_store():
    service = made("imageSearch", data=settings.DataSpec(path="/data"))
    assert flag(service, "--data") == "/data" and flag(service, "--store") is None


def test_a_policy_is_told_its_base_its_store_and_its_version():
    service = made("policy", data=None, base="s3://models/qwen", version="grpo/120")
    assert (flag(service, "--model"), flag(service, "--version")) == ("s3://models/qwen", "@/etc/gog/version")
    assert json.loads(flag(service, "--store"))["uri"] == "s3://runs/world"
    assert container_of(service)["image"] == golden.PLATFORM.trainer_image
    assert flag(made("policy", base="tiny", resources=golden.GPUS), "--device") == "cuda"


def test_a_model_that_callers_ask_for_is_not_the_server_s_to_load():
    assert flag(made("judge", model="qwen3-32b"), "--model") is None


def test_a_policy_s_pod_finds_its_version_in_a_file_that_changes_without_it():
    old, new = (golden.endpoint("policy", base="tiny", version=version) for version in ("grpo/40", "grpo/80"))
    mounted = made("policy", base="tiny")["spec"]["predictor"]["volumes"]
    files = [inference.version_file(each) for each in (old, new)]
    assert [each["data"]["version"] for each in files] == ["grpo/40", "grpo/80"]
    assert {"name": "config", "configMap": {"name": files[0]["metadata"]["name"]}} in mounted


def test_the_other_servers_run_from_the_tools_image_unless_another_is_named():
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
                {"nvidia.com/gpu": "1", "cpu": "100m", "memory": "1Gi"},
                {"nvidia.com/gpu": "1", "cpu": "1", "memory": "1Gi"},
            ),
        ),
    ],
)
def test_no_request_is_above_its_limit_and_what_is_left_out_is_small(requests, limits, expected):
    resources = container_of(made(resources={"requests": requests, "limits": limits}))["resources"]
    assert (resources["requests"], resources["limits"]) == expected


def test_every_pod_of_a_policy_has_an_address_of_its_own():
    service, headless = made("policy"), inference.headless(golden.endpoint("policy"))
    assert headless["spec"]["clusterIP"] == "None" and headless["spec"]["publishNotReadyAddresses"]
    assert headless["spec"]["selector"] == {"app": f"isvc.{service['metadata']['name']}-predictor"}
    assert headless["metadata"]["name"] not in (service["metadata"]["name"], f"{service['metadata']['name']}-predictor")


def test_a_server_s_own_key_comes_from_its_secret():
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


def test_a_model_s_folder_may_be_called_like_a_variable():
    assert expanded("/models/$(HOME)") == "/models/EXPANDED"
    assert flag(made("policy", base="/models/$(HOME)"), "--model") == "/models/$$(HOME)"
