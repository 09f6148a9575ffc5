"""Answers of an API server as exceptions: one with a reason for a person, or one that is retried."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kubernetes.client import Configuration
from urllib3.util import parse_url

from gog_operator.api.meta import Reason
from gog_operator.api.objects import SFTStage
from gog_operator.api.patches import merge_patch
from gog_operator.build.platform import Platform
from gog_operator.cluster import documents, paths
from gog_operator.cluster.api_errors import TranslatedApi, translate
from gog_operator.cluster.documents import Unreadable
from gog_operator.cluster.interface import Refused, Unavailable
from gog_operator.cluster.kube import Api, ApiError, KubeApi, Request, parse_answer
from gog_operator.cluster.remote import RemoteCluster

JOBS = paths.VOLCANO_JOBS.path("ns")
NO_TYPE = "the server could not find the requested resource"
NO_QUEUE = (
    'admission webhook "validatejob.volcano.sh" denied the request: unable to find job queue: queues "gpu" not found'
)


def status(code: int, message: str = "", **headers: str) -> ApiError:
    body = json.dumps({"kind": "Status", "reason": "R", "message": message}).encode()
    with pytest.raises(ApiError) as error:
        parse_answer(code, headers, body)
    return error.value


@pytest.mark.parametrize("code", [401, 408, 410, 429, 500, 502, 503, 504])
def test_an_error_that_passes_by_itself_is_retried(code):
    assert isinstance(translate(status(code), "GET", JOBS), Unavailable)


def test_the_wait_of_a_retry_after_header_is_used():
    translated = translate(status(429, **{"Retry-After": "7"}), "GET", JOBS)
    assert isinstance(translated, Unavailable) and translated.after == 7


def test_the_wait_in_the_body_s_details_is_used():
    body = {"message": "storage is (re)initializing", "details": {"retryAfterSeconds": 3}}
    with pytest.raises(ApiError) as error:
        parse_answer(429, {}, json.dumps(body).encode())
    assert error.value.retry_after == 3


def test_no_answer_at_all_is_retried():
    assert isinstance(translate(ApiError(0, "ReadTimeoutError", ""), "POST", JOBS), Unavailable)


def test_a_truncated_answer_counts_as_none():
    with pytest.raises(ApiError) as error:
        parse_answer(200, {}, b'{"items": [')
    assert isinstance(translate(error.value, "GET", JOBS), Unavailable)


@pytest.mark.parametrize(
    ("code", "message", "method", "reason"),
    [
        (404, NO_TYPE, "POST", Reason.CRD_MISSING),
        (404, "404 page not found", "POST", Reason.CRD_MISSING),
        (404, 'namespaces "ns" not found', "POST", Reason.NAMESPACE_ENDING),
        (403, "unable to create new content in namespace ns because it is being terminated", "POST", Reason.NAMESPACE_ENDING),
        (403, NO_QUEUE, "POST", Reason.QUEUE_MISSING),
        (403, 'jobs.batch is forbidden: User "x" cannot create', "POST", Reason.REFUSED),
        (403, "exceeded quota: q, requested: pods=1", "POST", Reason.REFUSED),
        (422, "spec.queue: Invalid value", "PATCH", Reason.REFUSED),
    ],
)  # fmt: skip
def test_an_error_that_a_person_must_correct_has_a_reason_and_the_server_s_sentence(code, message, method, reason):
    translated = translate(status(code, message), method, JOBS)
    assert isinstance(translated, Refused) and translated.reason == reason
    assert message in translated.message or reason == Reason.CRD_MISSING


def test_a_missing_resource_definition_names_the_product_that_installs_it():
    translated = translate(status(404, NO_TYPE), "POST", JOBS)
    assert isinstance(translated, Refused)
    assert translated.message == "Volcano is not installed: the cluster has no resource jobs.batch.volcano.sh"


def test_a_missing_object_and_a_conflict_are_left_to_the_caller():
    assert translate(status(404, 'jobs.batch.volcano.sh "x" not found'), "GET", JOBS) is None
    assert translate(status(409), "POST", JOBS) is None


class Answers(Api):
    def __init__(self, error: ApiError) -> None:
        self.error = error

    def send(self, request: Request) -> dict:
        raise self.error


def test_a_resource_that_the_server_does_not_know_has_no_objects():
    assert TranslatedApi(Answers(status(404, NO_TYPE))).find(JOBS) is None


def test_deleting_an_object_that_is_gone_succeeds():
    TranslatedApi(Answers(status(404, "gone"))).delete(JOBS, "uid")


class Conflict(Api):
    """Refuses deletions with a conflict; the object has a uid."""

    def __init__(self, uid: str) -> None:
        self.uid = uid

    def send(self, request: Request) -> dict:
        if request.method == "DELETE":
            raise status(409, "the object has been modified")
        return {"metadata": {"uid": self.uid}}


def test_a_conflict_of_a_deletion_is_retried_unless_the_name_belongs_to_another_uid():
    TranslatedApi(Conflict("another")).delete(JOBS, "uid")
    with pytest.raises(Unavailable, match="modified"):
        TranslatedApi(Conflict("uid")).delete(JOBS, "uid")


def test_a_conflict_of_a_deletion_without_a_uid_is_retried():
    with pytest.raises(Unavailable):
        TranslatedApi(Answers(status(409, "busy"))).delete(JOBS)


@pytest.mark.parametrize("name", ["../../victim/gogruns/x", "..", ".", "a/b", "a?b", "%2e%2e"])
def test_a_name_from_a_tenant_s_object_never_leads_to_another_namespace(name):
    path = paths.JOBS.path("ns", name)
    assert path.rpartition("/")[0] == "/apis/batch/v1/namespaces/ns/jobs"
    sent: list[str] = []
    api = KubeApi.__new__(KubeApi)
    api.configuration = Configuration(host="http://server")
    api.pool = SimpleNamespace(
        request=lambda method, url, **_: sent.append(url) or SimpleNamespace(status=404, headers={}, data=b"")
    )
    with pytest.raises(ApiError, match="404"):
        api.call("GET", path)
    assert all(parse_url(url).path.startswith("/apis/batch/v1/namespaces/ns/jobs/") for url in sent)


@pytest.mark.parametrize("found", [("victim", "tune"), ("ns", "secret-run"), (None, "tune"), ("ns", None)])
def test_an_object_of_another_namespace_or_name_than_requested_is_refused(found):
    class Proxy(Api):
        def send(self, request: Request) -> dict:
            body = stage_body()
            return body | {"metadata": body["metadata"] | dict(zip(("namespace", "name"), found))}

    with pytest.raises(Refused, match="SFTStage tune: the API server returned"):
        RemoteCluster(Proxy(), "ns", Platform()).get(SFTStage, "tune")


@pytest.mark.parametrize("resource", paths.KNOWN)
def test_every_path_leads_back_to_its_resource(resource):
    for path in (
        resource.path("ns", "name"),
        resource.path("ns"),
        resource.path(None),
        resource.path("ns", "n", "status"),
    ):
        assert paths.resource_of(path) is resource


documents_ = st.recursive(
    st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
mappings = st.dictionaries(st.sampled_from("abc"), documents_, max_size=3)


def merged(target, patch):
    """RFC 7386, section 2."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


@given(mappings, mappings)
def test_a_merge_patch_turns_one_document_into_the_other(old, new):
    assert merged(old, merge_patch(old, new)) == new


@given(mappings)
def test_equal_documents_need_no_patch(body):
    assert merge_patch(body, body) == {}


def test_a_field_that_the_new_status_lacks_is_removed():
    stage = documents.parse(SFTStage, stage_body(status={"retryTime": "2026-03-14T09:26:53Z", "failures": 1}))
    new = stage.status.model_copy(update={"retry_time": None})
    assert documents.status_patch(stage.status, new) == {"retryTime": None}


def test_a_status_field_that_is_absent_is_not_patched_because_it_is_set_to_none():
    old = documents.parse(SFTStage, stage_body(status={"failures": 1})).status
    assert documents.status_patch(old, old.model_copy(update={"retry_time": None})) == {}


def stage_body(**more):
    spec = {"model": {"base": "tiny"}, "data": {"path": "/data"}, "store": {"uri": "s3://b/w"}}
    return {
        "kind": "SFTStage",
        "metadata": {"name": "world-sft", "managedFields": [{}], "selfLink": "x"},
        "spec": spec,
    } | more


def test_metadata_that_a_cluster_adds_is_not_read():
    assert documents.parse(SFTStage, stage_body()).name == "world-sft"


def test_an_unreadable_object_is_named_with_its_field():
    body = stage_body()
    body["spec"]["backoffLimit"] = "few"
    with pytest.raises(Unreadable) as error:
        documents.parse(SFTStage, body)
    assert error.value.sentence.startswith("SFTStage: spec.backoffLimit: ")
    assert (error.value.kind, error.value.name) == ("SFTStage", "world-sft")
