"""A pydantic model -> the structural schema of a CustomResourceDefinition.

Problem: pydantic's JSON schema has references, nulls, titles and unions that Kubernetes refuses, and no maintained library
converts it. Decision: every construct that gog's models use is rewritten here, and any other is an error when the schema
is generated, not when a cluster reads it. Defaults are part of the description and not of the schema: one that the API
server filled in would look like the user's choice and override the model family's preset. The few that the API server
itself needs (`SERVER_DEFAULTS`) are part of the schema.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from gog import spec as settings
from gog_operator.api import crd_rules, problems, rule

Schema = dict[str, Any]

SERVER_DEFAULTS = ("suspend", "backoffLimit", "replicas")
"""Fields directly under spec whose default is in the schema. Without that of replicas, `kubectl scale` fails."""
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
"""Classes for whose fields a model family's preset may have another value, which then precedes the default."""
PRESET_FIELDS = {info.alias or name for cls in PRESET_CLASSES for name, info in cls.model_fields.items()}
LIST_KEYS = {"Condition": "type", "Arm": "name"}
"""Key of each list whose items have one: such items are merged by it, and a duplicate is refused."""
PLAIN: dict[str, Schema] = {
    "Reason": {"type": "string", "maxLength": 1024},
    "Condition.type": {"type": "string", "maxLength": 316},
}
"""Enumerations that a later operator may extend: a cluster with older definitions must still accept its status."""
KEPT = (
    *("type", "format", "pattern", "minimum", "maximum", "minLength", "maxLength"),
    *("minItems", "maxItems", "minProperties", "maxProperties"),
)
"""Keywords that mean the same in a structural schema."""
REWRITTEN = {
    *("$ref", "$defs", "anyOf", "enum", "const", "properties", "required", "items", "prefixItems", "default"),
    *("additionalProperties", "propertyNames", "exclusiveMinimum", "exclusiveMaximum", "title", "description"),
}
"""Keywords that are rewritten or dropped."""


def of(model: type[BaseModel], *, defaults: bool = True) -> Schema:
    """The structural schema of a model. defaults: whether descriptions end with the default.

    Raises:
        ValueError: a structural schema cannot express the model.
    """
    whole = model.model_json_schema(by_alias=True, mode="validation")
    return _Rewriter(whole.get("$defs", {}), defaults).schema(whole, model.__name__, model.__name__)


class _Rewriter:
    def __init__(self, definitions: dict[str, Schema], defaults: bool) -> None:
        self.definitions, self.defaults = definitions, defaults

    def schema(self, node: Schema, where: str, name: str = "") -> Schema:
        """The structural schema of a node.

        Args:
            node: The node of pydantic's schema.
            where: Its path, for errors.
            name: Name of the class that it describes; empty for none.
        """
        if "$ref" in node:
            return self._reference(node, where)
        if "anyOf" in node:
            return self._union(node, where)
        unknown = sorted(set(node) - {*KEPT} - REWRITTEN)
        if unknown:
            raise ValueError(f"{where}: a structural schema cannot express {', '.join(unknown)}")
        made = {key: node[key] for key in ("description",) if key in node}
        made |= _values(node, where) | {key: node[key] for key in KEPT if key in node and key != "type"}
        made |= _limits(node)
        if made.get("type") == "object":
            made |= self._object(node, where, name)
        elif made.get("type") == "array":
            made |= self._array(node, where)
        return crd_rules.attach(_with_words_for_pattern(made), name)

    def _reference(self, node: Schema, where: str) -> Schema:
        name = node["$ref"].removeprefix("#/$defs/")
        made = dict(PLAIN[name]) if name in PLAIN else self.schema(self.definitions[name], where, name)
        return made | {key: node[key] for key in ("description",) if key in node}

    def _union(self, node: Schema, where: str) -> Schema:
        """`X | None` is an optional X; an integer or text is Kubernetes' IntOrString."""
        options = [each for each in node["anyOf"] if each.get("type") != "null"]
        description = {key: node[key] for key in ("description",) if key in node}
        if len(options) == 1:
            return self.schema(options[0], where) | description
        if [each.get("type") for each in options] == ["integer", "string"]:
            bounds = {key: each[key] for each in options for key in KEPT if key in each and key != "type"}
            return description | {"x-kubernetes-int-or-string": True} | bounds
        raise ValueError(f"{where}: a structural schema cannot express a union of {len(options)} types")

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
        words = _with_default(made.get("description", ""), key, node.get("default") if self.defaults else None)
        return ({"description": words} if words else {}) | {
            name: each for name, each in made.items() if name != "description"
        }

    def _array(self, node: Schema, where: str) -> Schema:
        given = node.get("prefixItems")
        if given and any(each != given[0] for each in given):
            raise ValueError(f"{where}: a structural schema cannot express items of different types")
        item = given[0] if given else node["items"]
        made: Schema = {"items": self.schema(item, f"{where}[]")}
        key = LIST_KEYS.get(item.get("$ref", "").removeprefix("#/$defs/"))
        return made | ({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]} if key else {})


def _values(node: Schema, where: str) -> Schema:
    """Type and enumeration. An enumeration with values of several types (`off`, and false as YAML reads it) has no type."""
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
    raise ValueError(f"{where}: a structural schema cannot express values {values}")


def _limits(node: Schema) -> Schema:
    """Exclusive bounds as a bound and a boolean, as in OpenAPI 3.0."""
    made: Schema = {}
    for word, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if word in node:
            made |= {bound: node[word], word: True}
    return made


def _key_rule(node: Schema) -> Schema:
    """A bound on the length of a map's keys, as a rule."""
    limit = node.get("propertyNames", {}).get("maxLength")
    return {} if limit is None else {"x-kubernetes-validations": [crd_rules.keys(limit).body()]}


def _with_words_for_pattern(made: Schema) -> Schema:
    """A pattern for which there are words becomes a rule, because "should match ^https?://" is hard to read."""
    words = problems.PATTERN_WORDS.get(made.get("pattern", ""))
    if words is None or made.get("type") != "string":
        return made
    made_rule = rule.Rule(f"self.matches('{made['pattern']}')", f"should be {words}")
    return {key: each for key, each in made.items() if key != "pattern"} | {
        "x-kubernetes-validations": [made_rule.body()]
    }


def _with_default(description: str, key: str, default: Any) -> str:
    """The description with the default at its end, where there is one."""
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
