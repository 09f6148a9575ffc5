"""A pydantic model -> the structural schema that a CustomResourceDefinition wants.

Problem: pydantic's JSON schema has references, nulls, titles and unions that Kubernetes refuses, and there is no
well-kept library in between. Decision: what our models use is rewritten, one case after the other, and anything else is
an error when the schema is made, not when a cluster reads it. Defaults are told in the description and not written:
a default that the API server filled in would look like the user's word and cover the model family's preset. The few
that a cluster itself needs (`SERVER_DEFAULTS`) are written.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from gog import spec as settings
from gog_operator.api import crd_rules, problems, rules

Schema = dict[str, Any]

SERVER_DEFAULTS = ("suspend", "backoffLimit", "replicas")
"""Fields directly under spec. replicas: without one, `kubectl scale` answers with an error."""
PRESET_CLASSES = (
    settings.AgentSettings,
    settings.CurateSettings,
    settings.SFTSettings,
    settings.StratifySettings,
    settings.GRPOSettings,
    settings.EvaluateSettings,
    settings.LoraSettings,
    settings.OptimizerSettings,
    settings.ToolsSpec,
)
"""A model family's preset may say otherwise for these, before the default applies."""
PRESET_FIELDS = {info.alias or name for cls in PRESET_CLASSES for name, info in cls.model_fields.items()}
LIST_KEYS = {"Condition": "type", "Arm": "name"}
"""Lists whose items have a name of their own: merged by it, and refused when it is there twice."""
PLAIN: dict[str, Schema] = {
    "Reason": {"type": "string", "maxLength": 1024},
    "Condition.type": {"type": "string", "maxLength": 316},
}
"""Enumerations that a later operator may lengthen: a cluster with older definitions must still take its status."""
KEPT = (
    *("type", "format", "pattern", "minimum", "maximum", "minLength", "maxLength"),
    *("minItems", "maxItems", "minProperties", "maxProperties"),
)
REWRITTEN = {
    *("$ref", "$defs", "anyOf", "enum", "const", "properties", "required", "items", "prefixItems", "default"),
    *("additionalProperties", "propertyNames", "exclusiveMinimum", "exclusiveMaximum", "title", "description"),
}


def of(model: type[BaseModel], *, defaults: bool = True) -> Schema:
    """The structural schema of a model; defaults: whether descriptions tell them. Raises ValueError for what a
    structural schema cannot say."""
    whole = model.model_json_schema(by_alias=True, mode="validation")
    return _Rewriter(whole.get("$defs", {}), defaults).schema(whole, model.__name__, model.__name__)


class _Rewriter:
    def __init__(self, definitions: dict[str, Schema], defaults: bool) -> None:
        self.definitions, self.defaults = definitions, defaults

    def schema(self, node: Schema, where: str, name: str = "") -> Schema:
        """name: of the class that the node describes, "" where it is none."""
        if "$ref" in node:
            return self._reference(node, where)
        if "anyOf" in node:
            return self._union(node, where)
        unknown = sorted(set(node) - {*KEPT} - REWRITTEN)
        if unknown:
            raise ValueError(f"{where}: a structural schema cannot say {', '.join(unknown)}")
        made = {key: node[key] for key in ("description",) if key in node}
        made |= _values(node, where) | {key: node[key] for key in KEPT if key in node and key != "type"}
        made |= _limits(node)
        if made.get("type") == "object":
            made |= self._object(node, where, name)
        elif made.get("type") == "array":
            made |= self._array(node, where)
        return crd_rules.attach(_patterns_told(made), name)

    def _reference(self, node: Schema, where: str) -> Schema:
        name = node["$ref"].removeprefix("#/$defs/")
        made = dict(PLAIN[name]) if name in PLAIN else self.schema(self.definitions[name], where, name)
        return made | {key: node[key] for key in ("description",) if key in node}

    def _union(self, node: Schema, where: str) -> Schema:
        """`X | None` is X that may be left out; a whole number or text is Kubernetes' IntOrString."""
        options = [each for each in node["anyOf"] if each.get("type") != "null"]
        told = {key: node[key] for key in ("description",) if key in node}
        if len(options) == 1:
            return self.schema(options[0], where) | told
        if [each.get("type") for each in options] == ["integer", "string"]:
            bounds = {key: each[key] for each in options for key in KEPT if key in each and key != "type"}
            return told | {"x-kubernetes-int-or-string": True} | bounds
        raise ValueError(f"{where}: a structural schema cannot say a union of {len(options)} types")

    def _object(self, node: Schema, where: str, name: str) -> Schema:
        made: Schema = {}
        if "properties" in node:
            made["properties"] = {key: self._field(name, key, each, where) for key, each in node["properties"].items()}
        if node.get("required"):
            made["required"] = sorted(node["required"])
        values = node.get("additionalProperties", False)
        if values is True or values == {}:
            made["x-kubernetes-preserve-unknown-fields"] = True
        elif values:
            made["additionalProperties"] = self.schema(values, f"{where}.*")
            made |= _key_rule(node)
        return made

    def _field(self, owner: str, key: str, node: Schema, where: str) -> Schema:
        plain = PLAIN.get(f"{owner}.{key}")
        made = plain | {"description": node["description"]} if plain else self.schema(node, f"{where}.{key}")
        words = _told(made.get("description", ""), key, node.get("default") if self.defaults else None)
        return ({"description": words} if words else {}) | {
            name: each for name, each in made.items() if name != "description"
        }

    def _array(self, node: Schema, where: str) -> Schema:
        given = node.get("prefixItems")
        if given and any(each != given[0] for each in given):
            raise ValueError(f"{where}: a structural schema cannot say items of different types")
        item = given[0] if given else node["items"]
        made: Schema = {"items": self.schema(item, f"{where}[]")}
        key = LIST_KEYS.get(item.get("$ref", "").removeprefix("#/$defs/"))
        return made | ({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]} if key else {})


def _values(node: Schema, where: str) -> Schema:
    """type and enum. Values of several types (`off` and the false that YAML makes of it) leave the type open."""
    values = [node["const"]] if "const" in node else node.get("enum")
    if values is None:
        if "type" not in node:
            raise ValueError(f"{where}: has no type")
        return {"type": node["type"]}
    types = {type(each) for each in values}
    if types == {str}:
        return {"type": "string", "enum": values}
    if types == {str, int}:
        return {"x-kubernetes-int-or-string": True, "enum": values}
    if types <= {str, int, bool}:
        return {"x-kubernetes-preserve-unknown-fields": True, "enum": values}
    raise ValueError(f"{where}: a structural schema cannot say values {values}")


def _limits(node: Schema) -> Schema:
    """Bounds that are not included: a bound and a boolean, as OpenAPI 3.0 has it."""
    made: Schema = {}
    for word, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if word in node:
            made |= {bound: node[word], word: True}
    return made


def _key_rule(node: Schema) -> Schema:
    """A bound on the length of a map's keys, as a rule."""
    limit = node.get("propertyNames", {}).get("maxLength")
    return {} if limit is None else {"x-kubernetes-validations": [crd_rules.keys(limit).body()]}


def _patterns_told(made: Schema) -> Schema:
    """A pattern that we have words for becomes a rule: "should match ^https?://" helps nobody."""
    words = problems.PATTERN_WORDS.get(made.get("pattern", ""))
    if words is None or made.get("type") != "string":
        return made
    rule = rules.Rule(f"self.matches('{made['pattern']}')", f"should be {words}")
    return {key: each for key, each in made.items() if key != "pattern"} | {"x-kubernetes-validations": [rule.body()]}


def _told(description: str, key: str, default: Any) -> str:
    """The description with the default at its end, where there is one to tell."""
    if "Default" in description or default in (None, "", [], {}) or isinstance(default, dict):
        return description
    preset = ", or the model family's preset" if key in PRESET_FIELDS else ""
    return f"{description} Default: {_plain(default)}{preset}.".lstrip()


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(_plain(each) for each in value)}]"
    return f"{value:g}" if isinstance(value, float) else str(value)
