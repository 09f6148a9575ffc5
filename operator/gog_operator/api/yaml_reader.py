"""YAML text -> plain data, with the meaning that kubectl gives it.

Problem: PyYAML and kubectl disagree about unquoted values: `1e-4` is text for one and a number for the other, `1:30` is
90 for one and text for the other, `y` is text for one and true for the other. A manifest must mean the same to
`gog run` and to `kubectl apply`. Decision: PyYAML parses, and unquoted values are resolved here by the rules of
kubectl's parser (go-yaml v2). Numbers become what JSON makes of them: 5.0 and 1e3 are integers, and an integer that
int64 cannot hold is a float.

Stricter than kubectl where it would silently do something that is never meant: a key that occurs twice, a tag, a second
document. Bounded: a text of at most 1 MiB, and aliases that expand to at most 100,000 values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from gog.errors import UserError

LARGEST = 1024 * 1024
"""Bytes of a text. An object of the API is at most 1.5 MiB."""
MOST_VALUES = 100_000
"""Values of a document with its aliases expanded."""
_TAG = "tag:yaml.org,2002:"
_UNTAGGED = "untagged"
"""Our tag for a scalar without quotes and without a tag."""
_WORDS: dict[str, bool | float | None] = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
}
_INTEGERS = (
    (re.compile(r"[-+]?0[xX][0-9a-fA-F]+"), 16),
    (re.compile(r"[-+]?0[bB][01]+"), 2),
    (re.compile(r"[-+]?0[oO][0-7]+"), 8),
    (re.compile(r"[-+]?0[0-7]+"), 8),
    (re.compile(r"[-+]?(0|[1-9][0-9]*)"), 10),
)
_MOST_DIGITS = 350
"""Longer numbers exceed the range of a float, and Python refuses to convert very long ones."""
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


def read(path: Path) -> dict[str, Any]:
    """The one document of a file, a mapping.

    Raises:
        UserError: the file cannot be read, or is not one YAML document that is a mapping.
    """
    where = str(path)
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST + 1)
        if len(raw) > LARGEST:
            raise UserError("is larger than 1 MiB", where=where, remedy="is this the manifest?")
        return mapping(raw.decode("utf-8"), where=where)
    except FileNotFoundError:
        raise UserError("no such file", where=where, remedy="the path is relative to where gog is called") from None
    except IsADirectoryError:
        raise UserError("is a folder", where=where, remedy="name the manifest in it") from None
    except UnicodeDecodeError:
        raise UserError("is not UTF-8 text", where=where, remedy="is this the manifest?") from None
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=where) from None


def mapping(text: str, *, where: str) -> dict[str, Any]:
    """The one document of a text, a mapping. where: name of the text in errors.

    Raises:
        UserError: the text is not one YAML document that is a mapping.
    """
    documents = [each for each in _documents(text, where) if each is not None]
    if not documents:
        raise UserError("is empty", where=where, remedy="start from examples/world.yaml")
    if len(documents) > 1:
        raise UserError(f"has {len(documents)} documents", where=where, remedy="write one object per file")
    if not isinstance(documents[0], dict):
        kind = "a list" if isinstance(documents[0], list) else repr(documents[0])
        remedy = "a manifest starts with apiVersion: gog.dev/v1alpha1 and kind: GoGRun"
        raise UserError(f"is {kind}, should be a mapping", where=where, remedy=remedy)
    return documents[0]


def value(text: str, *, where: str) -> Any:
    """The value of a text such as the right-hand side of `--set path=value`; an empty text is None.

    Raises:
        UserError: the text is not one YAML value.
    """
    documents = _documents(text, where)
    if len(documents) > 1:
        raise UserError(f"has {len(documents)} documents", where=where, remedy="write one value")
    return documents[0] if documents else None


def scalar(text: str) -> Any:
    """The value of a scalar without quotes; NaN and the infinities are returned as such.

    >>> [scalar(each) for each in ("1e-4", "5.0", "0o17", "1:30", "off", "2024-01-01")]
    [0.0001, 5, 15, '1:30', False, '2024-01-01']
    """
    if text in _WORDS:
        return _WORDS[text]
    plain = text if text.startswith(".") else text.replace("_", "")
    if text[0] not in "+-.0123456789":
        return text
    for pattern, base in _INTEGERS:
        if len(plain) <= _MOST_DIGITS and pattern.fullmatch(plain):
            number = int(plain, base)
            return _number(number) if base == 10 or abs(number) < 2**64 else text
    if _FLOAT.fullmatch(plain) and math.isfinite(float(plain)):
        return _number(float(plain))
    return text


def _number(number: float) -> int | float:
    """A number as it arrives after a passage through JSON with Go's encoder."""
    if -(2**63) <= number < 2**63 and number == int(number):
        return int(number)
    return float(number)


def _documents(text: str, where: str) -> list[Any]:
    try:
        return [_Builder(where).build(node) for node in _compose(text)]
    except yaml.reader.ReaderError as error:
        raise UserError(
            f"contains the character U+{ord(_character(error)):04X}, which YAML forbids", where=where
        ) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        problem = error.problem or error.context or "cannot be parsed"
        raise UserError(f"{line}not valid YAML: {problem}", where=where, remedy=_remedy(error, text)) from None
    except RecursionError:
        raise UserError("is nested too deeply", where=where) from None


def _character(error: yaml.reader.ReaderError) -> str:
    return error.character if isinstance(error.character, str) else chr(error.character)


def _remedy(error: yaml.MarkedYAMLError, text: str) -> str:
    mark = error.problem_mark or error.context_mark
    lines = text.splitlines()
    line = lines[mark.line] if mark is not None and mark.line < len(lines) else ""
    if "{{" in line:
        return _TEMPLATE
    return "indent with spaces, not tabs" if "\t" in line else ""


_TEMPLATE = "render the template first, e.g. with helm template"


class _Loader(yaml.SafeLoader):
    """Composes nodes; scalars without quotes or tag keep their text."""

    def resolve(self, kind: type[yaml.Node], value: str | None, implicit: Any) -> str:
        if kind is yaml.ScalarNode:
            return _UNTAGGED if implicit[0] else f"{_TAG}str"
        return f"{_TAG}{'seq' if kind is yaml.SequenceNode else 'map'}"


def _compose(text: str) -> Iterator[yaml.Node]:
    loader = _Loader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            if node is not None:
                yield node
    finally:
        loader.dispose()


class _Builder:
    """One document's nodes -> plain data. Raises UserError, always with the line."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.count = 0
        self.open: set[int] = set()
        """Identities of the nodes that are being built, to recognise one that contains itself."""

    def build(self, node: yaml.Node) -> Any:
        self.count += 1
        if self.count > MOST_VALUES:
            raise self._error(node, f"has more than {MOST_VALUES:,} values")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if id(node) in self.open:
            raise self._error(node, "an anchor contains itself")
        self.open.add(id(node))
        built = self._sequence(node) if isinstance(node, yaml.SequenceNode) else self._mapping(node)
        self.open.discard(id(node))
        return built

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        text: str = node.value
        if any("\ud800" <= character <= "\udfff" for character in text):
            raise self._error(node, "the text contains half of a surrogate pair")
        if node.tag == f"{_TAG}str":
            return text
        value = scalar(text)
        if isinstance(value, float) and not math.isfinite(value):
            raise self._error(node, f"{text} is not a finite number")
        expected = _TYPES.get(node.tag.removeprefix(_TAG))
        if node.tag == _UNTAGGED:
            return value
        if expected is None:
            raise self._tag(node)
        if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
            raise self._error(node, f"{text!r} is not of the type !!{node.tag.removeprefix(_TAG)}")
        return value

    def _sequence(self, node: yaml.SequenceNode) -> list[Any]:
        if node.tag != f"{_TAG}seq":
            raise self._tag(node)
        return [self.build(each) for each in node.value]

    def _mapping(self, node: yaml.Node) -> dict[str, Any]:
        if node.tag != f"{_TAG}map":
            raise self._tag(node)
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _UNTAGGED and key_node.value == "<<":
                merged = self._merged(value_node) | merged
                continue
            key = self._key(key_node)
            if key in own:
                raise self._error(key_node, f"the key {key} occurs twice")
            own[key] = self.build(value_node)
        return merged | own

    def _merged(self, node: yaml.Node) -> dict[str, Any]:
        """The value of a merge key (`<<`): a mapping, or mappings of which an earlier one overrides a later one."""
        value = self.build(node)
        mappings = value if isinstance(value, list) else [value]
        if not all(isinstance(each, dict) for each in mappings):
            raise self._error(node, "the merge key << needs a mapping, or a list of mappings")
        result: dict[str, Any] = {}
        for each in reversed(mappings):
            result |= each
        return result

    def _key(self, node: yaml.Node) -> str:
        """A key as text, as JSON has it: `1` is "1", `on` is "true"."""
        if not isinstance(node, yaml.ScalarNode):
            what = "a mapping" if isinstance(node, yaml.MappingNode) else "a list"
            raise self._error(node, f"{what} is used as a key", _TEMPLATE if what == "a mapping" else "")
        key = self._scalar(node)
        if key is None:
            raise self._error(node, "a key is empty")
        if isinstance(key, bool):
            return "true" if key else "false"
        return key if isinstance(key, str) else f"{key:g}" if isinstance(key, float) else str(key)

    def _tag(self, node: yaml.Node) -> UserError:
        tag = node.tag.replace(_TAG, "!!")
        return self._error(node, f"the tag {tag} is not allowed", "a manifest holds mappings, lists, text, numbers")

    def _error(self, node: yaml.Node, what: str, remedy: str = "") -> UserError:
        return UserError(f"line {node.start_mark.line + 1}: {what}", where=self.where, remedy=remedy)


_TYPES: dict[str, Any] = {"int": int, "float": (int, float), "bool": bool, "null": type(None)}
