"""Creating what an object of ours owns: once, whoever else tries at the same time, and nobody else's by mistake."""

from __future__ import annotations

from typing import Any

from gog_operator.api.meta import Reason
from gog_operator.api.objects import Object
from gog_operator.build import meta
from gog_operator.cluster import documents
from gog_operator.cluster.api_errors import Explained
from gog_operator.cluster.interface import Refused, Unavailable
from gog_operator.cluster.kube import ApiError
from gog_operator.cluster.paths import Resource


def create_owned(api: Explained, resource: Resource, namespace: str, body: dict[str, Any], owner: Object) -> None:
    """POST. One that is there already counts when it is this owner's and made of the same wish.

    Raises Unavailable while a predecessor's is still going, Refused for somebody else's."""
    try:
        api.call("POST", resource.path(namespace), body=body)
    except ApiError as error:
        if error.status != 409:
            raise
        _accept(api, resource, namespace, body, owner)


def _accept(api: Explained, resource: Resource, namespace: str, body: dict[str, Any], owner: Object) -> None:
    name = str(body["metadata"]["name"])
    there = api.find(resource.path(namespace, name))
    if there is None or documents.ending(there):
        raise Unavailable(f"{body['kind']} {name} is being deleted", after=1.0)
    check_owner(there, owner)
    if _hash(there) != _hash(body):
        raise Unavailable(f"{body['kind']} {name} exists, made of another spec")


def check_owner(there: dict[str, Any], owner: Object) -> None:
    """Raises Unavailable or Refused when a document is not the owner's."""
    if documents.owned(there, owner.metadata.uid):
        return
    name = f"{there.get('kind', 'object')} {there['metadata']['name']}"
    if documents.predecessor(there, owner):
        raise Unavailable(f"{name} of an earlier {owner.name} is still there", after=1.0)
    message = f"{name} exists and is not {owner.name}'s (delete it, or give {owner.name} another name)"
    raise Refused(Reason.NAME_TAKEN, message)


def _hash(body: dict[str, Any]) -> str | None:
    value = body["metadata"].get("annotations", {}).get(meta.HASH)
    return str(value) if value is not None else None
