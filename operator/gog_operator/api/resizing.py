"""What may change of a run's `stages`: the workers of each, while the run is suspended. For the API server.

Problem: a stage that does not exist yet has no object whose workers could change. Decision: the whole of `stages` is fixed
unless the run is suspended; then each section must be the same but for its workers, which may be added with their section and
removed with it. CEL cannot read fields without a type (`gaze`, `activationCheckpointing`), only compare whole objects, so such
a field could change in the same update as the workers.
"""

from __future__ import annotations

from typing import Any

from gog_operator.api.rule import FORBIDDEN, Rule

SECTIONS, WORKERS = "stages", "workers"
WHAT = "cannot change once the run exists"
MESSAGE = f"{WHAT}: delete the run and apply it again; the contents of the store are kept; workers can change while it is suspended"


def is_suspended() -> str:
    """Whether an object is suspended, before or after the change."""
    return " || ".join(f"(has({each}.suspend) && {each}.suspend)" for each in ("oldSelf", "self"))


def same(name: str) -> str:
    """Whether a field does not change."""
    return f"has(self.{name}) == has(oldSelf.{name}) && (!has(self.{name}) || self.{name} == oldSelf.{name})"


def resizable(spec: dict[str, Any]) -> dict[str, Any]:
    """The schema of a run's spec, with rules for its sections of stages. spec: the schema."""
    stages = spec["properties"][SECTIONS]
    sections = {name: each for name, each in stages["properties"].items() if WORKERS in each.get("properties", {})}
    rules = [Rule(f"({same(SECTIONS)}) || {is_suspended()}", MESSAGE, f".{SECTIONS}", FORBIDDEN)]
    rules += [
        Rule(_same_list(name), MESSAGE, f".{SECTIONS}", FORBIDDEN)
        for name in stages["properties"]
        if name not in sections
    ]
    rules += [Rule(_as_before(name, each), MESSAGE, f".{SECTIONS}", FORBIDDEN) for name, each in sections.items()]
    changed = {name: _with(each, [Rule(_but_workers(each), MESSAGE, "", FORBIDDEN)]) for name, each in sections.items()}
    stages = stages | {"properties": stages["properties"] | changed}
    return _with(spec | {"properties": spec["properties"] | {SECTIONS: stages}}, rules)


def _but_workers(section: dict[str, Any]) -> str:
    """That a section which was and is there is the same but for its workers."""
    fixed = " && ".join(f"({same(name)})" for name in _others(section))
    if all("type" in each for each in section["properties"].values()):
        return fixed
    return f"self == oldSelf || (!({same(WORKERS)}) && {fixed})"


def _as_before(name: str, section: dict[str, Any]) -> str:
    """That a section is there as before, or has nothing but workers where it was added or removed."""
    only = {
        each: " && ".join(
            [f"has({each}.{SECTIONS}.{name}.{WORKERS})"]
            + [f"!has({each}.{SECTIONS}.{name}.{other})" for other in _others(section)]
        )
        for each in ("self", "oldSelf")
    }
    return f"{_given('self', name)} == {_given('oldSelf', name)} || ({_given('self', name)} ? {only['self']} : {only['oldSelf']})"


def _same_list(name: str) -> str:
    return (
        f"{_given('self', name)} == {_given('oldSelf', name)} && "
        f"(!{_given('self', name)} || self.{SECTIONS}.{name} == oldSelf.{SECTIONS}.{name})"
    )


def _given(root: str, name: str) -> str:
    return f"(has({root}.{SECTIONS}) && has({root}.{SECTIONS}.{name}))"


def _others(section: dict[str, Any]) -> list[str]:
    """Fields of a section that CEL can read, without the workers."""
    return [name for name, each in section["properties"].items() if name != WORKERS and _is_readable(each)]


def _is_readable(field: dict[str, Any]) -> bool:
    return "type" in field or field.get("x-kubernetes-int-or-string", False)


def _with(schema: dict[str, Any], added: list[Rule]) -> dict[str, Any]:
    return schema | {
        "x-kubernetes-validations": [*schema.get("x-kubernetes-validations", ()), *(each.body() for each in added)]
    }
