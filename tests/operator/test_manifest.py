"""A manifest is read, or refused with a sentence that says where, what, and what was probably meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from gog.errors import UserError
from gog_operator.api import manifest, objects

ROOT = Path(__file__).parents[2]
HEAD = "apiVersion: gog.dev/v1alpha1\nkind: GoGRun\nmetadata: {name: w}\n"
LEAST = HEAD + "spec:\n  model: {base: tiny}\n  data: {world: {}}\n"


def read(text, sets=()):
    return manifest.check(manifest.parse(text, where="w.yaml"), where="w.yaml", sets=sets)


def refusal(text, sets=()):
    with pytest.raises(UserError) as caught:
        read(text, sets)
    return str(caught.value)


def test_the_least_manifest_is_enough():
    run = read(LEAST)
    assert run.spec.stages.sft.epochs == 3 and "stages" not in run.spec.model_fields_set


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_is_valid(path):
    assert manifest.load(path).kind in objects.KINDS


BROKEN = {
    "misspelt field": (
        "  stages: {sft: {lerningRate: 1}}",
        "w.yaml: spec.stages.sft.lerningRate: unknown field (did you mean learningRate?)",
    ),
    "field nobody could have meant": (
        "  store: {zzz: 1, uri: 'file:///s'}",
        "w.yaml: spec.store.zzz: unknown field (known: uri, secretName, endpointUrl, region, pathStyle, caBundle, kmsKeyId)",
    ),
    "no number": (
        "  stages: {sft: {learningRate: fast}}",
        "w.yaml: spec.stages.sft.learningRate: is 'fast', should be a number",
    ),
    "out of range": (
        "  stages: {grpo: {groupSize: 1}}",
        "w.yaml: spec.stages.grpo.groupSize: is 1, should be at least 2",
    ),
    "no such choice": (
        "  stages: {grpo: {gaze: maybe}}",
        "w.yaml: spec.stages.grpo.gaze: is 'maybe', should be one of select, direct, off",
    ),
    "one item of a list": (
        "  stages: {grpo: {levels: [1, 3]}}",
        "w.yaml: spec.stages.grpo.levels[1]: is '3', should be one of easy, 1, 2",
    ),
    "list for a mapping": (
        "  stages: [sft]",
        "w.yaml: spec.stages: is a list, should be a mapping of fields",
    ),
    "no address": (
        "  endpoints: {judge: {url: judge.internal}}",
        "w.yaml: spec.endpoints.judge.url: is 'judge.internal', should be an address that starts with http:// or https://",
    ),
    "two at once": (
        "  seed: -1\n  suspend: often",
        "w.yaml: 2 problems\n  spec.seed: is -1, should be at least 0\n  spec.suspend: is 'often', should be true or false",
    ),
    "fields that contradict": (
        "  tools: {cache: {mode: record}}",
        "w.yaml: spec.tools.cache: mode record needs a path",
    ),
    "a server both given and to be started": (
        "  endpoints: {judge: {url: 'http://j', backend: world}}",
        "w.yaml: spec.endpoints.judge: url names an existing server, backend configures one that gog starts: leave one of them out",
    ),
    "a band upside down": (
        "  stages: {stratify: {level1: [0.6, 0.5]}}",
        "w.yaml: spec.stages.stratify: level1 is [lowest, highest], not [0.6, 0.5]: swap the two",
    ),
    "key twice": (
        "  seed: 1\n  seed: 2",
        "w.yaml: line 8: not valid YAML: seed is written twice",
    ),
    "tab": (
        "\tseed: 1",
        "w.yaml: line 7: not valid YAML: found character '\\t' that cannot start any token (indent with spaces, not tabs)",
    ),
    "stage without what it starts from": (
        "  stages: {skip: [sft]}",
        "w.yaml: spec.stages.skip: sft is skipped, but stratify starts from its checkpoint "
        "(skip stratify too, or name a spec.store that holds the checkpoint)",
    ),
    "nothing left to do": (
        "  stages: {skip: [curate, sft, stratify, grpo, evaluate]}",
        "w.yaml: spec.stages.skip: every stage is skipped (leave one in)",
    ),
    "arm with a misspelt path": (
        "  arms: [{name: a, set: {stages.grpo.gase: 'off'}}]",
        "w.yaml: spec.arms: arm a: stages.grpo.gase: unknown field (did you mean gaze?)",
    ),
    "arm that changes what is shared": (
        "  arms: [{name: a, set: {data.path: /x}}]",
        "w.yaml: spec.arms: arm a: cannot change 'data.path' (an arm may change stages, tools, model, seed)",
    ),
    "arm that changes nothing": (
        "  arms: [{name: a, set: {seed: 0}}]",
        "w.yaml: spec.arms: arm a: changes nothing (remove it)",
    ),
    "arms of one name": (
        "  arms: [{name: a, set: {seed: 1}}, {name: a, set: {seed: 2}}]",
        "w.yaml: spec.arms: two arms are called a (rename one)",
    ),
}


@pytest.mark.parametrize(("extra", "sentence"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_field_is_told_by_place_fault_and_remedy(extra, sentence):
    assert refusal(LEAST + extra) == sentence


DOCUMENTS = {
    "empty": ("", "w.yaml: is empty (start from examples/world.yaml)"),
    "only comments": ("# nothing\n", "w.yaml: is empty (start from examples/world.yaml)"),
    "several documents": (LEAST + "---\n" + LEAST, "w.yaml: holds 2 documents (one object a file)"),
    "no mapping": (
        "hello",
        "w.yaml: is 'hello', should be a mapping (a manifest starts with apiVersion: gog.dev/v1alpha1 and kind: GoGRun)",
    ),
    "unclosed": (
        LEAST + "  x: [",
        "w.yaml: line 7: not valid YAML: expected the node content, but found '<stream end>'",
    ),
    "another version": (
        LEAST.replace("v1alpha1", "v1"),
        "w.yaml: apiVersion: is gog.dev/v1 (write gog.dev/v1alpha1)",
    ),
    "no version": (LEAST.partition("\n")[2], "w.yaml: apiVersion: missing (write gog.dev/v1alpha1)"),
    "another kind": (LEAST.replace("GoGRun", "GogRun"), "w.yaml: kind: is 'GogRun' (did you mean GoGRun?)"),
    "no kind": (LEAST.replace("kind: GoGRun\n", ""), "w.yaml: kind: missing (write GoGRun)"),
    "no name": (
        LEAST.replace("{name: w}", "{}"),
        "w.yaml: metadata.name: missing (names the run and its folder)",
    ),
    "name too long": (
        LEAST.replace("name: w", f"name: {'w' * 41}"),
        f"w.yaml: metadata.name: is '{'w' * 41}', should be at most 40 characters",
    ),
    "name with capitals": (
        LEAST.replace("name: w", "name: World"),
        "w.yaml: metadata.name: is 'World', should be lower-case letters, digits and hyphens, "
        "the first a letter, the last no hyphen",
    ),
    "no spec": (HEAD, "w.yaml: spec: missing (e.g. spec: {model: {base: tiny}, data: {world: {}}})"),
    "no model": (
        HEAD + "spec: {data: {world: {}}}",
        "w.yaml: spec.model: missing (e.g. model: {base: tiny})",
    ),
    "two places of data": (
        HEAD + "spec: {model: {base: tiny}, data: {world: {}, path: /x}}",
        "w.yaml: spec.data: give exactly one of world, path, uri (given: world, path)",
    ),
}


@pytest.mark.parametrize(("text", "sentence"), DOCUMENTS.values(), ids=DOCUMENTS.keys())
def test_a_broken_document_is_told_by_place_fault_and_remedy(text, sentence):
    assert refusal(text) == sentence


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    for path, sentence in (
        (tmp_path / "none.yaml", "no such file (the path is relative to where gog is called)"),
        (tmp_path, "is a folder (name the manifest in it)"),
    ):
        with pytest.raises(UserError) as caught:
            manifest.load(path)
        assert str(caught.value) == f"{path}: {sentence}"
    (tmp_path / "image.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="is not UTF-8 text"):
        manifest.load(tmp_path / "image.yaml")


def test_a_single_stage_is_a_manifest_too():
    text = LEAST.replace("GoGRun", "SFTStage") + "  store: {uri: 'file:///s'}\n  epochs: 2\n"
    assert (read(text).stage, read(text).spec.epochs) == ("sft", 2)
    assert refusal(text.replace("epochs", "steps")) == ("w.yaml: spec.steps: unknown field (did you mean maxSteps?)")


def test_a_status_that_came_along_is_dropped():
    assert read(LEAST + "status: {stage: sft}").status.stage == ""


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("stages.sft.learningRate=1e-3", 1e-3),
        ("stages.sft.learning_rate=0.001", 1e-3),
        ("spec.stages.sft.learningRate=0.001", 1e-3),
    ],
)
def test_set_takes_either_spelling(assignment, value):
    assert read(LEAST, [assignment]).spec.stages.sft.learning_rate == value


def test_set_overrides_what_the_file_says_however_that_is_spelt():
    text = LEAST + "  stages: {sft: {learning_rate: 1.0}}"
    assert read(text, ["stages.sft.learningRate=2.0"]).spec.stages.sft.learning_rate == 2.0


def test_set_reads_values_as_yaml():
    run = read(LEAST, ["stages.grpo.levels=[1, 2]", "stages.grpo.gaze=off", "data={path: /x}", "metadata.name=v"])
    assert run.spec.stages.grpo.levels == ("1", "2") and run.spec.stages.grpo.gaze == "off"
    assert run.spec.data.path == "/x" and run.name == "v"


def test_set_reaches_into_lists():
    text = LEAST + "  arms: [{name: a, set: {seed: 1}}]"
    assert read(text, ["arms.0.name=b"]).spec.arms[0].name == "b"


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("stages.sft.lr=1", "w.yaml: spec.stages.sft.lr: unknown field (did you mean learningRate?)"),
        ("stage.sft.epochs=1", "w.yaml: spec.stage: unknown field (did you mean stages?)"),
        ("stages.sft.epochs", "--set: 'stages.sft.epochs' is not path=value (e.g. --set stages.grpo.steps=20)"),
        ("=1", "--set: '=1' is not path=value"),
        ("model.base.x=1", "--set: 'model.base.x' leads into the value 'tiny' at 'x' (check the path)"),
        ("arms.3.name=x", "--set: 'arms.3.name' leads into a list of 0 at '3' (check the path)"),
        ("seed=[", "--set: the value of seed is not YAML: '['"),
    ],
)
def test_set_refuses_a_path_that_is_not_there(assignment, sentence):
    assert refusal(LEAST + "  arms: []", [assignment]).startswith(sentence)


def test_an_object_written_and_read_again_is_the_same_and_keeps_what_was_left_out_left_out():
    run = read(LEAST + "  stages: {grpo: {optimizer: {_component_: torch.optim.SGD}}}")
    again = objects.parse(objects.document(run))
    assert again == run and again.spec.model_fields_set == run.spec.model_fields_set
    assert objects.document(run)["spec"]["stages"] == {"grpo": {"optimizer": {"_component_": "torch.optim.SGD"}}}


def test_demonstrations_of_ones_own_make_curation_skippable():
    skipping = "  stages: {skip: [curate], sft: {demonstrations: %s}}"
    assert read(LEAST + skipping % "mine.zip").spec.stages.skip == ("curate",)
    assert "curate is skipped, but sft starts from its checkpoint" in refusal(LEAST + skipping % "null")
