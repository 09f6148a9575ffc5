"""`gog validate --cluster` and a real API server accept the same manifests.

Two lists go to both: manifests written by hand, with what is expected of each, by way of kubectl; and every field of every
kind with values of wrong and right types, by way of the API itself, whose verdicts need only agree. Left out is what the
API server cannot check: files with two documents or a key twice (kubectl hides them), the paths in an arm's `set`, and the
size of a back end's `options`.
"""

from __future__ import annotations

import copy
import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes import client, config
from support import pod_manifests
from support.operator_builders import for_cluster

from gog.errors import UserError
from gog_console import cli
from gog_operator.api import crds, manifest
from gog_operator.api.objects import KINDS

pytestmark = pytest.mark.apiserver

RUN = """apiVersion: gog.dev/v1alpha1
kind: GoGRun
metadata: {metadata}
spec:
  model: {{base: tiny}}
  data: {{world: {{}}}}
  store: {{uri: s3://b/p}}
  {spec}
"""
VALID_SPECS = (
    *("seed: 1e3", "seed: 5.0", "seed: 0x10", "seed: 9223372036854775807", "seed:", "images:", "images: {trainer: }"),
    *("suspend: off", "suspend: yes", "suspend: TRUE", "stages: {grpo: {keepUnsolved: n}}", "stages: {skip: }"),
    *("tools: {cache: {mode: off}}", "tools: {cache: {mode: 'off'}}", "tools: {cache: {mode: record, path: /c}}"),
    *("stages: {grpo: {gaze: off}}", "stages: {grpo: {gaze: false}}", "stages: {grpo: {gaze: direct}}"),
    *("stages: {grpo: {levels: [1, '2', easy]}}", "stages: {grpo: {levels: [1.0]}}"),
    *("endpoints: {judge: {failures: {kinds: [429, 5xx]}}}", "endpoints: {policy: }"),
    *("stages: {sft: {learningRate: 1e-4}}", "stages: {sft: {learningRate: 1}}", "stages: {sft: {learningRate: .5}}"),
    *("stages: {grpo: {workers: {memory: 1e9}}}", "stages: {grpo: {workers: {memory: 1.5Gi}}}"),
    *("stages: {grpo: {workers: {cpu: 2}}}", "stages: {grpo: {workers: {cpu: 500m}}}"),
    *("stages: {grpo: {workers: {cpu: '1.5'}}}", "stages: {grpo: {workers: {cpu: '1e3'}}}"),
    *("stages: {grpo: {workers: {memory: 2E}}}", "stages: {grpo: {workers: {memory: 100k}}}"),
    *("endpoints: {judge: {resources: {limits: {nvidia.com/gpu: 1}}}}", "endpoints: {judge: {url: 'http://j'}}"),
    *("stages: {stratify: {level1: [0, 1]}}", "stages: {stratify: {level1: [0.5, 0.5]}}"),
    *("scheduling: {nodeSelector: {a: }}", "scheduling: {tolerations: [{operator: Exists}]}"),
    *("arms: [{name: a, set: {seed: 1}}]", "arms: [{name: a, set: {stages.grpo.gaze: off}}]"),
    *("promoteTo: {uri: s3://c/p}", "data: {world: {seed: 3}}", "model: {base: /models/m, family: }"),
    *("model: {base: 'hf://org/m@refs/pr/1', secretName: hf}", "model: {base: 'file:///models/m'}"),
    *("model: {base: 'pvc://models/qwen/7b'}", "model: {base: 'oci://registry.example:5000/team/model:1#models/m'}"),
    *("data: {uri: 'pvc://pool'}", "data: {uri: 'oci://registry.example/pool:1', format: gog-jsonl}"),
    *(
        "model: {base: 'hf://org/m'}\n  endpoints: {policy: {runtime: vllm, image: 'r.example/vllm:1'}}",
        "endpoints: {judge: {runtime: vllm, base: 'hf://org/judge', model: j, image: 'r.example/vllm:1'}}",
        "tools: {policyServer: {receiverPort: 8081}}",
        "tools: {cache: {mode: record, path: 'pvc://answers/a.sqlite'}}",
        "tools: {cache: {mode: record, path: 's3://b/answers'}}",
        "tools: {cache: {mode: record, path: 'answers:today/a.sqlite'}}",
        "modelCache: {claimName: models}",
    ),
    *("stages: {sft: {optimizer: {_component_: torch.optim.SGD}}}", "stages: {sft: {demonstrations: sample}}"),
    *(
        "stages: {evaluate: {policies: [sft]}}",
        "stages: {evaluate: {policies: [endpoint], endpoint: {url: 'http://e', model: m}}}",
        "stages: {evaluate: {questions: 1800, split: fvqa_test}}",
        "stages: {evaluate: {questions: 99, split: fvqa, benchmarks: [{split: fvqa, name: fvqa-99}, {split: dynvqa, size: 9}]}}",
        "stages: {curate: {teacher: endpoint, attempts: 4, endpoint: {url: 'http://e', model: m}}}",
        "stages: {curate: {verify: [], searchShare: 0.565, against: ['s3://b/p']}, sft: {reviews: /r.jsonl}}",
        "stages: {grpo: {workers: &w {gpus: 1}}, evaluate: {workers: {<<: *w, cpu: 2}}}",
    ),
)
VALID_SPECS += (
    *(f"pods: [{{{each}}}]" for each in pod_manifests.VALID),
    *("pods: []", "runtime: h100-efa", "stages: {grpo: {workers: {gpus: 1, gpuResource: amd.com/gpu}}}"),
)
INVALID_SPECS = (
    *("stages: {curate: {teacher: endpoint}}", "stages: {curate: {attempts: 2}}", "stages: {curate: {verify: [luck]}}"),
    *(
        "stages: {curate: {searchShare: 1}}",
        "stages: {curate: {against: [bench]}}",
        "stages: {sft: {reviews: r.jsonl}}",
    ),
    *(f"pods: [{{{each}}}]" for each in pod_manifests.INVALID),
    *("pods: {}", "runtime: H100", "stages: {grpo: {workers: {gpuResource: cpu}}}"),
    *("stages: {evaluate: {questions: 9, benchmarks: [{split: x, name: Live VQA}]}}",),
    *("stages: {evaluate: {questions: 1799, split: FVQA-test}}",),
    *("stages: {evaluate: {policies: [endpoint]}}", "stages: {evaluate: {policies: [sft, endpoint-direct]}}"),
    *("stages: {grpo: {engine: chat}}", "stages: {evaluate: {engine: chat}}", "stages: {stratify: {engine: chat}}"),
    *("seed: '5'", "seed: 1.5", "seed: 5x", "seed: true", "seed: -1", "seed: 99999999999999999999", "seed: [1]"),
    *("model: {base: 'hf://m'}", "model: {base: 'gs://b/m'}", "model: {base: tiny, secretName: hf}"),
    *("model: {base: 'pvc://models/../x'}", "model: {base: 'pvc://Models'}", "model: {base: 'oci://image'}"),
    *("data: {uri: 'pvc://pool/.x'}", "data: {uri: 'oci://r/i@sha256:1'}", "data: {uri: 'hf://org/pool'}"),
    *(
        "endpoints: {policy: {runtime: vllm}}",
        "model: {base: 'hf://org/m'}\n  endpoints: {policy: {runtime: vllm, backend: 'm:f'}}",
        "model: {base: 'hf://org/m'}\n  endpoints: {policy: {runtime: vllm, url: 'http://v'}}",
        "endpoints: {judge: {runtime: vllm}}",
        "endpoints: {judge: {base: 'hf://org/judge'}}",
        "endpoints: {judge: {url: 'http://j', image: i}}",
        "endpoints: {grounding: {runtime: vllm}}",
        "tools: {cache: {mode: record, path: 'pvc://answers'}}",
        "modelCache: {}",
    ),
    *("seed: 9223372036854775808", "seed: 2024-01-01", "seed: 1:30", "seed: {a: 1}", "backoffLimit: 101"),
    *("suspend: 'false'", "suspend: 0", "suspend: nope", "suspend: 'yes'", "stages: {grpo: {keepUnsolved: 'true'}}"),
    *("tools: {cache: {mode: on}}", "tools: {cache: {mode: 0}}", "tools: {cache: {mode: record}}"),
    *("tools: {cache: {mode: record, path: ''}}", "tools: {cache: {mode: [live]}}"),
    *("tools: {cache: {mode: record, path: 's3:///a'}}", "tools: {cache: {mode: record, path: 'gs://b/a'}}"),
    *("tools: {cache: {mode: record, path: '/a/'}}", "tools: {cache: {mode: record, path: 'file:///a'}}"),
    *("stages: {grpo: {gaze: yes}}", "stages: {grpo: {gaze: 'false'}}", "stages: {grpo: {gaze: 0}}"),
    *("stages: {grpo: {levels: [3]}}", "stages: {grpo: {levels: [true]}}", "stages: {grpo: {levels: []}}"),
    *("stages: {grpo: {levels: 1}}", "stages: {grpo: {levels: [null]}}", "stages: {grpo: {levels: ['1.0']}}"),
    *("endpoints: {judge: {failures: {kinds: [429.5]}}}", "endpoints: {judge: {failures: {kinds: [500]}}}"),
    *(
        "stages: {sft: {learningRate: '1e-4'}}",
        "stages: {sft: {learningRate: 0}}",
        "stages: {sft: {learningRate: 1e400}}",
    ),
    *("stages: {grpo: {workers: {cpu: 1.5}}}", "stages: {grpo: {workers: {cpu: -1}}}"),
    *("stages: {grpo: {workers: {memory: 4GB}}}", "stages: {grpo: {workers: {memory: '-1Gi'}}}"),
    *("stages: {grpo: {workers: {memory: true}}}", "stages: {grpo: {workers: {memory: 1e30}}}"),
    *("stages: {grpo: {workers: {memory: ''}}}", "stages: {grpo: {workers: {memory: '1 Gi'}}}"),
    *("endpoints: {judge: {resources: {limits: {cpu: 0.5}}}}", "endpoints: {judge: {url: judge}}"),
    *("endpoints: {judge: {url: 'http://u:p@j'}}", "endpoints: {judge: {url: 'https://j/v1?api_key=k'}}"),
    "tools: {judge: {fallback: {url: 'http://u:p@j'}}}",
    *("endpoints: {judge: {url: 'http://j', backend: world}}", "endpoints: {oracle: {}}", "endpoints: []"),
    *(
        "endpoints: {judge: {options: [a]}}",
        "endpoints: {judge: {options: text}}",
        "endpoints: {judge: {backend: a b}}",
    ),
    *("endpoints: {judge: {url: 'http://j', options: {a: 1}}}", "data: {uri: s3://d/p, format: gog-jsonl}"),
    *("tools: {grounding: {attempts: '2'}}", "tools: {oracle: {}}"),
    *("endpoints: {policy: {secretName: s}}", "endpoints: {judge: {replicas: 65}}"),
    *(
        "endpoints: {policy: {url: 'http://v'}}\n  stages: {grpo: {engine: vllm, deterministic: true}}",
        "stages: {stratify: {level1: [0.6, 0.5]}}",
        "stages: {stratify: {level1: [0.5]}}",
        "stages: {stratify: {level1: 1}}",
    ),
    *("scheduling: {nodeSelector: {a: 1}}", "scheduling: {nodeSelector: [a]}", "scheduling: {tolerations: [null]}"),
    *("scheduling: {tolerations: [{effect: NoSchedule}]}", "scheduling: {tolerations: [{operator: Exists, value: v}]}"),
    *("scheduling: {tolerations: [{key: k, tolerationSeconds: 1}]}", "scheduling: {nodeSelector: {a: yes}}"),
    *(
        "arms: [{name: a}]",
        "arms: [{set: {seed: 1}}]",
        "arms: [{name: a, set: {}}]",
        "arms: [{name: 5, set: {seed: 1}}]",
    ),
    *("arms: [{name: a, set: {seed: 1}}, {name: a, set: {seed: 2}}]", "arms: {name: a}"),
    *("backoff_limit: 1", "stages: {sft: {learning_rate: 1}}", "stages: {sft: {optimizer: {component: x}}}"),
    *(
        "stages: {sft: {lerningRate: 1}}",
        "stages: {rl: {}}",
        "stages: {skip: [rl]}",
        "stages: {skip: sft}",
        "stages: 5",
    ),
    *("stages: {skip: [curate, sft, stratify, grpo, evaluate]}", "stages: {evaluate: {policies: []}}"),
    *(
        "store: {uri: s3://b, pathStyle: 'true'}",
        "store: {uri: file:///s}",
        "store: {uri: gs://b}",
        "store: {}",
        "store:",
    ),
    *(
        "promoteTo: {uri: s3://b/p}",
        "data: {path: /pool}",
        "data: {uri: file:///d}",
        "data: {}",
        "data: {world: {}, uri: s3://b}",
    ),
    *(
        "data: {world: {seed: '7'}}",
        "data: {world: }",
        "model:",
        "model: {base: }",
        "model: {base: 5}",
        "model: {base: ''}",
    ),
    *("model: {base: my-models/m}", "model: {base: tiny, family: llama}", "model: tiny"),
    *(
        "stages: {sft: {demonstrations: mine.zip}}",
        "serviceAccountName: 5",
        "images: {trainer: [a]}",
        "images: trainer",
    ),
    *("seed: {{ .Values.seed }}", "<<: 5", "seed: &a [*a]", "seed: .inf", "[a]: b", "seed: !!int on", "~: 1"),
    *("managedBy: " + "m" * 64, "retention: {keepLast: 0}", "traces: {}", "traces: {endpoint: 'http://a@b'}"),
)
VALID_METADATA = (
    *("{generateName: w-}", "{name: %s, generateName: 7-}", "{name: %s, labels: {a: }}", "{name: %s, labels: }"),
    *("{name: %s, labels: {a: b, example.org/c: d-e.f_g}}", "{name: %s, annotations: {Example.org/a: 'b c'}}"),
    *("{name: %s, finalizers: [example.org/f]}", "{name: %s, finalizers: [f]}", "{name: %s, finalizers: }"),
    *("{name: %s, uid: u, resourceVersion: '5', generation: 5}", "{name: %s, creationTimestamp: null}"),
    *("{name: %s, creationTimestamp: 2024-01-01T00:00:00Z}", "{name: %s, managedFields: [], selfLink: x}"),
    "{name: %s, ownerReferences: [{apiVersion: v1, kind: Pod, name: x, uid: u, controller: true}]}",
)
INVALID_METADATA = (
    *(
        "{}",
        "{name: ''}",
        "{name: 5}",
        "{name: on}",
        "{name: [a]}",
        "{name: World}",
        "{name: 7b}",
        "{name: a.b}",
        "{name: w-}",
    ),
    *("{generateName: W-}", "{generateName: 7-}", "{name: " + "w" * 41 + "}", "{generateName: " + "w" * 36 + "}"),
    *(
        "{name: %s, labels: {a: 1}}",
        "{name: %s, labels: {a: b c}}",
        "{name: %s, labels: {a b: c}}",
        "{name: %s, labels: [a]}",
    ),
    *("{name: %s, labels: {a: -b}}", "{name: %s, labels: {/a: b}}", "{name: %s, labels: {a: " + "b" * 64 + "}}"),
    *(
        "{name: %s, annotations: {a: true}}",
        "{name: %s, annotations: {a b: c}}",
        "{name: %s, annotations: {ex ample/a: b}}",
    ),
    *(
        "{name: %s, finalizers: f}",
        "{name: %s, finalizers: [null]}",
        "{name: %s, finalizers: [a/]}",
        "{name: %s, finalizers: [5]}",
    ),
    *("{name: %s, generation: '5'}", "{name: %s, creationTimestamp: 2024-01-01}", "{name: %s, foo: 1}", "name", "[a]"),
    "{name: %s, ownerReferences: [{kind: Pod, name: x, uid: u}]}",
    "{name: %s, ownerReferences: [{apiVersion: v1, kind: Pod, name: x, uid: u, foo: 1}]}",
)


def manifests() -> Iterator[tuple[str, str, bool]]:
    """Name, text and expected verdict of every manifest that was written by hand."""
    spec_cases = [(each, True) for each in VALID_SPECS] + [(each, False) for each in INVALID_SPECS]
    for number, (spec, valid) in enumerate(spec_cases):
        yield f"s{number}", _with_spec(spec, f"{{name: s{number}}}"), valid
    metadata_cases = [(each, True) for each in VALID_METADATA] + [(each, False) for each in INVALID_METADATA]
    for number, (metadata, valid) in enumerate(metadata_cases):
        yield f"m{number}", _with_spec("", metadata.replace("%s", f"m{number}")), valid
    for number, body in enumerate(OTHER_KINDS_VALID + OTHER_KINDS_INVALID):
        text = f"apiVersion: gog.dev/v1alpha1\nmetadata: {{name: k{number}}}\n{body}"
        yield f"k{number}", text, number < len(OTHER_KINDS_VALID)


def _with_spec(spec: str, metadata: str) -> str:
    """A run with more in its spec; a field that the least run also has is replaced."""
    text = RUN.format(metadata=metadata, spec=spec)
    field = spec.partition(":")[0]
    return re.sub(rf"(?m)^  {field}: .*\n", "", text, count=1) if field in ("model", "data", "store") else text


STAGE = "spec: {model: {base: tiny}, data: {world: {}}, store: {uri: s3://b/p}%s}"
OTHER_KINDS_VALID = (
    "kind: SFTStage\n" + STAGE % "",
    "kind: GRPOStage\n" + STAGE % ", gaze: off, inputs: {sft: sft/1}, run: r",
    "kind: ToolServer\nspec: {role: judge}",
    "kind: ToolServer\nspec: {role: judge, pods: [{labels: {a: b}}]}",
    "kind: GoGRuntime\nspec: {}",
    "kind: GoGRuntime\nspec: {summary: s, pods: [{labels: {a: b}}], workers: {gpus: 8}, scheduling: {queue: q}}",
    "kind: ToolServer\nspec: {role: policy, base: tiny, version: grpo/1, store: {uri: s3://b/p}}",
    "kind: ToolServer\nspec: {role: textSearch, data: {world: {}}}",
    "kind: ToolServer\nspec: {role: textSearch, url: 'https://s'}",
)
OTHER_KINDS_INVALID = (
    "kind: SFTStage\n" + STAGE.replace(", store: {uri: s3://b/p}", "") % "",
    "kind: SFTStage\n" + STAGE % ", demonstrations: mine.zip",
    "kind: SFTStage\n" + STAGE % ", inputs: {sft: 5}",
    "kind: GRPOStage\n" + STAGE % ", run: Run",
    "kind: GRPOStage\n" + STAGE % ", gaze: on",
    "kind: ToolServer\nspec: {}",
    "kind: ToolServer\nspec:",
    "kind: ToolServer",
    "kind: ToolServer\nspec: {role: oracle}",
    "kind: ToolServer\nspec: {role: judge, version: grpo/1, store: {uri: s3://b/p}}",
    "kind: ToolServer\nspec: {role: policy}",
    "kind: ToolServer\nspec: {role: policy, base: tiny, version: grpo/1}",
    "kind: ToolServer\nspec: {role: policy, base: tiny, secretName: s}",
    "kind: ToolServer\nspec: {role: imageSearch}",
    "kind: ToolServer\nspec: {role: imageSearch, data: {uri: s3://b/p}}",
    "kind: ToolServer\nspec: {role: judge, url: 'http://j', resources: {limits: {cpu: 1}}}",
    "kind: ToolServer\nspec: {role: judge}\nfoo: 1",
    "kind: GogRun\nspec: {}",
    "kind: GoGRuntime\nspec: {pods: [{hostNetwork: true}]}",
    "kind: GoGRuntime\nspec: {workers: {gpus: -1}}",
    "kind: GoGRuntime\nspec: {image: x}",
)


def test_a_manifest_is_valid_for_gog_and_for_kubectl_or_for_neither(api_server, tmp_path, capsys):
    namespace = api_server.namespace("agree")
    expected, verdicts = {}, {}
    for name, text, valid in manifests():
        file = tmp_path / f"{name}.yaml"
        file.write_text(text)
        code = cli.main(["validate", "--cluster", str(file)])
        assert code in (cli.COMPLETE, cli.INVALID)
        expected[name], verdicts[name] = valid, code == cli.COMPLETE
    capsys.readouterr()
    output = api_server.kubectl("-n", namespace, "create", "--dry-run=server", "-f", tmp_path, check=False)
    created = set(re.findall(r"^\S+\.gog\.dev/(\S+) created", output, re.MULTILINE))
    accepted = {name: name in created for name in expected}
    accepted["m0"] = any(name.startswith("w-") for name in created)  # its name is generated
    texts = {name: text for name, text, _ in manifests()}
    assert {name: texts[name] for name in expected if verdicts[name] != expected[name]} == {}
    assert {name: texts[name] for name in expected if accepted[name] != expected[name]} == {}


# --- every field of every kind, with values of right and wrong types ---

MORE = {"GoGRun": {"arms": [{"name": "a", "set": {"seed": 77}}]}, "ToolServer": {"role": "judge"}}
BASES = {kind: for_cluster(kind, **MORE.get(kind, {}))["spec"] for kind in KINDS}
ANYTHING = ("5", 5, 1.5, True, False, None, "text", "", [], [None], {}, {"unknownField": 1})


def variations(kind: str, seen: set[str]) -> Iterator[dict[str, Any]]:
    """Specs of a kind, each with one field changed. seen: fields that were varied already, for they are embedded often."""
    spec = crds.schema(KINDS[kind])["properties"]["spec"]
    for path, node in fields(spec, ()):
        key = json.dumps([path[-1], node], sort_keys=True)
        if key in seen or path[-2:] == ("[]", "set") or path[-1] == "options":
            continue
        seen.add(key)
        for value in values(node):
            yield changed(BASES[kind], path, value)
        if re.search("[A-Z]", path[-1]):
            snake = re.sub("([A-Z])", lambda match: f"_{match[1].lower()}", path[-1])
            yield changed(BASES[kind], (*path[:-1], snake), next(values(node)))


def fields(node: dict[str, Any], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    for name, each in node.get("properties", {}).items():
        yield (*path, name), each
        yield from fields(each, (*path, name))
        yield from fields(each.get("items", {}), (*path, name, "[]"))


def values(node: dict[str, Any]) -> Iterator[Any]:
    """Values for a field: its own enumeration, values about its bounds, and some of every type."""
    yield from node.get("enum", ())
    for bound in ("minimum", "maximum"):
        if bound in node:
            yield from (node[bound], node[bound] - 1, node[bound] + 1)
    if "maxLength" in node:
        yield from ("x" * node["maxLength"], "x" * (node["maxLength"] + 1))
    if "items" in node and "type" in node["items"]:
        yield [next(iter(values(node["items"])))] * (node.get("maxItems", 1) + 1)
    yield from ANYTHING


def changed(base: dict[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    spec = copy.deepcopy(base)
    node: Any = spec
    for token, following in itertools.pairwise(path):
        if token == "[]":
            node = node[0]
        else:
            node = node.setdefault(token, [{}] if following == "[]" else {})
    node[path[-1]] = value
    return spec


def test_every_field_of_every_kind_is_read_as_the_api_server_reads_it(api_server):
    api = client.CustomObjectsApi(config.new_client_from_config(str(api_server.kubeconfig)))
    namespace, seen = api_server.namespace("agree"), set()
    disagreements, verdicts = [], []
    for kind in KINDS:
        for spec in variations(kind, seen):
            body = {"apiVersion": "gog.dev/v1alpha1", "kind": kind, "metadata": {"name": "w"}, "spec": spec}
            ours, theirs = accepted_here(body), accepted_there(api, namespace, body)
            verdicts.append(theirs)
            if ours != theirs:
                disagreements.append((kind, spec, "gog accepts" if ours else "the API server accepts"))
    assert disagreements == []
    assert min(verdicts.count(True), verdicts.count(False)) > 200


def accepted_here(body: dict[str, Any]) -> bool:
    try:
        return not manifest.cluster_problems(manifest.check(body, where="w"))
    except UserError:
        return False


def accepted_there(api: client.CustomObjectsApi, namespace: str, body: dict[str, Any]) -> bool:
    kind = ("gog.dev", "v1alpha1", namespace, f"{body['kind'].lower()}s")
    try:
        api.create_namespaced_custom_object(*kind, body, dry_run="All", field_validation="Strict", _request_timeout=30)
    except client.ApiException as error:
        if error.status in (400, 422):
            return False
        raise
    return True
