"""A real API server accepts everything that is built: the schemas of Volcano and KServe, and pod security."""

from __future__ import annotations

import copy
import json

import pytest
import support.operator_golden as golden
import support.operator_restricted as restricted
import yaml

from gog import spec as settings
from gog_operator.build import volcano
from gog_operator.cluster.volcano import LARGEST

pytestmark = pytest.mark.apiserver
ALL = sorted(golden.CASES)


@pytest.fixture(scope="module")
def namespace(api_server):
    return api_server.namespace("build")


def created(api_server, namespace, *documents, check=True):
    """What the server would create of documents in a namespace; it refuses unknown fields."""
    placed = [{**each, "metadata": {**each["metadata"], "namespace": namespace}} for each in documents]
    line = ("create", "--dry-run=server", "--validate=strict", "-o", "name", "-f", "-")
    return api_server.kubectl(*line, input=yaml.safe_dump_all(placed), check=check)


@pytest.mark.parametrize("case", ALL)
def test_the_api_server_accepts_every_field_that_is_built(api_server, namespace, case):
    documents = golden.documents(case)
    assert len(created(api_server, namespace, *documents).split()) == len(documents)


@pytest.mark.parametrize("case", ALL)
def test_the_api_server_admits_every_pod_to_a_restricted_namespace(api_server, namespace, case):
    made = [pod_of(spec, f"{case}-{place}") for place, spec in enumerate(pods_of(case))]
    assert len(created(api_server, namespace, *made).split()) == len(made) > 0


def test_the_api_server_stores_the_job_with_the_most_pods_that_a_spec_allows(api_server, namespace):
    field = settings.WorkersSpec.model_fields["replicas"]
    most = next(each.le for each in field.metadata if hasattr(each, "le"))
    job = volcano.job(golden.stage(workers={"replicas": most}, scheduling=golden.PLACED), golden.PLATFORM)
    job["metadata"]["namespace"] = namespace
    assert len(json.dumps(job)) < LARGEST
    output = api_server.kubectl("create", "--validate=strict", "-o", "name", "-f", "-", input=json.dumps(job))
    assert output.strip() == "job.batch.volcano.sh/world-grpo-a1"


def test_the_api_server_refuses_a_pod_that_violates_the_profile(api_server, namespace):
    spec = copy.deepcopy(pods_of("store-job-check")[0])
    spec["containers"][0]["securityContext"].pop("capabilities")
    assert 'violates PodSecurity "restricted' in created(api_server, namespace, pod_of(spec, "x"), check=False)


def pods_of(case):
    return [spec for document in golden.documents(case) for spec in restricted.pods(document)]


def pod_of(spec, name):
    """A pod of a template; without what only KServe reads, and what only a real namespace has."""
    foreign = ("minReplicas", "deploymentStrategy", "labels", "annotations", "serviceAccountName")
    foreign += ("priorityClassName", "runtimeClassName")
    known = {key: value for key, value in spec.items() if key not in foreign} | {"automountServiceAccountToken": False}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": known}
