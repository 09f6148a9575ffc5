"""Everything that the operator creates on a cluster equals its golden file; and what all of it has in common."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import support.operator_golden as golden
import support.operator_restricted as restricted

ALL = sorted(golden.CASES)
PODS = [(case, pod) for case in ALL for document in golden.documents(case) for pod in restricted.pods(document)]
FILLED = {"fetch-base": {"/mnt/gog/fetched"}, "adapters": {"/adapters"}}
"""Folders beside the scratch ones that containers beside vLLM's fill, by the container's name."""
MADE = [document for case in ALL for document in golden.documents(case)]


def containers(pod):
    return [*pod.get("initContainers", ()), *pod["containers"]]


@pytest.mark.parametrize("case", ALL)
def test_the_built_documents_equal_their_golden_files(case):
    expected = (golden.FOLDER / f"{case}.yaml").read_text(encoding="utf-8")
    assert golden.text(case) == expected, "if the change is intended: .venv/bin/python tests/support/operator_golden.py"


def test_every_golden_file_belongs_to_a_case():
    assert {path.stem for path in golden.FOLDER.iterdir()} == set(ALL)


@pytest.mark.parametrize("case", ALL)
def test_building_twice_gives_equal_documents(case):
    assert golden.CASES[case]() == golden.documents(case)


@pytest.mark.parametrize(("case", "pod"), PODS, ids=[case for case, _ in PODS])
def test_every_pod_passes_the_restricted_profile_and_writes_to_scratch_only(case, pod):
    assert restricted.violations(pod) == []
    assert pod["securityContext"]["runAsUser"] == (2000 if case.endswith("patched") else 10001)
    mounted: set[str] = set()
    for container in containers(pod):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        writable = {each["mountPath"] for each in container["volumeMounts"] if not each.get("readOnly")}
        assert writable - {"/dev/shm"} - FILLED.get(container["name"], set()) == {"/tmp", "/work"}
        mounted |= {each["name"] for each in container["volumeMounts"]}
    assert mounted == {each["name"] for each in pod["volumes"]}


@pytest.mark.parametrize(("case", "pod"), PODS, ids=[case for case, _ in PODS])
def test_a_pod_has_a_token_only_if_the_manifest_names_a_service_account(case, pod):
    assert pod["automountServiceAccountToken"] is ("serviceAccountName" in pod)
    assert pod["enableServiceLinks"] is False


@pytest.mark.parametrize(("case", "pod"), PODS, ids=[case for case, _ in PODS])
def test_a_failed_pod_leaves_a_termination_message(case, pod):
    for container in containers(pod):
        assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"
        variables = {each["name"]: each.get("value") for each in container["env"]}
        assert variables["GOG_TERMINATION_LOG"] == container["terminationMessagePath"] == "/dev/termination-log"


@pytest.mark.parametrize("document", MADE, ids=[f"{each['kind']} {each['metadata']['name']}" for each in MADE])
def test_every_document_has_an_owner_and_labels(document):
    (owner,) = document["metadata"]["ownerReferences"]
    assert owner["controller"] and owner["blockOwnerDeletion"] and owner["uid"] == f"uid-of-{owner['name']}"
    labels = document["metadata"]["labels"]
    assert labels["app.kubernetes.io/name"] == "gog" and labels["gog.dev/owner"] == owner["name"]
    assert labels["gog.dev/run"] == "world" and document["metadata"]["namespace"] == "research"


def test_no_document_contains_a_secret():
    assert not [each for each in MADE if each["kind"] == "Secret"]


SPOILT: dict[str, Any] = {
    "hostNetwork": lambda pod, container: pod.update(hostNetwork=True),
    "hostPath": lambda pod, container: pod["volumes"].append({"name": "h", "hostPath": {"path": "/"}}),
    "sysctls": lambda pod, container: pod["securityContext"].update(sysctls=[{"name": "a", "value": "b"}]),
    "privileged": lambda pod, container: container["securityContext"].update(privileged=True),
    "allowPrivilegeEscalation": lambda pod, container: container["securityContext"].pop("allowPrivilegeEscalation"),
    "capabilities": lambda pod, container: container["securityContext"].update(capabilities={"drop": ["NET_RAW"]}),
    "root": lambda pod, container: pod["securityContext"].update(runAsUser=0),
    "seccompProfile": lambda pod, container: pod["securityContext"].pop("seccompProfile"),
    "hostPort": lambda pod, container: container["ports"].append({"containerPort": 1, "hostPort": 1}),
    "host": lambda pod, container: container["livenessProbe"]["httpGet"].update(host="elsewhere"),
}


@pytest.mark.parametrize("fault", SPOILT)
def test_the_check_of_the_profile_finds_each_violation(fault):
    pod = copy.deepcopy(restricted.pods(golden.documents("toolserver-judge")[0])[0])
    SPOILT[fault](pod, pod["containers"][0])
    (found,) = restricted.violations(pod)
    assert fault in found
