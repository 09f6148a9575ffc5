"""Which rules of the table of `rules` an object breaks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from gog_operator.api import rules


def broken(node: BaseModel, *, cluster: bool, path: str = "spec") -> Iterator[tuple[str, str]]:
    """Path and message of every broken rule in a model and in the models that it embeds.

    Args:
        cluster: Whether the rules that hold on a cluster only are checked; otherwise all others.
        path: Dotted path of the model.
    """
    for rule in rules.RULES.get(type(node).__name__, ()):
        if rule.check is not None and rule.cluster == cluster and not rule.check(node):
            yield f"{path}{rule.path}", rule.message
    for name, info in type(node).model_fields.items():
        if name in node.model_fields_set:
            yield from _inside(getattr(node, name), f"{path}.{info.alias or name}", cluster)


def _inside(value: Any, path: str, cluster: bool) -> Iterator[tuple[str, str]]:
    if isinstance(value, BaseModel):
        yield from broken(value, cluster=cluster, path=path)
    elif isinstance(value, tuple):
        for index, each in enumerate(value):
            yield from _inside(each, f"{path}[{index}]", cluster)
