"""Rules about several fields together: one table for the API server (CEL) and for `gog validate` (Python).

Problem: a manifest that `gog validate` accepts and the API server refuses, or the reverse, costs a user's trust in both.
Decision: each rule is written here twice, side by side, and a test sends the same manifests to both. A rule applies
wherever its class is embedded. Some rules hold on a cluster only: a pod has no folder of the user's machine.

CEL cannot read the paths and values of an arm's `set`, nor a field without a type; those are left to `gog validate`, to
the operator's conditions, and to `SCHEMAS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from gog import catalog, hub, mounts
from gog import spec as settings
from gog.spec.objective import FATAL_FAILURES
from gog_operator.api import agent_rules, cache_rules, data_rules, demonstration_rules, evaluation_rules, pod_rules
from gog_operator.api.rule import FORBIDDEN, REQUIRED, Rule, has

_SERVER = (
    Rule(
        "!has(self.url) || !(has(self.backend) || has(self.options) || has(self.resources) || has(self.failures) || "
        "has(self.image))",
        "url names an existing server; backend, options, resources, failures and image configure one that gog starts: remove "
        "one or the other",
        ".url",
    ),
)
_LEVEL1 = (
    Rule("!has(self.level1) || self.level1[0] <= self.level1[1]", "is [lowest, highest]: swap the two", ".level1"),
)
_REPEATABLE = Rule(
    "!has(self.engine) || self.engine != 'vllm' || !has(self.deterministic) || !self.deterministic",
    "vLLM repeats no result bit for bit: remove deterministic, or sample with engine: transformers",
    ".deterministic",
    FORBIDDEN,
    check=lambda stage: stage.engine != "vllm" or not stage.deterministic,
)
_ANNEALED = Rule(
    "!has(self.curriculum) || self.curriculum != 'annealed' || "
    "(has(self.levels) && self.levels.exists(each, string(each) != string(self.levels[0])))",
    "annealed moves from one level to another: name two in levels, such as ['1', '2'], or set curriculum to mixed",
    ".curriculum",
)
_LEVELS = Rule(
    "!has(self.levels) || self.levels.all(one, self.levels.exists_one(each, string(each) == string(one)))",
    "a level is named twice, which adds no questions: name each once",
    ".levels",
)
_REFILL = Rule(
    "!has(self.advantages) || self.advantages != 'batch' || !has(self.maxOversampling) || self.maxOversampling <= 1.0",
    "replaces groups of equal rewards, and with advantages batch these carry a signal, so there is nothing to refill: set it "
    "to 1, or advantages to group_batch",
    ".maxOversampling",
)
_FATAL = Rule(
    f"!has(self.fatalFailures) || self.fatalFailures == {FATAL_FAILURES} || "
    "(has(self.toolFailures) && self.toolFailures == 'fatal-clamp')",
    "is used by toolFailures fatal-clamp only: remove it, or set toolFailures to fatal-clamp",
    ".fatalFailures",
)
_SURVIVORS = Rule(
    "!has(self.survivorCorrection) || self.survivorCorrection == 'none' || "
    "!has(self.toolFailures) || self.toolFailures == 'exclude'",
    "weights what toolFailures exclude leaves: set toolFailures to exclude, or survivorCorrection to none",
    ".survivorCorrection",
)
_QUESTIONS = settings.GRPOSettings.model_fields["questions_per_step"].default
_UPDATES = Rule(
    "!has(self.updatesPerRollout) || "
    f"self.updatesPerRollout <= (has(self.questionsPerStep) ? self.questionsPerStep : {_QUESTIONS})",
    "divides the groups of a step, one for each question: lower it to questionsPerStep at most, or raise questionsPerStep",
    ".updatesPerRollout",
)
_TOKENS = Rule(
    "!has(self.engine) || self.engine != 'chat'",
    "a chat endpoint returns no tokens and no log-probs, which stages need: only evaluate compares one, with policies: "
    "[endpoint] and endpoint: {url: …, model: …}",
    ".engine",
)
_GRPO = (_TOKENS, _REPEATABLE, _LEVELS, _REFILL, _ANNEALED, _FATAL, _SURVIVORS, _UPDATES)
_NO_KEY = (
    "gog loads checkpoints into a policy server that it starts, and holds no key: remove secretName, and restrict access "
    "with a NetworkPolicy"
)
_READERS = [server.name for server in catalog.SERVERS if server.reads_data]
"""Roles that answer from a dataset."""

_MODELS = ["policy", "judge"]
"""Roles that are served by a language model."""
_ENGINES = ("stratify", "grpo", "evaluate")
"""Stages that have an engine."""
_VLLM = (
    Rule(
        "!has(self.runtime) || self.runtime != 'vllm' || !has(self.url)",
        "url names an existing server, runtime: vllm starts one: leave one of them out",
        ".url",
        FORBIDDEN,
    ),
    Rule(
        "!has(self.runtime) || self.runtime != 'vllm' || !(has(self.backend) || has(self.failures))",
        "backend and failures are of gog's own server: leave them out with runtime: vllm",
        ".runtime",
    ),
)
_TINY_ON_VLLM = (
    "tiny is in the trainer image, which a vLLM does not have: name a base at hf://, s3://, pvc:// or oci://"
)
_SAMPLED_BY_VLLM = " || ".join(
    f"(has(self.stages.{stage}) && has(self.stages.{stage}.engine) && self.stages.{stage}.engine == 'vllm')"
    for stage in _ENGINES
)


_FORMS = (hub.FORM, mounts.PVC_FORM, mounts.OCI_FORM)
"""Forms of addresses of base models, besides those of stores and folders."""


def _base_rule(given: str, of: Callable[[Any], str]) -> Rule:
    """Addresses of a base model have a form. given: CEL of the field's value; of: the same in Python."""
    matches = " || ".join(f"{given}.matches('{form}')" for form in _FORMS)
    return Rule(
        f"!{given}.contains('://') || {given}.startsWith('s3://') || {given}.startsWith('file:///') || {matches}",
        "should be tiny, a folder, s3://bucket/prefix, file:///folder, hf://org/name[@revision], pvc://claim/folder, or "
        "oci://registry/repository:tag[@digest][#folder]",
        ".base",
        check=lambda model: (
            "://" not in of(model)
            or of(model).startswith(("s3://", "file:///"))
            or any(re.fullmatch(form, of(model)) for form in _FORMS)
        ),
    )


RULES: dict[str, tuple[Rule, ...]] = {
    **pod_rules.RULES,
    "PolicyEndpointSpec": (*_SERVER, *_VLLM),
    "JudgeEndpointSpec": (
        *_SERVER,
        *_VLLM,
        _base_rule("(has(self.base) ? self.base : '')", lambda server: server.base),
        Rule(
            "(has(self.runtime) && self.runtime == 'vllm') == (has(self.base) && self.base != '')",
            "base is the model of a judge with runtime: vllm: give both, or neither",
            ".base",
            check=lambda server: (server.runtime == "vllm") == (server.base != ""),
        ),
    ),
    "EndpointsSpec": (
        Rule(
            "!has(self.policy) || !has(self.policy.secretName) || has(self.policy.url)",
            _NO_KEY,
            ".policy.secretName",
        ),
    ),
    "ModelSpec": (
        _base_rule("self.base", lambda model: model.base),
        Rule(
            "self.base == 'tiny' || self.base.contains('://') || self.base.startsWith('/')",
            "should be tiny, an s3:// prefix, hf://org/name, a volume at pvc:// or oci://, or an absolute path inside the "
            "trainer image",
            ".base",
            check=lambda model: model.base == "tiny" or "://" in model.base or model.base.startswith("/"),
            cluster=True,
        ),
        Rule(
            "!has(self.secretName) || self.base.startsWith('hf://')",
            "only a base at hf:// is fetched with HF_TOKEN: remove secretName; a base at s3:// is read with store.secretName",
            ".secretName",
            FORBIDDEN,
            check=lambda model: not has(model, "secret_name") or model.base.startswith("hf://"),
        ),
    ),
    "DataSpec": data_rules.RULES,
    "StoreSpec": (
        Rule(
            "self.uri.startsWith('s3://')",
            "should start with s3://, because pods share no folder: name a bucket, as in s3://bucket/prefix",
            ".uri",
            check=lambda store: store.uri.startswith("s3://"),
            cluster=True,
        ),
    ),
    "Curate": demonstration_rules.MADE,
    "CurateSpec": (*demonstration_rules.MADE, data_rules.ONE_TOKEN),
    "SFT": demonstration_rules.READ,
    "SFTSpec": (*demonstration_rules.READ, data_rules.ONE_TOKEN),
    "CacheSpec": cache_rules.RULES,
    "EndpointSpec": _SERVER,
    "Stages": (
        Rule(
            f"!has(self.skip) || !{list(catalog.STAGE_NAMES)}.all(stage, stage in self.skip)",
            "every stage is skipped: keep at least one",
            ".skip",
            check=lambda stages: not set(stages.skip) >= set(catalog.STAGE_NAMES),
        ),
    ),
    "Stratify": (*_LEVEL1, _TOKENS, _REPEATABLE),
    "StratifySpec": (*_LEVEL1, _TOKENS, _REPEATABLE, data_rules.ONE_TOKEN),
    "GRPO": _GRPO,
    "GRPOSpec": (*_GRPO, data_rules.ONE_TOKEN),
    "Evaluate": (_TOKENS, *evaluation_rules.RULES, _REPEATABLE),
    "EvaluateSpec": (_TOKENS, *evaluation_rules.RULES, _REPEATABLE, data_rules.ONE_TOKEN),
    "TolerationSpec": (
        Rule(
            "!has(self.value) || !has(self.operator) || self.operator != 'Exists'",
            "operator Exists compares no value: remove value",
            ".value",
            FORBIDDEN,
            check=lambda toleration: not has(toleration, "value") or toleration.operator != "Exists",
        ),
        Rule(
            "has(self.key) || (has(self.operator) && self.operator == 'Exists')",
            "a toleration without a key matches every taint: write operator: Exists, or name the key",
            ".operator",
            check=lambda toleration: has(toleration, "key") or toleration.operator == "Exists",
        ),
        Rule(
            "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
            "only effect NoExecute has tolerationSeconds: remove it",
            ".tolerationSeconds",
            FORBIDDEN,
            check=lambda toleration: not has(toleration, "toleration_seconds") or toleration.effect == "NoExecute",
        ),
    ),
    "RunSpec": (
        Rule(
            f"!has(self.stages) || !({_SAMPLED_BY_VLLM}) || (has(self.endpoints) && has(self.endpoints.policy) && "
            "(has(self.endpoints.policy.url) || (has(self.endpoints.policy.runtime) && "
            "self.endpoints.policy.runtime == 'vllm')))",
            "a stage with engine: vllm needs a server: url: http://…, or runtime: vllm",
            ".endpoints.policy",
            REQUIRED,
            check=lambda run: (
                all(getattr(run.stages, stage).engine != "vllm" for stage in _ENGINES)
                or (
                    run.endpoints.policy is not None
                    and (run.endpoints.policy.url is not None or run.endpoints.policy.runtime == "vllm")
                )
            ),
        ),
        Rule(
            "!has(self.endpoints) || !has(self.endpoints.policy) || !has(self.endpoints.policy.runtime) || "
            "self.endpoints.policy.runtime != 'vllm' || self.model.base != 'tiny'",
            _TINY_ON_VLLM,
            ".model.base",
            check=lambda run: (
                run.endpoints.policy is None or run.endpoints.policy.runtime != "vllm" or run.model.base != "tiny"
            ),
            cluster=True,
        ),
        *agent_rules.RUN,
        data_rules.ONE_TOKEN,
        Rule(
            "has(self.store)",
            "missing: on a cluster checkpoints are kept in S3, e.g. store: {uri: 's3://bucket/prefix', secretName: gog-s3}",
            ".store",
            REQUIRED,
            check=lambda run: has(run, "store"),
            cluster=True,
        ),
        Rule(
            "!has(self.store) || !has(self.promoteTo) || self.store.uri != self.promoteTo.uri",
            "is the run's own store: name another bucket or prefix, or remove promoteTo",
            ".promoteTo",
            check=lambda run: (
                not (has(run, "store") and has(run, "promote_to") and run.store.uri == run.promote_to.uri)
            ),
        ),
    ),
    "ToolServerSpec": (
        *_SERVER,
        *_VLLM,
        Rule(
            f"self.role in {_MODELS} || !has(self.runtime) || self.runtime == 'gog'",
            "only the roles policy and judge have a runtime: remove it",
            ".runtime",
            FORBIDDEN,
            check=lambda server: server.role in _MODELS or server.runtime == "gog",
        ),
        Rule(
            "!has(self.runtime) || self.runtime != 'vllm' || (has(self.base) && self.base != '')",
            "runtime: vllm needs the model that it serves, e.g. base: hf://org/name",
            ".base",
            REQUIRED,
            check=lambda server: server.runtime != "vllm" or server.base != "",
        ),
        Rule(
            "!has(self.runtime) || self.runtime != 'vllm' || !has(self.base) || self.base != 'tiny'",
            _TINY_ON_VLLM,
            ".base",
            check=lambda server: server.runtime != "vllm" or server.base != "tiny",
            cluster=True,
        ),
        Rule(
            "self.role != 'policy' || !has(self.secretName) || has(self.url)",
            _NO_KEY,
            ".secretName",
            check=lambda server: server.role != "policy" or not has(server, "secret_name") or has(server, "url"),
        ),
        Rule(
            "self.role != 'policy' || has(self.url) || (has(self.base) && self.base != '')",
            "role policy needs the base model that it serves, e.g. base: tiny",
            ".base",
            REQUIRED,
            check=lambda server: server.role != "policy" or has(server, "url") or server.base != "",
        ),
        _base_rule("(has(self.base) ? self.base : '')", lambda server: server.base),
        Rule(
            "has(self.store) || ((!has(self.data) || !has(self.data.uri) || self.data.uri.startsWith('hf://')) && "
            "(!has(self.version) || self.version == ''))",
            "data.uri and version are read from a store: name it, e.g. store: {uri: 's3://bucket/prefix'}",
            ".store",
            REQUIRED,
            check=lambda server: (
                has(server, "store")
                or (
                    not (has(server, "data") and has(server.data, "uri") and not data_rules.is_of_hub(server.data))
                    and server.version == ""
                )
            ),
        ),
        *agent_rules.SERVER,
        Rule(
            f"!(self.role in {_READERS}) || has(self.url) || has(self.data)",
            "a search needs the dataset that it searches, e.g. data: {world: {}}",
            ".data",
            REQUIRED,
            check=lambda server: server.role not in _READERS or has(server, "url") or has(server, "data"),
        ),
    ),
}

_MODES = settings.CacheSpec.model_json_schema()["properties"]["mode"]["enum"]
SCHEMAS: dict[str, dict[str, Any]] = {
    # The mode may be false (a bare `off`), so that its field has no type, and CEL sees no field without a type. The
    # first alternative also repeats the mode, because the API server reports the one that matches best.
    "CacheSpec": {
        "anyOf": [
            {"required": ["path"], "properties": {"path": {"minLength": 1}, "mode": {"enum": _MODES}}},
            {"properties": {"mode": {"enum": ["off", False, "live"]}}},
        ]
    },
}
"""Rules that CEL cannot express, by class, as value validations of the schema. The models' own validators check them."""
