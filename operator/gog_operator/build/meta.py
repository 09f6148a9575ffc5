"""Metadata of all objects that the operator creates: their owner, for garbage collection, and labels for `kubectl get -l`."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from gog.store import writers
from gog_operator.api.meta import RUN_LABEL
from gog_operator.api.objects import GoGRun, Object

OWNER_LABEL = "gog.dev/owner"
ATTEMPT_LABEL = "gog.dev/attempt"
HASH = "gog.dev/spec-hash"
"""Annotation that distinguishes an object that gog created from another of its name, and a changed spec from an
unchanged one."""

Document = dict[str, Any]


def head(name: str, owner: Object, component: str, **annotations: str) -> Document:
    """metadata of an object in the owner's namespace that is deleted with its owner.

    Args:
        name: Name of the object.
        owner: The run, stage or ToolServer that it belongs to.
        component: trainer, store-job, tool-check, settings, or a server's role.
        annotations: Annotations by name.
    """
    reference = owner.owner_reference().model_dump(mode="json", by_alias=True)
    metadata: Document = {
        "name": name,
        "labels": labels(owner, component),
        "ownerReferences": [{**reference, "controller": True, "blockOwnerDeletion": True}],
    }
    if owner.metadata.namespace:
        metadata["namespace"] = owner.metadata.namespace
    if annotations:
        metadata["annotations"] = annotations
    return metadata


def writer(owner: Object) -> dict[str, str]:
    """The environment by which a process registers in a store: for the run that its object belongs to, else the object."""
    run = next((each for each in owner.metadata.owner_references if each.kind == "GoGRun"), None)
    kind, name, uid = (owner.kind, owner.name, owner.metadata.uid) if run is None else (run.kind, run.name, run.uid)
    if not uid:
        return {}  # on one machine
    made = writers.Writer(uid=uid, kind=kind, namespace=owner.metadata.namespace or "", name=name)
    return {writers.VARIABLE: made.model_dump_json()}


def labels(owner: Object, component: str) -> dict[str, str]:
    """Labels of an object. component: trainer, store-job, settings, or a server's role."""
    run = owner.name if isinstance(owner, GoGRun) else owner.metadata.labels.get(RUN_LABEL, "")
    return {
        "app.kubernetes.io/name": "gog",
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/managed-by": "gog-operator",
        OWNER_LABEL: owner.name,
        **({RUN_LABEL: run} if run else {}),
    }


def fingerprint(body: Any) -> str:
    """A hash of a JSON value: 16 hexadecimal digits."""
    text = json.dumps(body, sort_keys=True, ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
