"""Store jobs as batch Jobs: what ends them, their credentials, the size of their configuration."""

from __future__ import annotations

import pytest
import support.operator_golden as golden
import yaml

from gog import spec as settings
from gog.errors import UserError
from gog_console.cli import INVALID
from gog_operator.build import store_jobs
from gog_operator.build.platform import Platform

OWN = settings.StoreSpec.model_validate(golden.STORE)


def made(config=None, also=None, **more):
    return store_jobs.job(
        "m", golden.stage(), "check", config or {"keys": ["grpo"]}, OWN, golden.PLATFORM, also, **more
    )


def container_of(job):
    (container,) = job["spec"]["template"]["spec"]["containers"]
    return container


def test_invalid_input_ends_a_store_job_at_once_and_a_lost_node_does_not_count():
    _, job = made()
    failing, ignored = job["spec"]["podFailurePolicy"]["rules"]
    assert failing["action"] == "FailJob" and failing["onExitCodes"]["values"] == [INVALID]
    assert failing["onExitCodes"]["containerName"] == container_of(job)["name"]
    assert ignored["action"] == "Ignore" and ignored["onPodConditions"][0]["type"] == "DisruptionTarget"
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never", "else the policy is refused"


def test_a_store_job_has_a_deadline_and_no_ttl():
    _, job = made()
    assert job["spec"]["backoffLimit"] == 2 and job["spec"]["activeDeadlineSeconds"] == 3600
    assert "ttlSecondsAfterFinished" not in job["spec"]
    assert job["spec"]["podReplacementPolicy"] == "Failed", "two at once would work in one store"


def test_a_store_job_reads_its_configuration_where_it_is_mounted():
    configmap, job = made({"keys": ["grpo"], "verify": True})
    assert configmap["immutable"] and configmap["metadata"]["name"] == job["metadata"]["name"] == "m"
    assert yaml.safe_load(configmap["data"]["config.yaml"]) == {"keys": ["grpo"], "verify": True}
    assert container_of(job)["command"] == ["gog", "move", "check", "--config", "/etc/gog/config.yaml"]
    volumes = {each["name"]: each for each in job["spec"]["template"]["spec"]["volumes"]}
    assert volumes["config"]["configMap"]["name"] == "m"


def secrets_of(job):
    """Secrets that the pod has as files, by their folders."""
    pod = job["spec"]["template"]["spec"]
    folders = {each["name"]: each["mountPath"] for each in container_of(job)["volumeMounts"]}
    return {folders[each["name"]]: each["secret"]["secretName"] for each in pod["volumes"] if "secret" in each}


def test_the_keys_of_a_store_are_files_and_not_in_the_environment():
    _, job = made()
    env = {each["name"]: each["value"] for each in container_of(job)["env"]}
    assert secrets_of(job) == {env["GOG_STORE_KEYS"]: "s3"} and "envFrom" not in container_of(job)


def test_a_second_secret_has_a_folder_of_its_own_and_its_own_authority():
    _, job = made(also=settings.StoreSpec(uri="s3://out/x", secret_name="other"))
    container = container_of(job)
    env = {each["name"]: each["value"] for each in container["env"]}
    assert secrets_of(job) == {env["GOG_STORE_KEYS"]: "s3", env["GOG_TARGET_GOG_STORE_KEYS"]: "other"}
    assert env["AWS_CA_BUNDLE"] != env["GOG_TARGET_AWS_CA_BUNDLE"]
    assert {env["AWS_CA_BUNDLE"], env["GOG_TARGET_AWS_CA_BUNDLE"]} <= {
        f"{each['mountPath']}/ca.crt" for each in container["volumeMounts"]
    }


@pytest.mark.parametrize("name", [None, "s3"])
def test_one_secret_for_two_stores_is_mounted_once(name):
    _, job = made(also=settings.StoreSpec(uri="s3://out/x", secret_name=name))
    assert list(secrets_of(job).values()) == ["s3"]


def test_a_configuration_that_is_too_large_loses_its_oldest_events():
    events = [{"number": number, "message": "x" * 1000} for number in range(2000)]
    configmap, _ = made({"objects": [{"kind": "GoGRun"}], "events": events})
    body = yaml.safe_load(configmap["data"]["config.yaml"])
    assert len(configmap["data"]["config.yaml"].encode()) <= store_jobs.LARGEST
    assert body["objects"] == [{"kind": "GoGRun"}] and body["events"][-1] == events[-1] and len(body["events"]) > 100
    with pytest.raises(UserError, match="more than 900,000"):
        made({"objects": ["x" * 1_000_000]})


def test_a_platform_takes_the_chart_environment_and_defaults_for_the_rest():
    env = {"GOG_TRAINER_IMAGE": "r/t:1", "GOG_TOOLS_IMAGE": "", "GOG_IMAGE_PULL_POLICY": "Always"}
    assert Platform.from_environment(env) == Platform(trainer_image="r/t:1", image_pull_policy="Always")
    assert Platform.from_environment({"GOG_METRICS_LINGER": "45"}) == Platform(linger_seconds=45)
