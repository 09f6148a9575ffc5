"""What fields mean together, as CEL rules that the API server checks: each refusal says which field and what to do.

A rule is attached wherever its class is embedded. Besides the models' own checks there are those that only a cluster
needs: a pod has no folder of the user's, so that stores and datasets must be in S3. What is decided when an object is
created stays: every field of spec but those in CHANGEABLE is compared with what it was, one rule each, so that the
refusal names the field. `self == oldSelf` alone would let an optional field be added, hence the comparison of has().
What CEL cannot read is left to conditions: the paths and values of an arm's `set`, and whether a cache mode has its
file, because a mode may be the false that YAML makes of `off`, and a field of two types has none for CEL.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gog import catalog

RUN_NAME, STAGE_NAME, ENDPOINT_NAME = 40, 42, 48
"""Longest names, so that those of children and of their pods, and labels made of them, stay within 63 characters."""
LIFECYCLE = ("suspend", "backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished", "retention")
SERVER = (
    *(
        "suspend",
        "replicas",
        "version",
        "failures",
        "backend",
        "options",
        "model",
        "secretName",
        "resources",
        "startupSeconds",
    ),
    *("scheduling", "serviceAccountName", "image"),
)
"""A server whose pods' settings change is started again; what it is and which data it is about stays."""


@dataclass(frozen=True)
class Rule:
    """path: of the field that is to blame, below the one that the rule is attached to: `.store`."""

    rule: str
    message: str
    path: str = ""
    reason: str = ""

    def body(self) -> dict[str, str]:
        made = {"rule": self.rule, "message": self.message}
        return made | ({"fieldPath": self.path} if self.path else {}) | ({"reason": self.reason} if self.reason else {})


FORBIDDEN, REQUIRED = "FieldValueForbidden", "FieldValueRequired"
_A_SERVER = (
    Rule(
        "!has(self.url) || !(has(self.backend) || has(self.options) || has(self.resources) || has(self.failures))",
        "url names an existing server; backend, options, resources and failures configure one that gog starts: leave "
        "out one or the other",
        ".url",
    ),
)
_DEMONSTRATIONS = (
    Rule(
        "!has(self.demonstrations) || self.demonstrations == 'sample' || self.demonstrations.startsWith('/')",
        "should be sample, or an absolute path that the trainer image has: a pod has no file of yours",
        ".demonstrations",
    ),
)
_LEVEL1 = (
    Rule("!has(self.level1) || self.level1[0] <= self.level1[1]", "is [lowest, highest]: swap the two", ".level1"),
)

NO_KEY = (
    "a policy that is started here asks for no key, because the operator loads its checkpoints and holds no key: leave "
    "out secretName, and keep others away by a NetworkPolicy"
)
READERS = [server.name for server in catalog.SERVERS if server.reads_data]
"""Roles that answer from a dataset; as CEL writes a list."""
RULES: dict[str, tuple[Rule, ...]] = {
    "EndpointsSpec": (
        Rule(
            "!has(self.policy) || !has(self.policy.secretName) || has(self.policy.url)",
            NO_KEY,
            ".policy.secretName",
        ),
    ),
    "ModelSpec": (
        Rule(
            "self.base == 'tiny' || self.base.startsWith('s3://') || self.base.startsWith('/')",
            "should be tiny, an s3:// prefix, or an absolute path that the trainer image has",
            ".base",
        ),
    ),
    "DataSpec": (
        Rule(
            "[has(self.world), has(self.path), has(self.uri)].filter(given, given).size() == 1",
            "give exactly one of world and uri: the embedded world with data: {world: {}}, or a dataset with "
            "data: {uri: 's3://bucket/prefix'}",
        ),
        Rule(
            "!has(self.path)",
            "a pod has no such folder: publish the dataset with gog move push FOLDER s3://bucket/prefix, and write "
            "data: {uri: 's3://bucket/prefix'}",
            ".path",
            FORBIDDEN,
        ),
        Rule(
            "!has(self.format)",
            "a dataset in a store has gog's own format: convert it with gog move push FOLDER s3://bucket/prefix "
            "--format FORMAT",
            ".format",
            FORBIDDEN,
        ),
        Rule(
            "!has(self.uri) || self.uri.startsWith('s3://')",
            "should start with s3://, because a pod has no folder of yours: publish the dataset with "
            "gog move push FOLDER s3://bucket/prefix",
            ".uri",
        ),
    ),
    "StoreSpec": (
        Rule(
            "self.uri.startsWith('s3://')",
            "should start with s3://, because pods share no folder: name a bucket, as in s3://bucket/prefix",
            ".uri",
        ),
    ),
    "SFT": _DEMONSTRATIONS,
    "SFTSpec": _DEMONSTRATIONS,
    "EndpointSpec": _A_SERVER,
    "Stages": (
        Rule(
            f"!has(self.skip) || !{list(catalog.STAGE_NAMES)}.all(stage, stage in self.skip)",
            "every stage is skipped: leave one in",
            ".skip",
        ),
    ),
    "Stratify": _LEVEL1,
    "StratifySpec": _LEVEL1,
    "TolerationSpec": (
        Rule(
            "!has(self.value) || !has(self.operator) || self.operator != 'Exists'",
            "operator Exists compares no value: leave out value",
            ".value",
            FORBIDDEN,
        ),
        Rule(
            "has(self.key) || (has(self.operator) && self.operator == 'Exists')",
            "a toleration without key is for every taint: write operator: Exists, or name the key",
            ".operator",
        ),
        Rule(
            "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
            "only effect NoExecute has tolerationSeconds: leave it out",
            ".tolerationSeconds",
            FORBIDDEN,
        ),
    ),
    "RunSpec": (
        Rule(
            "has(self.store)",
            "missing: on a cluster checkpoints go to S3, e.g. store: {uri: 's3://bucket/prefix', secretName: gog-s3}",
            ".store",
            REQUIRED,
        ),
        Rule(
            "!has(self.store) || !has(self.promoteTo) || self.store.uri != self.promoteTo.uri",
            "is the run's own store: name another bucket or prefix, or leave it out",
            ".promoteTo",
        ),
    ),
    "EndpointObjectSpec": (
        *_A_SERVER,
        Rule(
            "self.role != 'policy' || !has(self.secretName) || has(self.url)",
            NO_KEY,
            ".secretName",
        ),
        Rule(
            "self.role != 'policy' || has(self.url) || (has(self.base) && self.base != '')",
            "role policy needs the base model that it serves, e.g. base: tiny",
            ".base",
            REQUIRED,
        ),
        Rule(
            "self.role == 'policy' || !has(self.version) || self.version == ''",
            "only role policy serves a checkpoint: leave out version",
            ".version",
            FORBIDDEN,
        ),
        Rule(
            "has(self.store) || ((!has(self.data) || !has(self.data.uri)) && (!has(self.version) || self.version == ''))",
            "data.uri and version are read from a store: name it, e.g. store: {uri: 's3://bucket/prefix'}",
            ".store",
            REQUIRED,
        ),
        Rule(
            f"!(self.role in {READERS}) || has(self.url) || has(self.data)",
            "a search needs what it searches, e.g. data: {world: {}}",
            ".data",
            REQUIRED,
        ),
    ),
}


def attach(schema: dict[str, Any], class_name: str) -> dict[str, Any]:
    """The schema of a class with its rules."""
    return _with(schema, RULES.get(class_name, ()))


def immutable(spec: dict[str, Any], noun: str, changeable: tuple[str, ...]) -> dict[str, Any]:
    """The schema of a spec, whose fields stay as they were created but for some."""
    told = f"cannot change once the {noun} exists"
    remedy = f"delete the {noun} and apply it again; what is in the store stays"
    visible = {name: each for name, each in spec["properties"].items() if "type" in each}
    hidden = [name for name in spec["properties"] if name not in visible]
    rules = [
        Rule(_same(name), f"{told}: {remedy}", f".{name}", FORBIDDEN) for name in visible if name not in changeable
    ]
    if hidden:  # without a type CEL sees them in a comparison of the whole only
        others = " || ".join(f"!({_same(name)})" for name in changeable)
        rules.append(Rule(f"self == oldSelf || {others}", f"{', '.join(hidden)} {told}: {remedy}", "", FORBIDDEN))
    return _with(spec, tuple(rules))


def _same(name: str) -> str:
    return f"has(self.{name}) == has(oldSelf.{name}) && (!has(self.{name}) || self.{name} == oldSelf.{name})"


def name(limit: int) -> tuple[Rule, ...]:
    """Of the object itself; stricter than Kubernetes', because names of children are made of it."""
    return (
        Rule(
            f"self.metadata.name.size() <= {limit}",
            f"metadata.name should be at most {limit} characters: names of pods and labels are made of it and hold 63",
        ),
        Rule(
            "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            "metadata.name should be lower-case letters, digits and hyphens, the first a letter, the last no hyphen",
        ),
    )


def _with(schema: dict[str, Any], rules: tuple[Rule, ...]) -> dict[str, Any]:
    if not rules:
        return schema
    return schema | {
        "x-kubernetes-validations": [*schema.get("x-kubernetes-validations", []), *(r.body() for r in rules)]
    }
