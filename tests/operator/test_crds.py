"""The CustomResourceDefinitions: the models in the form that Kubernetes accepts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import yaml
from pydantic import BaseModel, Field

from gog.spec import STAGES, Gaze, Level, Quantity
from gog.spec.base import QUANTITY, yaml_reading
from gog_console import cli
from gog_operator.api import crd_columns, crd_reference, crd_schema, crds, names, resizing
from gog_operator.api import rules as table
from gog_operator.api.meta import MESSAGE_LENGTH, Condition, Reason
from gog_operator.api.objects import KINDS
from gog_operator.api.presets import ALL_KINDS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "manifests/crds"
ALL = {each["spec"]["names"]["kind"]: each for each in crds.all_of_them()}
ONE_OF = ("data.world", "data.path", "data.uri", "resourceClaimName", "resourceClaimTemplateName")
"""Fields of which exactly one must be given: none has a default."""


def schema(kind: str) -> dict[str, Any]:
    return ALL[kind]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def nodes(node: dict[str, Any], path: str = "", required: bool = True):
    """Every schema in a schema: its path, whether it must be given, itself."""
    yield path, required, node
    for name, each in node.get("properties", {}).items():
        yield from nodes(each, f"{path}.{name}".lstrip("."), name in node.get("required", ()))
    if "items" in node:
        yield from nodes(node["items"], f"{path}[]")
    if isinstance(node.get("additionalProperties"), dict):
        yield from nodes(node["additionalProperties"], f"{path}.*")


def test_the_committed_definitions_are_generated_from_the_models():
    made = {crds.file_name(each): crds.text(each) for each in ALL.values()}
    assert {path.name: path.read_text(encoding="utf-8") for path in FOLDER.iterdir()} == made, "run: make manifests"


def test_the_committed_reference_is_generated_from_the_models():
    written = (ROOT / "docs/reference.md").read_text(encoding="utf-8")
    assert written == crd_reference.page(), "run: make docs"
    missing = [
        path
        for kind in KINDS
        for path, _, _ in nodes(schema(kind)["properties"]["spec"])
        if path and is_field(path) and f"`{path.split('.')[-1]}`" not in written
    ]
    assert missing == []


def test_every_kind_has_one_definition():
    assert list(ALL) == list(ALL_KINDS)
    assert len({crds.file_name(each) for each in ALL.values()}) == len(ALL_KINDS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", ["spec", "status"])
def test_every_field_is_described(kind, part):
    undescribed = [
        path for path, _, node in nodes(schema(kind)["properties"][part]) if is_field(path) and description(node) == ""
    ]
    assert schema(kind)["description"].endswith(".") and undescribed == []


def is_field(path: str) -> bool:
    return not path.endswith(("[]", ".*"))


def description(node: dict[str, Any]) -> str:
    text = node.get("description", "")
    return text if text.endswith((".", ")", "]")) else ""


@pytest.mark.parametrize("kind", KINDS)
def test_every_optional_field_documents_its_default(kind):
    undescribed = [
        path
        for path, required, node in nodes(schema(kind)["properties"]["spec"])
        if is_field(path) and not required and node.get("type") != "object" and not path.endswith(ONE_OF)
        if "Default" not in node["description"]
    ]
    assert undescribed == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", ["spec", "status"])
def test_every_text_list_and_map_is_bounded(kind, part):
    assert [path for path, _, node in nodes(schema(kind)["properties"][part]) if unbounded(node)] == []


def unbounded(node: dict[str, Any]) -> bool:
    type_ = node.get("type")
    if type_ == "string":
        return not node.keys() & {"maxLength", "enum", "format"}
    if type_ == "array":
        return "maxItems" not in node
    open_ended = "additionalProperties" in node or "x-kubernetes-preserve-unknown-fields" in node
    return type_ == "object" and open_ended and "maxProperties" not in node


@pytest.mark.parametrize("kind", KINDS)
def test_the_api_server_fills_in_no_default_that_a_preset_may_override(kind):
    filled = {path for path, _, node in nodes(schema(kind)) if "default" in node}
    assert filled == (
        {"spec.suspend", "spec.replicas"} if kind == "ToolServer" else {"spec.suspend", "spec.backoffLimit"}
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_column_and_subresource_reads_an_existing_field(kind):
    version = ALL[kind]["spec"]["versions"][0]
    paths = [column["jsonPath"] for column in version["additionalPrinterColumns"]]
    paths += version["subresources"].get("scale", {}).values()
    there = {f".{path}" for path, _, _ in nodes(schema(kind))}
    plain = [re.sub(r"\[\?\(.*\)\]", "[]", path) for path in paths]
    assert [path for path in plain if path not in there | {".metadata.creationTimestamp"}] == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_is_changeable_or_has_a_rule_against_changes(kind):
    spec = schema(kind)["properties"]["spec"]
    changeable = crds.traits(KINDS[kind]).changeable
    guarded = {each.get("fieldPath", "")[1:] for each in spec["x-kubernetes-validations"] if "oldSelf" in each["rule"]}
    typed = {name for name, each in spec["properties"].items() if "type" in each}
    resized = {resizing.SECTIONS} if kind == "GoGRun" else set()  # of which the workers may change only
    assert set(changeable) <= typed and guarded - {""} == typed - set(changeable) | resized
    assert ("" in guarded) == (typed != set(spec["properties"]))


def test_the_longest_names_leave_room_for_those_of_children():
    limits = {kind: re.search("size\\(\\) <= ([0-9]+)", rules(schema(kind))[0]["rule"])[1] for kind in KINDS}
    assert {kind: int(limit) for kind, limit in limits.items()} == {kind: names.longest(kind) for kind in KINDS}
    assert names.longest("SFTStage") == names.LIMIT and names.longest("ToolServer") == names.SERVICE_LIMIT


def test_every_rule_belongs_to_a_class_that_is_embedded():
    written = {rule["rule"] for kind in KINDS for _, _, node in nodes(schema(kind)) for rule in rules(node)}
    assert [name for name, made in table.RULES.items() if not {each.rule for each in made} <= written] == []


def rules(node: dict[str, Any]) -> list[dict[str, str]]:
    return node.get("x-kubernetes-validations", [])


@pytest.mark.parametrize("kind", KINDS)
def test_every_word_that_yaml_reads_as_another_type_is_accepted_as_that_type(kind):
    """kubectl turns a bare `off` into false, a bare `429` into a number, before the API server sees them."""
    unreadable = [
        (path, word)
        for path, _, node in nodes(schema(kind)["properties"]["spec"])
        for word in node.get("enum", ())
        if isinstance(word, str) and (reading := yaml_reading(word)) is not None
        if not any(type(each) is type(reading) and each == reading for each in node["enum"])
    ]
    assert unreadable == []


def test_reasons_and_types_of_conditions_may_be_added_later():
    condition = schema("GoGRun")["properties"]["status"]["properties"]["conditions"]["items"]["properties"]
    assert "enum" not in condition["reason"] and "enum" not in condition["type"]


def test_a_message_that_is_too_long_is_cut_and_not_refused():
    made = Condition.model_validate(
        {"type": "Failed", "status": "True", "reason": Reason.COMPLETE, "lastTransitionTime": "2026-01-01T00:00:00Z"}
        | {"message": "x" * (MESSAGE_LENGTH + 1)}
    )
    assert len(made.message) == MESSAGE_LENGTH and made.message.endswith("x…")


class Inner(BaseModel):
    """Inside."""

    text: str | None = Field(None, max_length=5, description="Some text.")


class Open(BaseModel):
    value: Any


FORMS: dict[str, tuple[Any, dict[str, Any]]] = {
    "may be left out": (str | None, {"type": "string"}),
    "one value": (Literal["a"], {"type": "string", "enum": ["a"]}),
    "more than": (Annotated[float, Field(gt=0)], {"type": "number", "minimum": 0, "exclusiveMinimum": True}),
    "less than": (Annotated[float, Field(lt=1)], {"type": "number", "maximum": 1, "exclusiveMaximum": True}),
    "anything": (
        dict[str, Any],
        {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    ),
    "a map": (
        dict[Annotated[str, Field(max_length=9)], int],
        {
            "type": "object",
            "additionalProperties": {"type": "integer"},
            "x-kubernetes-validations": [
                {"rule": "self.all(key, key.size() <= 9)", "message": "a key should be at most 9 characters"}
            ],
        },
    ),
    "two numbers": (
        tuple[float, float],
        {"type": "array", "minItems": 2, "maxItems": 2, "items": {"type": "number"}},
    ),
    "a number or text": (
        Quantity,
        {
            "x-kubernetes-int-or-string": True,
            "maxLength": 32,
            "minimum": 0,
            "pattern": QUANTITY,
        },
    ),
    "a level": (Level, {"x-kubernetes-int-or-string": True, "enum": ["easy", "1", "2", 1, 2]}),
    "off": (Gaze, {"x-kubernetes-preserve-unknown-fields": True, "enum": ["select", "direct", "off", False]}),
    "another model": (
        Inner,
        {
            "description": "Inside.",
            "type": "object",
            "properties": {"text": {"description": "Some text.", "type": "string", "maxLength": 5}},
        },
    ),
    "an address": (
        Annotated[str, Field(pattern="^https?://[^@?#]+$", max_length=9)],
        {
            "type": "string",
            "maxLength": 9,
            "x-kubernetes-validations": [
                {
                    "rule": "self.matches('^https?://[^@?#]+$')",
                    "message": "should be an address that starts with http:// or https://, without user, password and query",
                }
            ],
        },
    ),
}


@pytest.mark.parametrize(("annotation", "form"), FORMS.values(), ids=FORMS.keys())
def test_a_type_becomes_a_structural_schema(annotation, form):
    assert crd_schema.of(holder(annotation))["properties"]["value"] == form


def holder(annotation: Any) -> type[BaseModel]:
    return type("Holder", (BaseModel,), {"__annotations__": {"value": annotation}, "__module__": __name__})


IMPOSSIBLE = {
    "union": (int | list[str], "Holder.value: a structural schema cannot express a union of 2 types"),
    "items of different types": (
        tuple[int, str],
        "Holder.value: a structural schema cannot express items of different types",
    ),
    "values of odd types": (Literal["a", 1, None], "Holder.value: a structural schema cannot express values"),
    "keyword": (
        Annotated[int, Field(multiple_of=2)],
        "Holder.value: a structural schema cannot express multipleOf",
    ),
    "anything at all": (Any, "Holder.value: has no type"),
}


@pytest.mark.parametrize(("annotation", "sentence"), IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
def test_a_construct_without_a_structural_schema_is_an_error_at_generation(annotation, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        crd_schema.of(holder(annotation))


def test_a_default_is_documented_once_and_not_part_of_the_schema():
    grpo = schema("GoGRun")["properties"]["spec"]["properties"]["stages"]["properties"]["grpo"]["properties"]
    assert grpo["learningRate"] == {
        "description": "Learning rate after the warm-up [paper: 2e-6]. Default: 2e-06, or the model family's preset.",
        "type": "number",
        "minimum": 0,
        "exclusiveMinimum": True,
    }
    for kind in KINDS:
        assert [path for path, _, node in nodes(schema(kind)) if node.get("description", "").count("Default") > 1] == []


def test_kinds_have_short_names():
    for kind in KINDS:
        assert ALL[kind]["spec"]["names"]["plural"] == f"{kind.lower()}s"
        assert ALL[kind]["spec"]["names"]["categories"] == ["gog"]
    shorts = [crd_columns.NAMES[kind].short for kind in KINDS]
    assert shorts == ["gr", *STAGES, "gts"]


def test_gog_crds_prints_or_writes_the_definitions(tmp_path, capsys):
    assert cli.main(["crds"]) == cli.COMPLETE
    printed = list(yaml.safe_load_all(capsys.readouterr().out))
    assert printed == list(ALL.values())
    assert cli.main(["crds", "--dir", str(tmp_path / "new")]) == cli.COMPLETE
    assert len(list((tmp_path / "new").iterdir())) == len(ALL_KINDS)


def test_a_folder_that_cannot_be_written_is_named(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert cli.main(["crds", "--dir", str(tmp_path / "file")]) == cli.INVALID
    assert capsys.readouterr().err == f"gog: {tmp_path / 'file'}: cannot be written: File exists\n"


def test_a_preset_is_cluster_scoped_has_no_status_and_may_change():
    made = ALL["GoGRuntime"]["spec"]
    assert made["scope"] == "Cluster" and "subresources" not in made["versions"][0]
    assert "status" not in schema("GoGRuntime")["properties"]
    assert not [rule for rule in rules(schema("GoGRuntime")["properties"]["spec"]) if "oldSelf" in rule["rule"]]


def test_every_field_of_a_preset_is_described_and_bounded():
    spec = schema("GoGRuntime")["properties"]["spec"]
    assert [path for path, _, node in nodes(spec) if is_field(path) and description(node) == "" and path] == []
    assert [path for path, _, node in nodes(spec) if unbounded(node)] == []
