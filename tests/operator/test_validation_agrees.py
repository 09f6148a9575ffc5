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
from support.operator_builders import for_cluster
from support.run_manifests import INVALID_SPECS, VALID_SPECS

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
    """A run with more in its spec; fields that the least run also has are replaced."""
    text = RUN.format(metadata=metadata, spec=spec)
    given = {line.partition(":")[0] for line in spec.split("\n  ")}
    for field in given & {"model", "data", "store"}:
        text = re.sub(rf"(?m)^  {field}: .*\n", "", text, count=1)
    return text


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
    "kind: ToolServer\nspec: {role: textSearch, data: {uri: 'hf://datasets/o/p', secretName: hf}}",
    "kind: SFTStage\n" + STAGE.replace("{world: {}}", "{uri: 'hf://datasets/o/p', secretName: hf}") % "",
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
    "kind: ToolServer\nspec: {role: imageSearch, data: {uri: 'hf://o/p'}}",
    *(
        f"kind: {kind}\n"
        + STAGE.replace("tiny", "'hf://o/m', secretName: a").replace(
            "{world: {}}", "{uri: 'hf://datasets/o/p', secretName: b}"
        )
        % ""
        for kind in ("CurateStage", "SFTStage", "StratifyStage", "GRPOStage", "EvaluateStage")
    ),
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
