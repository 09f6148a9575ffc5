"""Claims about lenient reading: what is wrong is dropped and reported, everything else is kept."""

import copy
import warnings
from datetime import UTC, datetime

import pytest

from gog_operator.api import conditions, lenient, objects
from gog_operator.api.meta import Condition, Reason
from gog_operator.api.objects import SFTStage
from gog_operator.cluster import documents

READY = {
    "type": "Ready",
    "status": "True",
    "reason": "Running",
    "message": "step 3",
    "observedGeneration": 1,
    "lastTransitionTime": "2026-01-01T00:00:00Z",
}
SPEC = {"model": {"base": "tiny"}, "data": {"uri": "s3://b/d"}, "store": {"uri": "s3://b/p"}}


def stage(spec=None, **status):
    return {
        "apiVersion": "gog.dev/v1alpha1",
        "kind": "SFTStage",
        "metadata": {"name": "world-sft", "uid": "u"},
        "spec": spec or SPEC,
        "status": {"conditions": [READY], **status},
    }


def read(document):
    """The object and its problems; the document stays as it was."""
    before = copy.deepcopy(document)
    found = lenient.read(document)
    assert document == before
    return found


def test_an_object_of_this_version_is_read_as_the_strict_reader_reads_it():
    document = stage(attempt=2)
    assert read(document) == (objects.parse(document), ())


def test_a_reason_of_a_newer_version_is_kept_with_its_condition():
    thing, problems = read(stage(conditions=[READY | {"reason": "WaitingForQuota"}]))
    ready = thing.condition("Ready")
    assert problems == ()
    assert (ready.status, ready.reason, ready.message) == ("True", "WaitingForQuota", "step 3")
    assert objects.document(thing)["status"]["conditions"][0]["reason"] == "WaitingForQuota"


def test_a_condition_type_of_a_newer_version_is_kept_and_has_no_effect():
    newer = READY | {"type": "example.com/Degraded"}
    thing, problems = read(stage(conditions=[READY, newer]))
    assert problems == () and thing.holds("Ready") and not thing.finished
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert objects.document(thing)["status"]["conditions"] == [READY, newer]


def test_a_patch_of_the_status_keeps_a_condition_type_of_a_newer_version():
    newer = READY | {"type": "Degraded"}
    thing = documents.parse(SFTStage, stage(conditions=[newer, READY]))
    now = datetime(2026, 1, 2, tzinfo=UTC)
    changed = conditions.put(thing.status.conditions, "Ready", False, Reason.RETRYING, now=now)
    patch = documents.status_patch(thing.status, thing.status.model_copy(update={"conditions": changed}))
    assert [each["type"] for each in patch["conditions"]] == ["Degraded", "Ready"]
    assert patch["conditions"][0] == newer


@pytest.mark.parametrize("word", ["", "two words", "<b>", "x" * 317, "/", 5, None, ["Ready"]])
def test_a_condition_whose_type_is_no_word_is_dropped_alone(word):
    thing, problems = read(stage(conditions=[READY | {"type": word}, READY]))
    assert all(each.startswith("status.conditions[0]") for each in problems)
    assert problems and [each.type for each in thing.status.conditions] == ["Ready"]


def test_the_vocabulary_of_condition_types_stays_closed_for_writing():
    with pytest.raises(ValueError):
        Condition.model_validate(READY | {"type": "Degraded"})


def test_the_vocabulary_of_reasons_stays_closed_for_writing():
    with pytest.raises(ValueError):
        Condition.model_validate(READY | {"reason": "WaitingForQuota"})
    read(stage(conditions=[READY | {"reason": "WaitingForQuota"}]))
    assert "WaitingForQuota" not in list(Reason)


@pytest.mark.parametrize("word", ["", "two words", "<b>", "x" * 2000, 5, None, ["Running"]])
def test_a_reason_that_is_no_word_is_dropped_and_its_condition_is_kept(word):
    thing, (problem,) = read(stage(conditions=[READY | {"reason": word}]))
    assert problem.startswith("status.conditions[0].reason: is ") and problem.endswith("; ignored")
    assert (thing.condition("Ready").reason, thing.holds("Ready")) == ("Unknown", True)


def test_fields_of_a_newer_version_are_ignored_without_a_problem():
    document = stage({**SPEC, "podTemplate": {}, "store": {"uri": "s3://b/p", "tier": 2}}, quota={"name": "x"})
    document["metadata"]["managedFields"] = [{}]
    document["status"]["conditions"] = [READY | {"severity": "Info"}]
    assert read(document) == (objects.parse(stage()), ())


def test_a_wrong_type_costs_one_field():
    thing, problems = read(stage({**SPEC, "learning_rate": "fast", "epochs": 5}, attempt="many", failures=1))
    assert set(problems) == {
        "spec.learning_rate: is 'fast', should be a number; ignored",
        "status.attempt: is 'many', should be a whole number; ignored",
    }
    assert (thing.spec.epochs, "learning_rate" in thing.spec.model_fields_set) == (5, False)
    assert (thing.status.attempt, thing.status.failures, thing.holds("Ready")) == (0, 1, True)


def test_an_item_of_a_list_is_dropped_without_its_neighbours():
    kept = [READY, READY | {"type": "Progressing"}, READY | {"type": "Complete"}]
    listed = [READY | {"type": "two words"}, kept[0], 5, kept[1], READY | {"status": "Maybe"}, kept[2]]
    thing, problems = read(stage(conditions=listed))
    assert [each.type for each in thing.status.conditions] == ["Ready", "Progressing", "Complete"]
    assert "status.conditions[2]: is 5, should be a mapping of fields; ignored" in problems


def test_a_part_that_lacks_a_required_field_is_dropped_whole():
    thing, problems = read(stage({**SPEC, "promoteTo": {"tier": 2}}))
    assert problems == ("spec.promoteTo: has no uri; ignored",)
    assert thing.spec.promote_to is None and thing.spec.store.uri == "s3://b/p"


def test_a_condition_without_reason_and_time_is_still_read():
    thing, problems = read(stage(conditions=[{"type": "Complete", "status": "True"}]))
    assert problems == () and thing.holds("Complete") and thing.finished


def test_a_spec_or_metadata_that_is_missing_leaves_the_state_readable():
    thing, problems = read({"kind": "SFTStage", "status": {"conditions": [READY]}})
    assert problems == () and isinstance(thing, SFTStage)
    assert (thing.name, thing.spec.model, thing.store_key, thing.holds("Ready")) == ("", None, "sft", True)
    assert thing.spec.model_dump(exclude_unset=True) == {}


def test_settings_that_contradict_each_other_are_dropped_and_the_state_is_kept():
    spec = {"role": "judge", "url": "http://judge", "backend": "world"}
    thing, (problem,) = read({"kind": "ToolServer", "spec": spec, "status": {"conditions": [READY]}})
    assert problem.startswith("spec: url names an existing server") and thing.holds("Ready")


@pytest.mark.parametrize("part", ["metadata", "spec", "status"])
@pytest.mark.parametrize("value", [None, 5, "text", [1], [[]]])
def test_a_part_of_another_type_costs_only_itself(part, value):
    thing, problems = read(stage() | {part: value})
    assert len(problems) == 1 and problems[0].startswith(f"{part}: is ")
    assert part == "status" or thing.holds("Ready")


@pytest.mark.parametrize("document", [None, 5, [], {}, {"kind": "Pod"}, {"kind": ["SFTStage"]}, {"kind": None}])
def test_what_is_no_custom_resource_of_gog_is_no_object(document):
    thing, (problem,) = read(document)
    assert thing is None and problem.startswith("kind ")


def nested(depth):
    value = {}
    for _ in range(depth):
        value = {"a": value}
    return value


def test_hostile_depth_is_cut():
    document = stage(progress={"step": 3, "metrics": {"deep": nested(100_000)}})
    thing, (problem,) = lenient.read(document)
    assert "nested too deeply" in problem
    assert thing.status.progress.step == 3 and thing.model_dump(mode="json")


def test_a_number_that_python_refuses_to_print_is_dropped():
    thing, problems = read(stage(attempt=2**100_000))
    assert "status.attempt: has a number of more than 64 bits, a part of it is ignored" in problems
    assert thing.status.attempt == 0 and thing.holds("Ready")


def test_what_cannot_be_encoded_is_replaced():
    thing, problems = read(stage(conditions=[READY | {"message": "a\ud800b"}], checkpoint=["\ud800"], **{"\ud800": 1}))
    assert thing.condition("Ready").message == "a?b" and "".join(problems).encode()


def test_aliases_that_expand_without_end_are_refused():
    value = ["x"] * 10
    for _ in range(9):
        value = [value] * 10
    thing, problems = lenient.read(stage(conditions=value))
    assert (thing, problems) == (None, ("has more than 100,000 values",))


def test_the_number_of_sentences_is_bounded():
    thing, problems = read(stage(conditions=[5] * 1000))
    assert len(problems) == lenient.MOST_PROBLEMS + 1 and problems[-1] == "980 more parts are ignored"
    assert thing.status.conditions == ()


# ---- the operator


def test_the_operator_keeps_working_on_an_object_with_a_newer_status():
    ready = READY | {"reason": "WaitingForQuota", "severity": "Info"}
    thing = documents.parse(SFTStage, stage(conditions=[ready], attempt=2, quota={}))
    assert (thing.status.attempt, thing.condition("Ready").reason) == (2, "WaitingForQuota")


def test_the_operator_leaves_newer_fields_of_status_alone():
    thing = documents.parse(SFTStage, stage(attempt=2, quota={"name": "x"}))
    patch = documents.status_patch(thing.status, thing.status.model_copy(update={"attempt": 3}))
    assert patch == {"attempt": 3}


@pytest.mark.parametrize(
    "document",
    [stage({**SPEC, "backoffLimit": "few"}), stage(attempt="many"), stage({**SPEC, "model": {}}, quota={})],
)
def test_the_operator_refuses_values_that_it_does_not_understand(document):
    with pytest.raises(documents.Unreadable):
        documents.parse(SFTStage, document)
