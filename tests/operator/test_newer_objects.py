"""Objects of a newer gog: an operator that was rolled back works with what it knows of them, and says what it ignores."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import yaml
from support.kube import ROOT, ApiServer
from support.operator_builders import NOW, make_stage, until
from support.remote_harness import STORE, Workplace

from gog_operator.api.objects import SFTStage, ToolServer, document
from gog_operator.cluster import documents, paths
from gog_operator.cluster.documents import Unreadable
from gog_operator.plan import kstatus

SPEC = {"model": {"base": "tiny"}, "data": {"uri": "s3://bucket/questions"}, "store": STORE}
CRD = ROOT / "manifests/crds/gog.dev_sftstages.yaml"


def body(kind="SFTStage", status=None, **spec):
    base = SPEC if kind == "SFTStage" else {}
    made = {"kind": kind, "metadata": {"name": "tune", "uid": "u"}, "spec": {**copy.deepcopy(base), **spec}}
    return made | ({"status": status} if status else {})


def test_an_unknown_field_of_a_spec_is_ignored_and_named():
    thing = documents.parse(SFTStage, body(teleport=True, model={"base": "tiny", "wings": {"left": 1}}))
    assert thing.ignored == ("spec.model.wings", "spec.teleport") and thing.spec.model.base == "tiny"


def test_an_unknown_word_of_an_enumeration_is_ignored_and_named_with_its_value():
    thing = documents.parse(SFTStage, body(model={"base": "tiny", "dtype": "float4"}))
    assert thing.ignored == ("spec.model.dtype='float4'",) and "dtype" not in thing.spec.model.model_fields_set


def test_an_unknown_word_of_a_required_field_is_reported_and_not_guessed():
    with pytest.raises(Unreadable, match=r"spec\.role"):
        documents.parse(ToolServer, body("ToolServer", role="oracle"))


def test_an_unknown_field_beside_a_wrong_value_is_reported():
    with pytest.raises(Unreadable, match=r"spec\.backoffLimit"):
        documents.parse(SFTStage, body(teleport=True, backoffLimit=-1))


def test_an_unknown_field_of_a_status_is_kept_by_every_patch_and_not_named():
    thing = documents.parse(SFTStage, body(status={"attempt": 2, "shards": [1, 2]}))
    assert thing.ignored == () and thing.status.attempt == 2
    changed = thing.status.model_copy(update={"attempt": 3})
    assert documents.status_patch(thing.status, changed) == {"attempt": 3}


def test_the_document_that_was_read_is_unchanged():
    given = body(teleport=True)
    documents.parse(SFTStage, given)
    assert given == body(teleport=True)


def test_the_condition_names_what_is_ignored_until_nothing_is():
    newer = make_stage().without(("spec.teleport",))
    status = kstatus.summarized(newer, newer.status, NOW)
    (ignored,) = [each for each in status.conditions if each.type == "FieldsIgnored"]
    assert (ignored.status, ignored.reason) == ("True", "UnknownFields") and "spec.teleport" in ignored.message
    known = make_stage(status={"conditions": status.conditions})
    assert "FieldsIgnored" not in [each.type for each in kstatus.summarized(known, known.status, NOW).conditions]


@pytest.fixture
def future(api_server: ApiServer) -> Iterator[ApiServer]:
    """The API server with the custom resource definition of a future gog: another field, and another type of weights."""
    present = yaml.safe_load(CRD.read_text())
    newer = copy.deepcopy(present)
    (version,) = newer["spec"]["versions"]
    properties = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    properties["teleport"] = {"type": "boolean"}
    properties["model"]["properties"]["dtype"]["enum"].append("float4")
    api_server.apply(newer)
    yield api_server
    api_server.apply(present)


@pytest.mark.apiserver
def test_an_operator_that_was_rolled_back_completes_a_newer_stage_and_says_what_it_ignored(future):
    place = Workplace(future)

    def accepted() -> bool:
        """A definition that was just applied is in force a moment later: until then, fields are pruned."""
        if "tune" in [each["metadata"]["name"] for each in place.stages()]:
            place.api.call("DELETE", paths.OURS["SFTStage"].path(place.namespace, "tune"))
        place.create("SFTStage", "tune", **SPEC | {"teleport": True, "model": {"base": "tiny", "dtype": "float4"}})
        return place.get("SFTStage", "tune")["spec"].get("teleport") is True

    until(accepted)
    place.until(lambda: place.condition("SFTStage", "tune", "Complete"))
    ignored = place.condition("SFTStage", "tune", "FieldsIgnored")
    assert "spec.model.dtype='float4', spec.teleport" in ignored["message"]
    spec = place.get("SFTStage", "tune")["spec"]
    assert (spec["teleport"], spec["model"]["dtype"]) == (True, "float4"), "the operator rewrites no spec"
    assert document(documents.parse(SFTStage, place.get("SFTStage", "tune")))["spec"].get("teleport") is None
