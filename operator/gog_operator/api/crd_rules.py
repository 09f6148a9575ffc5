"""The rules that the API server checks, as they stand in a CustomResourceDefinition.

Besides the table of `rules` there are those about names and about changes. What is decided when an object is created
cannot change: every field of spec but the changeable ones is compared with its old value, one rule each, so that the
refusal names the field. `self == oldSelf` alone would allow an optional field to be added, so has() is compared, too.
"""

from __future__ import annotations

from typing import Any

from gog_operator.api import resizing, rules
from gog_operator.api.rule import FORBIDDEN, Rule

LIFECYCLE = (
    *("suspend", "backoffLimit", "activeDeadlineSeconds", "queueDeadlineSeconds", "ttlSecondsAfterFinished"),
    *("jobTtlSeconds", "retention"),
)
"""Fields of a run's and a stage's spec that may change."""
RUN = (*LIFECYCLE, "artifactPolicy", resizing.SECTIONS)
"""Fields of a run's spec that may change; of its stages the workers only (`resizing`)."""
WHILE_SUSPENDED = ("scheduling", "workers")
"""Fields of a run's and a stage's spec that may change while it is suspended: the next attempt's job is created anew."""
PRESET = ("summary", "pods", "workers", "scheduling")
"""Fields of a preset's spec, all of which may change: what it was copied into does not."""
SERVER = (
    *("suspend", "replicas", "version", "agent", "failures", "backend", "options", "model", "secretName", "resources"),
    *("startupSeconds", "scheduling", "serviceAccountName", "image", "pods"),
)
"""Fields of a ToolServer's spec that may change: the server restarts when its pods' settings change. Its role and its
dataset cannot."""


def attach(schema: dict[str, Any], class_name: str) -> dict[str, Any]:
    """The schema of a class with its rules."""
    return _with(schema, rules.RULES.get(class_name, ())) | rules.SCHEMAS.get(class_name, {})


def immutable(spec: dict[str, Any], noun: str, changeable: tuple[str, ...]) -> dict[str, Any]:
    """The schema of a spec, of which only the changeable fields can change after creation.

    Args:
        spec: The schema.
        noun: What the object is called in the refusal: `run`.
        changeable: Names of the fields that may change.
    """
    what = f"cannot change once the {noun} exists"
    remedy = f"delete the {noun} and apply it again; the contents of the store are kept"
    typed = {name: each for name, each in spec["properties"].items() if "type" in each}
    typeless = [name for name in spec["properties"] if name not in typed]
    made = [_fixed(name, what, remedy) for name in typed if name not in changeable]
    if typeless:  # CEL sees a field without a type only when it compares the whole object
        others = " || ".join(f"!({resizing.same(name)})" for name in typed if name in (*changeable, *WHILE_SUSPENDED))
        made.append(Rule(f"self == oldSelf || {others}", f"{', '.join(typeless)} {what}: {remedy}", "", FORBIDDEN))
    return _with(spec, tuple(made))


def _fixed(name: str, what: str, remedy: str) -> Rule:
    """The rule that a field does not change, or only while the object is suspended."""
    if name not in WHILE_SUSPENDED:
        return Rule(resizing.same(name), f"{what}: {remedy}", f".{name}", FORBIDDEN)
    return Rule(
        f"({resizing.same(name)}) || {resizing.is_suspended()}",
        "can change only while it is suspended: set suspend",
        f".{name}",
        FORBIDDEN,
    )


def name(limit: int) -> tuple[Rule, ...]:
    """Rules about the object's own name. They are stricter than those of Kubernetes, because names of children derive
    from it."""
    return (
        Rule(
            f"self.metadata.name.size() <= {limit}",
            f"metadata.name should be at most {limit} characters: names of pods and labels derive from it and hold 63",
        ),
        Rule(
            "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            "metadata.name should be lower-case letters, digits and hyphens, the first a letter, the last no hyphen",
        ),
    )


def keys(limit: int) -> Rule:
    """Bounds the length of a map's keys, which a structural schema cannot."""
    return Rule(f"self.all(key, key.size() <= {limit})", f"a key should be at most {limit} characters")


def _with(schema: dict[str, Any], added: tuple[Rule, ...]) -> dict[str, Any]:
    if not added:
        return schema
    return schema | {
        "x-kubernetes-validations": [*schema.get("x-kubernetes-validations", []), *(each.body() for each in added)]
    }
