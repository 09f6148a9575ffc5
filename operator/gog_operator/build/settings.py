"""Files for pods, as a ConfigMap. It is immutable: an attempt's settings never change, and kubelets need not watch it."""

from __future__ import annotations

from typing import Any

from gog_operator.api.objects import Object
from gog_operator.build import meta


def configmap(name: str, owner: Object, files: dict[str, str], *, component: str = "settings") -> dict[str, Any]:
    """A ConfigMap in the owner's namespace. files: contents by file name."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": meta.head(name, owner, component),
        "immutable": True,
        "data": dict(files),
    }
