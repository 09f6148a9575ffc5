"""A manifest is read, or refused in one sentence: where, what, and what was probably meant."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from gog.errors import UserError
from gog_operator.api import arms, manifest, objects, yaml_reader

ROOT = Path(__file__).parents[2]
HEAD = "apiVersion: gog.dev/v1alpha1\nkind: GoGRun\nmetadata: {name: w}\n"
LEAST = HEAD + "spec:\n  model: {base: tiny}\n  data: {world: {}}\n"


def read(text, sets=()):
    return manifest.check(yaml_reader.mapping(text, where="w.yaml"), where="w.yaml", sets=sets)


def refusal(text, sets=()):
    with pytest.raises(UserError) as caught:
        read(text, sets)
    return str(caught.value)


def test_a_manifest_needs_only_a_model_and_a_dataset():
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
    "field unlike any other": (
        "  store: {zzz: 1, uri: 'file:///s'}",
        "w.yaml: spec.store.zzz: unknown field (known: uri, secretName, readerSecretName, endpointUrl, region, pathStyle, "
        "caBundle, kmsKeyId)",
    ),
    "text for a number": (
        "  stages: {sft: {learningRate: fast}}",
        "w.yaml: spec.stages.sft.learningRate: is 'fast', should be a number",
    ),
    "out of range": (
        "  stages: {grpo: {groupSize: 1}}",
        "w.yaml: spec.stages.grpo.groupSize: is 1, should be at least 2",
    ),
    "word outside the enumeration": (
        "  stages: {grpo: {gaze: maybe}}",
        "w.yaml: spec.stages.grpo.gaze: is 'maybe', should be one of select, direct, off",
    ),
    "one item of a list": (
        "  stages: {grpo: {levels: [1, 3]}}",
        "w.yaml: spec.stages.grpo.levels[1]: is 3, should be one of easy, 1, 2",
    ),
    "list for a mapping": (
        "  stages: [sft]",
        "w.yaml: spec.stages: is a list, should be a mapping of fields",
    ),
    "URL for a mapping": (
        "  endpoints: {judge: https://judge.internal/v1}",
        "w.yaml: spec.endpoints.judge: is 'https://judge.internal/v1', should be a mapping of fields "
        '(write judge: {url: "https://judge.internal/v1"})',
    ),
    "back end for a mapping": (
        "  endpoints: {imageSearch: my.search:index}",
        "w.yaml: spec.endpoints.imageSearch: is 'my.search:index', should be a mapping of fields "
        '(write imageSearch: {backend: "my.search:index"})',
    ),
    "text that is not a URL": (
        "  endpoints: {judge: {url: judge.internal}}",
        "w.yaml: spec.endpoints.judge.url: is 'judge.internal', should be an address that starts with http:// or https://, "
        "without user, password and query",
    ),
    "two problems at once": (
        "  seed: -1\n  suspend: often",
        "w.yaml: 2 problems\n  spec.seed: is -1, should be at least 0\n  spec.suspend: is 'often', should be true or false",
    ),
    "cache mode without a file": (
        "  tools: {cache: {mode: record}}",
        "w.yaml: spec.tools.cache: mode record needs a path",
    ),
    "url of a server and settings for one to start": (
        "  endpoints: {judge: {url: 'http://j', backend: world}}",
        "w.yaml: spec.endpoints.judge: url names an existing server, backend configures one that gog starts: leave one of them out",
    ),
    "lower bound above the upper bound": (
        "  stages: {stratify: {level1: [0.6, 0.5]}}",
        "w.yaml: spec.stages.stratify: level1 is [lowest, highest], not [0.6, 0.5]: swap the two",
    ),
    "key twice": (
        "  seed: 1\n  seed: 2",
        "w.yaml: line 8: the key seed occurs twice",
    ),
    "tab": (
        "\tseed: 1",
        "w.yaml: line 7: not valid YAML: found character '\\t' that cannot start any token (indent with spaces, not tabs)",
    ),
    "stage without the checkpoint that it starts from": (
        "  stages: {skip: [sft]}",
        "w.yaml: spec.stages.skip: sft is skipped, but stratify starts from its checkpoint "
        "(skip stratify too, or name a spec.store that holds the checkpoint)",
    ),
    "every stage skipped": (
        "  stages: {skip: [curate, sft, stratify, grpo, evaluate]}",
        "w.yaml: spec.stages.skip: every stage is skipped: keep at least one",
    ),
    "number in quotes": (
        "  seed: '5'",
        "w.yaml: spec.seed: is '5', should be a whole number (remove the quotes)",
    ),
    "boolean in quotes": (
        "  suspend: 'false'",
        "w.yaml: spec.suspend: is 'false', should be true or false (remove the quotes)",
    ),
    "text without quotes": (
        "  store: {uri: s3://b/p, region: no}",
        "w.yaml: spec.store.region: is false, should be text (write it in quotes)",
    ),
    "snake_case key": (
        "  backoff_limit: 1",
        "w.yaml: spec.backoff_limit: unknown field (did you mean backoffLimit?)",
    ),
    "fraction for a quantity": (
        "  stages: {grpo: {workers: {cpu: 1.5}}}",
        "w.yaml: spec.stages.grpo.workers.cpu: is 1.5, should be text (write it in quotes)",
    ),
    "quantity with a unit that Kubernetes does not know": (
        "  stages: {grpo: {workers: {memory: 4GB}}}",
        "w.yaml: spec.stages.grpo.workers.memory: is '4GB', should be a quantity as Kubernetes writes it, "
        "such as 2, 500m or 4Gi",
    ),
    "word that YAML reads as true": (
        "  stages: {grpo: {gaze: yes}}",
        "w.yaml: spec.stages.grpo.gaze: is true, should be one of select, direct, off "
        "(YAML reads words such as on and yes as true: write it in quotes)",
    ),
    "integer that 64 bits cannot hold": (
        "  seed: 99999999999999999999",
        "w.yaml: spec.seed: is 1e+20, should be a whole number",
    ),
    "toleration that compares nothing": (
        "  scheduling: {tolerations: [{key: gpu, operator: Exists, value: 'yes'}]}",
        "w.yaml: spec.scheduling.tolerations[0].value: operator Exists compares no value: remove value",
    ),
    "promotion into the run's own store": (
        "  store: {uri: s3://b/p}\n  promoteTo: {uri: s3://b/p}",
        "w.yaml: spec.promoteTo: is the run's own store: name another bucket or prefix, or remove promoteTo",
    ),
    "arm with a misspelt path": (
        "  arms: [{name: a, set: {stages.grpo.gase: 'off'}}]",
        "w.yaml: spec.arms: arm a: stages.grpo.gase: unknown field (did you mean gaze?)",
    ),
    "arm that changes a shared field": (
        "  arms: [{name: a, set: {data.path: /x}}]",
        "w.yaml: spec.arms: arm a: cannot change 'data.path' (an arm may change stages, tools, model, seed)",
    ),
    "arm that breaks a rule about several fields": (
        "  endpoints: {policy: {url: 'http://v'}}\n  stages: {grpo: {engine: vllm}}\n"
        "  arms: [{name: a, set: {stages.grpo.deterministic: true}}]",
        "w.yaml: spec.arms: arm a: stages.grpo.deterministic: vLLM repeats no result bit for bit: remove deterministic, or "
        "sample with engine: transformers",
    ),
    "arm with a number in quotes": (
        "  arms: [{name: a, set: {seed: '5'}}]",
        "w.yaml: spec.arms: arm a: seed: is '5', should be a whole number (remove the quotes)",
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
def test_a_broken_field_is_refused_with_its_path_the_fault_and_the_remedy(extra, sentence):
    assert refusal(LEAST + extra) == sentence


DOCUMENTS = {
    "empty": ("", "w.yaml: is empty (start from examples/world.yaml)"),
    "only comments": ("# nothing\n", "w.yaml: is empty (start from examples/world.yaml)"),
    "several documents": (LEAST + "---\n" + LEAST, "w.yaml: has 2 documents (write one object per file)"),
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
        "w.yaml: apiVersion: is 'gog.dev/v1' (write gog.dev/v1alpha1)",
    ),
    "no version": (LEAST.partition("\n")[2], "w.yaml: apiVersion: missing (write gog.dev/v1alpha1)"),
    "another kind": (LEAST.replace("GoGRun", "GogRun"), "w.yaml: kind: is 'GogRun' (did you mean GoGRun?)"),
    "no kind": (LEAST.replace("kind: GoGRun\n", ""), "w.yaml: kind: missing (write GoGRun)"),
    "no name": (
        LEAST.replace("{name: w}", "{}"),
        "w.yaml: metadata.name: missing (it names the run and its folder)",
    ),
    "name too long": (
        LEAST.replace("name: w", f"name: {'w' * 41}"),
        f"w.yaml: metadata.name: is '{'w' * 41}', should be at most 40 characters",
    ),
    "name that is a number": (
        LEAST.replace("name: w", "name: 7"),
        "w.yaml: metadata.name: is 7, should be text (write it in quotes)",
    ),
    "name with a trailing hyphen": (
        LEAST.replace("name: w", "name: w-"),
        "w.yaml: metadata.name: is 'w-', should be lower-case letters, digits and hyphens, the first a letter, "
        "the last no hyphen",
    ),
    "prefix of a name too long": (
        LEAST.replace("name: w", f"generateName: {'w' * 36}"),
        f"w.yaml: metadata.generateName: is '{'w' * 36}', should be at most 35 characters",
    ),
    "label with a space": (
        LEAST.replace("{name: w}", "{name: w, labels: {team: a b}}"),
        "w.yaml: metadata.labels.team: 'a b' is not a label value "
        "(at most 63 letters, digits, '-', '_', '.', a letter or digit first and last)",
    ),
    "finalizer that is not a name": (
        LEAST.replace("{name: w}", "{name: w, finalizers: [x/]}"),
        "w.yaml: metadata.finalizers: 'x/' is not a qualified name "
        "(write NAME or DOMAIN/NAME, a name of at most 63 letters, digits, '-', '_', '.')",
    ),
    "metadata that is text": (
        LEAST.replace("{name: w}", "w"),
        "w.yaml: metadata: is 'w', should be a mapping of fields",
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
    "name of a model for a mapping": (
        HEAD + "spec: {model: tiny, data: {world: {}}}",
        "w.yaml: spec.model: is 'tiny', should be a mapping of fields (write model: {base: \"tiny\"})",
    ),
    "folder for a mapping": (
        HEAD + "spec: {model: {base: tiny}, data: ./questions}",
        "w.yaml: spec.data: is './questions', should be a mapping of fields (write data: {path: \"./questions\"})",
    ),
    "two sources of data": (
        HEAD + "spec: {model: {base: tiny}, data: {world: {}, path: /x}}",
        "w.yaml: spec.data: give exactly one of world, path, uri (given: world, path)",
    ),
}


@pytest.mark.parametrize(("text", "sentence"), DOCUMENTS.values(), ids=DOCUMENTS.keys())
def test_a_broken_document_is_refused_with_its_path_the_fault_and_the_remedy(text, sentence):
    assert refusal(text) == sentence


def test_a_single_stage_is_a_manifest_too():
    text = LEAST.replace("GoGRun", "SFTStage") + "  store: {uri: 'file:///s'}\n  epochs: 2\n"
    assert (read(text).stage, read(text).spec.epochs) == ("sft", 2)
    assert refusal(text.replace("epochs", "steps")) == ("w.yaml: spec.steps: unknown field (did you mean maxSteps?)")


def test_a_status_in_a_manifest_is_dropped():
    assert read(LEAST + "status: {stage: sft}").status.stage == ""


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("stages.sft.learningRate=1e-3", 1e-3),
        ("stages.sft.learning_rate=0.001", 1e-3),
        ("spec.stages.sft.learningRate=0.001", 1e-3),
    ],
)
def test_set_accepts_camel_case_and_snake_case(assignment, value):
    assert read(LEAST, [assignment]).spec.stages.sft.learning_rate == value


def test_set_overrides_the_file():
    text = LEAST + "  stages: {sft: {learningRate: 1.0}}"
    assert read(text, ["stages.sft.learning_rate=2.0"]).spec.stages.sft.learning_rate == 2.0


def test_set_to_null_removes_a_field():
    assert read(LEAST + "  store: {uri: s3://b/p}", ["store=null"]).spec.store is None


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
def test_set_refuses_an_unknown_path(assignment, sentence):
    assert refusal(LEAST + "  arms: []", [assignment]).startswith(sentence)


def test_an_object_that_is_written_and_read_again_is_equal_and_gains_no_field():
    run = read(LEAST + "  stages: {grpo: {optimizer: {_component_: torch.optim.SGD}}}")
    again = objects.parse(objects.document(run))
    assert again == run and again.spec.model_fields_set == run.spec.model_fields_set
    assert objects.document(run)["spec"]["stages"] == {"grpo": {"optimizer": {"_component_": "torch.optim.SGD"}}}


def test_a_field_that_is_null_counts_as_absent():
    run = read(LEAST + "  images:\n  seed:\n  stages: {sft: {epochs: }}\n")
    assert not run.spec.model_fields_set & {"images", "seed"}
    assert not run.spec.stages.sft.model_fields_set


def test_an_arm_sets_null_to_return_to_the_default():
    run = read(LEAST + "  seed: 5\n  arms: [{name: a, set: {seed: null}}]\n")
    assert arms.spec_of(run.spec, run.spec.arms[0]).seed == 0


@pytest.mark.parametrize("word", ["off", "'off'", "false", "no"])
def test_off_needs_no_quotes(word):
    run = read(LEAST + f"  tools: {{cache: {{mode: {word}}}}}\n  stages: {{grpo: {{gaze: {word}}}}}\n")
    assert (run.spec.tools.cache.mode, run.spec.stages.grpo.gaze) == ("off", "off")


def test_kubernetes_quantities_are_accepted_as_kubernetes_writes_them():
    for written, read_as in (("1e9", "1000000000"), ("2", "2"), ("'1.5'", "1.5"), ("100Ki", "100Ki"), ("'1e3'", "1e3")):
        run = read(LEAST + f"  stages: {{grpo: {{workers: {{memory: {written}}}}}}}\n")
        assert run.spec.stages.grpo.workers.memory == read_as


METADATA = """
  generateName: w-
  finalizers: [example.org/keep]
  ownerReferences: [{apiVersion: v1, kind: Pod, name: p, uid: u, blockOwnerDeletion: true}]
  creationTimestamp: 2026-01-01T00:00:00Z
  labels: {team: vision, empty: }
  resourceVersion: "7"
"""


def test_metadata_may_have_every_field_that_kubernetes_allows():
    text = LEAST.replace(" {name: w}", METADATA.rstrip())
    run = manifest.check(yaml_reader.mapping(text, where="w.yaml"), where="w.yaml", rng=random.Random(1))
    assert re.fullmatch("w-[a-z0-9]{5}", run.name) and run.metadata.labels == {"team": "vision", "empty": ""}
    assert (run.metadata.resource_version, run.metadata.owner_references) == ("", ())


@pytest.mark.parametrize(("kind", "longest"), [("GoGRun", 40), ("SFTStage", 42), ("ToolServer", 48)])
def test_each_kind_has_its_own_longest_name(kind, longest):
    spec = "  role: judge\n" if kind == "ToolServer" else LEAST.partition("spec:\n")[2] + "  store: {uri: 's3://s/p'}\n"
    text = HEAD.replace("GoGRun", kind) + "spec:\n" + spec
    assert read(text.replace("name: w", f"name: {'w' * longest}")).name == "w" * longest
    assert f"at most {longest} characters" in refusal(text.replace("name: w", f"name: {'w' * (longest + 1)}"))


def test_what_only_a_cluster_refuses_is_listed_and_not_an_error():
    text = LEAST.replace("world: {}", "path: /pool").replace("base: tiny", "base: models/mine")
    assert [each.sentence() for each in manifest.cluster_problems(read(text))] == [
        "spec.store: missing: on a cluster checkpoints are kept in S3, "
        "e.g. store: {uri: 's3://bucket/prefix', secretName: gog-s3}",
        "spec.model.base: should be tiny, an s3:// prefix, hf://org/name, a volume at pvc:// or oci://, or an absolute path "
        "inside the trainer image",
        "spec.data.path: a pod has no folder of your machine: publish the dataset with "
        "gog move push FOLDER s3://bucket/prefix, and write data: {uri: 's3://bucket/prefix'}",
    ]
    assert manifest.cluster_problems(read(LEAST + "  store: {uri: s3://b/p}\n")) == ()
