"""The CustomResourceDefinitions on a real API server: what it accepts, what it refuses and with which message, its columns."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.operator_builders import S3 as STORE
from support.operator_builders import for_cluster as made

from gog_operator.api import objects, overrides, sequence
from gog_operator.api.objects import KINDS, document
from gog_operator.build import children
from gog_operator.cluster import documents

pytestmark = pytest.mark.apiserver

SAMPLES = sorted((Path(__file__).parents[2] / "manifests/samples").glob("*.yaml"))


@pytest.fixture(scope="module")
def kubectl(api_server):
    """kubectl in a namespace of this module's own; text for `-f -` as input."""
    namespace = api_server.namespace("crds")
    return lambda *args, **more: api_server.kubectl("-n", namespace, *args, **more)


def refusal(kubectl, *args: str, body: dict[str, Any] | str = "") -> str:
    """kubectl's message when the API server refuses; fails if it does not."""
    text = body if isinstance(body, str) else yaml.safe_dump(body)
    output = kubectl(*args, input=text, check=False)
    assert "is invalid" in output, output
    return output


def stored(kubectl, kind: str, name: str) -> dict[str, Any]:
    return json.loads(kubectl("get", f"{kind.lower()}.gog.dev", name, "-o", "json"))


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.name)
def test_every_sample_is_accepted_and_read_back_unchanged(kubectl, sample):
    kubectl("apply", "--dry-run=server", "--validate=strict", "-f", sample)
    kubectl("create", "--validate=strict", "-f", sample)
    written = yaml.safe_load(sample.read_text())
    if written["kind"] not in KINDS:
        return
    read = stored(kubectl, written["kind"], written["metadata"]["name"])
    filled = {key: each for key, each in read["spec"].items() if key not in written["spec"]}
    assert filled.items() <= {"suspend": False, "backoffLimit": 3, "replicas": 1}.items()
    kind = KINDS[written["kind"]]
    again, meant = documents.parse(kind, read), kind.model_validate(written)
    assert again.spec == meant.spec and document(again)["spec"] == document(meant)["spec"] | filled


REFUSED = {
    "no store": (
        {"spec.store": None},
        "spec.store: Required value: missing: on a cluster checkpoints are kept in S3, "
        "e.g. store: {uri: 's3://bucket/prefix', secretName: gog-s3}",
    ),
    "store in a folder": (
        {"spec.store": {"uri": "file:///s"}},
        "spec.store.uri: Invalid value: should start with s3://, because pods share no folder: name a bucket",
    ),
    "store elsewhere": ({"spec.store": {"uri": "gs://b"}}, "spec.store.uri: Invalid value: should start with s3://"),
    "promoted into its own store": (
        {"spec.promoteTo": STORE},
        "spec.promoteTo: Invalid value: is the run's own store: name another bucket or prefix",
    ),
    "vLLM without a server": (
        {"spec.stages": {"grpo": {"engine": "vllm"}}},
        "spec.endpoints.policy: Required value: a stage with engine: vllm needs a server: url: http://…",
    ),
    "a vLLM of the tiny model": (
        {"spec.endpoints": {"policy": {"runtime": "vllm"}}},
        "spec.model.base: Invalid value: tiny is in the trainer image, which a vLLM does not have: name a base at hf://",
    ),
    "a judge run by vLLM without a model": (
        {"spec.endpoints": {"judge": {"runtime": "vllm"}}},
        "spec.endpoints.judge.base: Invalid value: base is the model of a judge with runtime: vllm: give both, or neither",
    ),
    "a folder outside of a claim": (
        {"spec.model": {"base": "pvc://models/../other"}},
        "spec.model.base: Invalid value: should be tiny, a folder, s3://bucket/prefix, file:///folder",
    ),
    "dataset in a folder": (
        {"spec.data": {"path": "/pool"}},
        "spec.data.path: Forbidden: a pod has no folder of your machine: publish the dataset with gog move push",
    ),
    "dataset in a folder, as an address": (
        {"spec.data": {"uri": "file:///pool"}},
        "spec.data.uri: Invalid value: should start with s3://, hf://datasets/, pvc:// or oci://, because a pod has no folder",
    ),
    "format of a dataset in a store": (
        {"spec.data": {"uri": "s3://b/p", "format": "gog-jsonl"}},
        "spec.data.format: Forbidden: a dataset in a store has gog's own format",
    ),
    "no dataset": ({"spec.data": {}}, "spec.data: Invalid value: give exactly one of world and uri"),
    "two datasets": (
        {"spec.data": {"world": {}, "uri": "s3://b/p"}},
        "spec.data: Invalid value: give exactly one of world and uri",
    ),
    "no model": ({"spec.model": None}, "spec.model: Required value"),
    "a model by its name on a hub": (
        {"spec.model": {"base": "Qwen/Qwen2.5-VL-7B-Instruct"}},
        "spec.model.base: Invalid value: should be tiny, an s3:// prefix, hf://org/name, a volume at pvc://",
    ),
    "demonstrations in a file of one's own": (
        {"spec.stages": {"sft": {"demonstrations": "mine.zip"}}},
        "spec.stages.sft.demonstrations: Invalid value: should be sample, or an absolute path",
    ),
    "samples at temperature 0": ({"spec.stages": {"evaluate": {"samples": 4}}}, "evaluate.temperature: Invalid value"),
    "two benchmarks of one name": (
        {"spec.stages": {"evaluate": {"benchmarks": [{"split": "a"}, {"split": "b", "name": "a"}]}}},
        "spec.stages.evaluate.benchmarks: Invalid value: two benchmarks have one name: give each a name of its own",
    ),
    "every stage skipped": (
        {"spec.stages": {"skip": ["curate", "sft", "stratify", "grpo", "evaluate"]}},
        "spec.stages.skip: Invalid value: every stage is skipped: keep at least one",
    ),
    "an unknown stage": (
        {"spec.stages": {"skip": ["rl"]}},
        'spec.stages.skip[0]: Unsupported value: "rl": supported values: "curate", "sft", "stratify", "grpo", "evaluate"',
    ),
    "cache without a file": (
        {"spec.tools": {"cache": {"mode": "record"}}},
        "spec.tools.cache.path: Required value",
    ),
    "a url and settings of a server to start": (
        {"spec.endpoints": {"judge": {"url": "http://j", "backend": "world"}}},
        "spec.endpoints.judge.url: Invalid value: url names an existing server",
    ),
    "text that is not a URL": (
        {"spec.endpoints": {"judge": {"url": "judge.internal"}}},
        'spec.endpoints.judge.url: Invalid value: "judge.internal": should be an address that starts with http:// or https://, '
        "without user, password and query",
    ),
    "lower bound above the upper bound": (
        {"spec.stages": {"stratify": {"level1": [0.6, 0.5]}}},
        "spec.stages.stratify.level1: Invalid value: is [lowest, highest]: swap the two",
    ),
    "too many updates": ({"spec.stages": {"grpo": {"updatesPerRollout": 33}}}, "grpo.updatesPerRollout: Invalid"),
    "one bound of two": (
        {"spec.stages": {"stratify": {"level1": [0.5]}}},
        "spec.stages.stratify.level1: Invalid value: 1: spec.stages.stratify.level1 in body should have at least 2 items",
    ),
    "out of range": (
        {"spec.stages": {"grpo": {"groupSize": 1}}},
        "spec.stages.grpo.groupSize: Invalid value: 1: spec.stages.grpo.groupSize in body should be greater than or equal to 2",
    ),
    "not greater than 0": (
        {"spec.stages": {"grpo": {"learningRate": 0}}},
        "spec.stages.grpo.learningRate: Invalid value: 0: spec.stages.grpo.learningRate in body should be greater than 0",
    ),
    "text for a number": (
        {"spec.stages": {"sft": {"learningRate": "fast"}}},
        'spec.stages.sft.learningRate: Invalid value: "string"',
    ),
    "a word outside the enumeration": (
        {"spec.stages": {"grpo": {"gaze": True}}},
        'spec.stages.grpo.gaze: Unsupported value: true: supported values: "select", "direct", "off", "false"',
    ),
    "an unknown level": (
        {"spec.stages": {"grpo": {"levels": [3]}}},
        "spec.stages.grpo.levels[0]: Unsupported value: 3",
    ),
    "two arms with one name": (
        {"spec.arms": [{"name": "a", "set": {"seed": 1}}, {"name": "a", "set": {"seed": 2}}]},
        'spec.arms[1]: Duplicate value: {"name":"a"}',
    ),
    "an invalid name of an arm": (
        {"spec.arms": [{"name": "No Gaze", "set": {"seed": 1}}]},
        'spec.arms[0].name: Invalid value: "No Gaze": should be lower-case letters, digits and hyphens',
    ),
    "an arm without changes": ({"spec.arms": [{"name": "a", "set": {}}]}, "should have at least 1 properties"),
    "a text that is not a quantity": (
        {"spec.stages": {"grpo": {"workers": {"memory": "lots"}}}},
        'spec.stages.grpo.workers.memory: Invalid value: "lots"',
    ),
    "a toleration without a key": (
        {"spec.scheduling": {"tolerations": [{"effect": "NoSchedule"}]}},
        "spec.scheduling.tolerations[0].operator: Invalid value: a toleration without a key matches every taint",
    ),
    "a toleration with a value that is not compared": (
        {"spec.scheduling": {"tolerations": [{"key": "gpu", "operator": "Exists", "value": "yes"}]}},
        "spec.scheduling.tolerations[0].value: Forbidden: operator Exists compares no value",
    ),
    "a toleration with seconds but another effect": (
        {"spec.scheduling": {"tolerations": [{"key": "gpu", "tolerationSeconds": 3}]}},
        "spec.scheduling.tolerations[0].tolerationSeconds: Forbidden: only effect NoExecute has tolerationSeconds",
    ),
    "name too long": (
        {"metadata.name": "w" * 41},
        "Invalid value: metadata.name should be at most 40 characters: names of pods and labels derive from it and hold 63",
    ),
    "name with a dot": (
        {"metadata.name": "a.b"},
        "Invalid value: metadata.name should be lower-case letters, digits and hyphens, the first a letter",
    ),
    "name that starts with a digit": ({"metadata.name": "7b"}, "metadata.name should be lower-case letters"),
}
REFUSED_SERVER = {
    "no role": ({}, "spec.role: Required value"),
    "an unknown role": ({"role": "oracle"}, 'spec.role: Unsupported value: "oracle"'),
    "a search without a dataset": (
        {"role": "imageSearch"},
        "spec.data: Required value: a search needs the dataset that it searches, e.g. data: {world: {}}",
    ),
    "an API key for a policy that gog starts": (
        {"role": "policy", "base": "tiny", "secretName": "key"},
        "spec.secretName: Invalid value: gog loads checkpoints into a policy server that it starts, and holds no key",
    ),
    "a policy without a model": ({"role": "policy"}, "spec.base: Required value: role policy needs the base model"),
    "a judge with a checkpoint": (
        {"role": "judge", "version": "grpo/1", "store": STORE},
        "spec.version: Forbidden: only the roles policy and agent serve a checkpoint: remove version",
    ),
    "a checkpoint without a store": (
        {"role": "policy", "base": "tiny", "version": "grpo/1"},
        "spec.store: Required value: data.uri and version are read from a store",
    ),
    "a url and settings of a server to start": (
        {"role": "judge", "url": "http://j", "resources": {"limits": {"cpu": 1}}},
        "spec.url: Invalid value: url names an existing server",
    ),
    "a detector run by vLLM": (
        {"role": "grounding", "runtime": "vllm", "base": "hf://org/m"},
        "spec.runtime: Forbidden: only the roles policy and judge have a runtime: remove it",
    ),
    "a vLLM without a model": (
        {"role": "judge", "runtime": "vllm"},
        "spec.base: Required value: runtime: vllm needs the model that it serves",
    ),
    "too many pods": ({"role": "judge", "replicas": 65}, "spec.replicas: Invalid value: 65"),
}


RUNS = [path for path in SAMPLES if yaml.safe_load(path.read_text())["kind"] == "GoGRun"]


@pytest.mark.parametrize("sample", RUNS, ids=lambda path: path.name)
def test_the_children_of_a_run_are_accepted_and_read_back_unchanged(kubectl, sample):
    run = objects.GoGRun.model_validate(yaml.safe_load(sample.read_text()))
    run = run.model_copy(update={"metadata": run.metadata.model_copy(update={"uid": "a-uid"})})
    store = run.spec.store
    assert store is not None
    stages = [children.stage(run, step, {"sft": "sft/180"}, store) for step in sequence.steps(run)]
    policy = [children.policy(run, store, "grpo/120")] if run.spec.endpoints.policy is not None else []
    for thing in (*stages, *children.tool_servers(run, store), *policy):
        body = {**documents.created(thing, ""), "metadata": {"name": thing.name}}
        output = kubectl(
            "create", "--dry-run=server", "--validate=strict", "-o", "json", "-f", "-", input=json.dumps(body)
        )
        assert documents.parse(type(thing), json.loads(output)).spec == thing.spec


def changed(body: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The document with dotted paths set; None removes the field."""
    body = copy.deepcopy(body)
    for path, value in changes.items():
        body = overrides.apply(body, path, value)
    body["spec"] = {key: each for key, each in body["spec"].items() if each is not None}
    return body


@pytest.mark.parametrize(("changes", "sentence"), REFUSED.values(), ids=REFUSED.keys())
def test_an_invalid_run_is_refused_with_its_field_and_the_remedy(kubectl, changes, sentence):
    assert sentence in refusal(kubectl, "create", "-f", "-", body=changed(made(), changes))


@pytest.mark.parametrize(("spec", "sentence"), REFUSED_SERVER.values(), ids=REFUSED_SERVER.keys())
def test_an_invalid_tool_server_is_refused_with_its_field_and_the_remedy(kubectl, spec, sentence):
    assert sentence in refusal(kubectl, "create", "-f", "-", body=made("ToolServer", **spec))


def test_a_misspelt_field_is_refused_by_kubectl(kubectl):
    body = yaml.safe_dump(made(stages={"sft": {"lerningRate": 1}}))
    output = kubectl("create", "-f", "-", input=body, check=False)
    assert 'unknown field "spec.stages.sft.lerningRate"' in output


def test_each_kind_accepts_the_longest_name_that_a_run_gives_its_children(kubectl):
    for kind, longest, spec in (("SFTStage", 42, {}), ("ToolServer", 48, {"role": "judge"})):
        kubectl("create", "-f", "-", input=yaml.safe_dump(made(kind, "w" * longest, **spec)))
        output = refusal(kubectl, "create", "-f", "-", body=made(kind, "w" * (longest + 1), **spec))
        assert f"metadata.name should be at most {longest} characters" in output


def test_off_without_quotes_is_false_for_kubectl_and_off_for_gog(kubectl):
    text = yaml.safe_dump(made("GRPOStage", "bare")) + "  gaze: off\n  levels: [1, '2', easy]\n"
    kubectl("create", "-f", "-", input=text)
    read = stored(kubectl, "GRPOStage", "bare")
    assert (read["spec"]["gaze"], read["spec"]["levels"]) == (False, [1, "2", "easy"])
    stage = documents.parse(KINDS["GRPOStage"], read)
    assert (stage.spec.gaze, stage.spec.levels) == ("off", ("1", "2", "easy"))
