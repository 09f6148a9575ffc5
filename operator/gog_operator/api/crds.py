"""The CustomResourceDefinitions of the seven kinds, made from their models.

One version, v1alpha1, stored and served; fields are only ever added. The status is a subresource, so that a user's
apply never touches it, and an Endpoint can be scaled. `manifests/crds` holds what this makes; a test compares.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import yaml

from gog_operator.api import crd_columns, crd_rules, crd_schema, names
from gog_operator.api.meta import API_VERSION
from gog_operator.api.objects import KINDS, Endpoint, GoGRun, Object

GROUP, VERSION = API_VERSION.split("/")
STATUS = "What gog has found out and done. Written by gog only."
HEADER = "# Made by `gog crds --dir manifests/crds`; do not edit.\n"


@dataclass(frozen=True)
class Traits:
    """noun: in sentences. changeable: fields of spec. columns: of `kubectl get`."""

    noun: str
    name_length: int
    changeable: tuple[str, ...]
    columns: tuple[crd_columns.Column, ...]


def traits(kind: type[Object]) -> Traits:
    """In what the kinds differ."""
    if kind is GoGRun:
        return Traits("run", names.RUN_LIMIT, crd_rules.LIFECYCLE, crd_columns.RUN)
    if kind is Endpoint:
        return Traits("endpoint", names.SERVICE_LIMIT, crd_rules.SERVER, crd_columns.ENDPOINT)
    return Traits("stage", names.LIMIT, crd_rules.LIFECYCLE, crd_columns.STAGE)


def all_of_them() -> tuple[dict[str, Any], ...]:
    return tuple(definition(kind) for kind in KINDS.values())


def definition(kind: type[Object]) -> dict[str, Any]:
    """One CustomResourceDefinition."""
    named = crd_columns.NAMES[kind.__name__]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{named.plural}.{GROUP}", "labels": {"app.kubernetes.io/name": "gog"}},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.__name__,
                "listKind": f"{kind.__name__}List",
                "plural": named.plural,
                "singular": kind.__name__.lower(),
                "shortNames": [named.short],
                "categories": ["gog"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": _subresources(kind),
                    "additionalPrinterColumns": [column.body() for column in traits(kind).columns],
                    "schema": {"openAPIV3Schema": schema(kind)},
                }
            ],
        },
    }


def schema(kind: type[Object]) -> dict[str, Any]:
    """The whole object's: its name's rules at the root, its spec immutable but for some fields."""
    spec = crd_schema.of(_model(kind, "spec"))
    for name in crd_schema.SERVER_DEFAULTS:
        if name in spec["properties"]:
            spec["properties"][name]["default"] = _model(kind, "spec").model_fields[_snake(kind, name)].default
    its = traits(kind)
    return {
        "description": " ".join((inspect.getdoc(kind) or "").split()),
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"{API_VERSION}."},
            "kind": {"type": "string", "description": f"{kind.__name__}."},
            "metadata": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 253}}},
            "spec": crd_rules.immutable(spec, its.noun, its.changeable),
            "status": {"description": STATUS} | crd_schema.of(_model(kind, "status"), defaults=False),
        },
        "x-kubernetes-validations": [rule.body() for rule in crd_rules.name(its.name_length)],
    }


def text(crd: dict[str, Any]) -> str:
    """The YAML file of a definition."""
    return HEADER + yaml.dump(crd, Dumper=_Plain, sort_keys=False, width=120, allow_unicode=True)


def file_name(crd: dict[str, Any]) -> str:
    return f"{GROUP}_{crd['spec']['names']['plural']}.yaml"


def _model(kind: type[Object], field: str) -> Any:
    return kind.model_fields[field].annotation


def _snake(kind: type[Object], alias: str) -> str:
    return next(name for name, info in _model(kind, "spec").model_fields.items() if info.alias == alias)


def _subresources(kind: type[Object]) -> dict[str, Any]:
    scale = {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}
    return {"status": {}} | ({"scale": scale} if kind is Endpoint else {})


class _Plain(yaml.SafeDumper):
    """Without anchors: a file for people, and for tools that know none."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
