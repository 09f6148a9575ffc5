"""`path=value` changes to a manifest: `--set` of the command line and `set` of an arm.

A path is dotted and starts under spec unless its first part is another field of the object; keys may be camelCase or
snake_case, list positions are numbers. Whether the path exists is checked by the model that reads the result, because
only that can suggest which name was meant.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from pydantic.alias_generators import to_camel

from gog.errors import UserError
from gog_operator.api import yaml_reader

ROOTS = ("apiVersion", "kind", "metadata", "spec", "status")
"""Fields of an object, with one of which a path may start."""


def parse(assignment: str) -> tuple[str, Any]:
    """Path and YAML value of an assignment: `stages.sft.epochs=2`.

    Raises:
        UserError: it is not `path=value`, or the value is not YAML.
    """
    path, equals, text = assignment.partition("=")
    if not equals or not path.strip():
        raise UserError(f"{assignment!r} is not path=value", where="--set", remedy="e.g. --set stages.grpo.steps=20")
    try:
        return path.strip(), yaml_reader.value(text, where="--set")
    except UserError as error:
        raise UserError(
            f"the value of {path} is not YAML: {text!r}: {error.what}",
            where="--set",
            remedy=error.remedy or "quote it, as in --set 'a=\"x: y\"'",
        ) from None


def apply(document: Mapping[str, Any], path: str, value: Any, *, where: str = "--set") -> dict[str, Any]:
    """A copy of the document with one value set.

    Args:
        document: The document.
        path: Dotted path.
        value: The new value.
        where: Place of the assignment in errors.

    Raises:
        UserError: a part of the path is neither a mapping nor a position of a list.
    """
    result = copy.deepcopy(dict(document))
    *parents, last = tokens(path)
    node: Any = result
    for token in parents:
        node = _descend(node, token, path, where)
    node[_key(node, last, path, where)] = value
    return result


def tokens(path: str) -> tuple[str, ...]:
    """The parts of a path: `stages.sft.learning_rate` -> spec, stages, sft, learningRate."""
    parts = tuple(_camel(part) for part in path.split("."))
    return parts if parts[0] in ROOTS else ("spec", *parts)


def _camel(key: str) -> str:
    return key if key.startswith("_") or not key else to_camel(key)


def _descend(node: Any, token: str, path: str, where: str) -> Any:
    key = _key(node, token, path, where)
    if isinstance(node, list):
        return node[key]
    if node.get(key) is None:
        node[key] = {}
    return node[key]


def _key(node: Any, token: str, path: str, where: str) -> Any:
    """The key of a mapping that is the token in camelCase or snake_case, or the position in a list."""
    if isinstance(node, dict):
        return next((key for key in node if isinstance(key, str) and _camel(key) == token), token)
    if isinstance(node, list) and token.isdigit() and int(token) < len(node):
        return int(token)
    kind = f"a list of {len(node)}" if isinstance(node, list) else f"the value {node!r}"
    raise UserError(f"{path!r} leads into {kind} at {token!r}", where=where, remedy="check the path")
