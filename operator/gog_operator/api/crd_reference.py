"""The definitions as a page of tables: every field a user may write, with its type, bounds, default and source.

Made of the schemas, so that it cannot fall behind them. A part that was told already (the five endpoints are alike) is
referred to. The status is left out: nobody writes it, and `kubectl explain` tells it.
"""

from __future__ import annotations

import json
from typing import Any

from gog_operator.api import crds
from gog_operator.api.objects import KINDS

Schema = dict[str, Any]
WORDS = {"boolean": "true or false", "string": "text"}
HEAD = """# Reference

Every field of a manifest. The same is told by `kubectl explain gogrun.spec`. A field in **bold** must be given; marks in
brackets say where a value comes from ([method.md](method.md)). What a manifest leaves out takes the model family's preset,
else the default named here. Made by `gog crds --reference`; do not edit.
"""


def page() -> str:
    """The whole page, in Markdown."""
    told: dict[str, str] = {}
    return HEAD + "".join(_kind(name, crds.schema(kind), told) for name, kind in KINDS.items())


def _kind(name: str, schema: Schema, told: dict[str, str]) -> str:
    lines = [f"\n## {name}\n", schema["description"] + "\n"]
    return "\n".join([*lines, *_table("spec", schema["properties"]["spec"], f"{name}.spec", told), ""])


def _table(path: str, node: Schema, where: str, told: dict[str, str]) -> list[str]:
    """A table of the fields of one mapping, then those of the mappings in it."""
    rows = [f"### {where}\n", "| field | type | |", "|---|---|---|"]
    parts: list[str] = []
    for name, each in node["properties"].items():
        inner, below = _mapping(each), f"{where}.{name}"
        known = told.get(_key(inner)) if inner else None
        shown = f"**`{name}`**" if name in node.get("required", ()) else f"`{name}`"
        note = f" Fields as in `{known}`." if known else ""
        rows.append(f"| {shown} | {_type(each)} | {_cell(each['description'] + note)} |")
        if inner and not known:
            told[_key(inner)] = below
            parts += ["", *_table(name, inner, below, told)]
    return rows + parts


def _mapping(node: Schema) -> Schema | None:
    """The mapping of fields that a node is, or is a list of."""
    node = node.get("items", node)
    return node if "properties" in node else None


def _key(node: Schema) -> str:
    return json.dumps(node["properties"], sort_keys=True)


def _type(node: Schema) -> str:
    if "enum" in node:
        return " ".join(dict.fromkeys(f"`{each}`" for each in node["enum"] if each is not False))
    if node.get("type") == "array":
        return f"list of {_type(node['items'])}"
    if node.get("type") == "object":
        return "fields" if "properties" in node else "map"
    if node.get("x-kubernetes-int-or-string"):
        return "amount"
    return f"{WORDS.get(node['type'], node['type'])} {_range(node)}".strip()


def _range(node: Schema) -> str:
    low = f"{'>' if node.get('exclusiveMinimum') else '≥'} {node['minimum']}" if "minimum" in node else ""
    high = f"{'<' if node.get('exclusiveMaximum') else '≤'} {node['maximum']}" if "maximum" in node else ""
    return ", ".join(each for each in (low, high) if each)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
