"""Files for pods, as a ConfigMap. Immutable: an attempt's settings never change under it, and kubelets need not watch."""

from __future__ import annotations

from typing import Any

from gog_operator.api.objects import Object
from gog_operator.build import meta


def configmap(name: str, owner: Object, files: dict[str, str], *, component: str = "settings") -> dict[str, Any]:
    """files: text by file name."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": meta.head(name, owner, component),
        "immutable": True,
        "data": dict(files),
    }
