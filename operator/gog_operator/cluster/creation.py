"""Creates objects owned by one of ours: once even if two operators try, and never replacing another owner's object."""

from __future__ import annotations

from typing import Any

from gog_operator.api.meta import Reason
from gog_operator.api.objects import Object
from gog_operator.build import meta
from gog_operator.cluster import documents, paths
from gog_operator.cluster.api_errors import TranslatedApi
from gog_operator.cluster.interface import Refused, Unavailable
from gog_operator.cluster.kube import ApiError
from gog_operator.cluster.paths import Resource


def create_owned(api: TranslatedApi, resource: Resource, namespace: str, body: dict[str, Any], owner: Object) -> None:
    """Creates an object; accepts an existing one that has this owner and was built from the same spec.

    Raises:
        Unavailable: an object of a predecessor, or of another spec, still exists.
        Refused: an object of another owner has the name.
    """
    try:
        api.call("POST", resource.path(namespace), body=body)
    except ApiError as error:
        if error.status != 409:
            raise
        _check_existing(api, resource, namespace, body, owner)


def delete_settings(api: TranslatedApi, namespace: str, name: str, owner_uid: str) -> None:
    """Deletes the ConfigMap of a job, where it is the owner's."""
    path = paths.CONFIG_MAPS.path(namespace, name)
    found = api.find(path)
    if found is not None and documents.owned(found, owner_uid):
        api.delete(path, found["metadata"]["uid"])


def _check_existing(
    api: TranslatedApi, resource: Resource, namespace: str, body: dict[str, Any], owner: Object
) -> None:
    name = str(body["metadata"]["name"])
    existing = api.find(resource.path(namespace, name))
    if existing is None or documents.terminating(existing):
        raise Unavailable(f"{body['kind']} {name} is being deleted", after=1.0)
    check_owner(existing, owner)
    if _hash(existing) != _hash(body):
        raise Unavailable(f"{body['kind']} {name} exists with another spec")


def check_owner(existing: dict[str, Any], owner: Object) -> None:
    """Raises Unavailable or Refused when a document is not the owner's."""
    if documents.owned(existing, owner.metadata.uid):
        return
    name = f"{existing.get('kind', 'object')} {existing['metadata']['name']}"
    if documents.is_predecessor_s(existing, owner):
        raise Unavailable(f"{name} of an earlier {owner.name} still exists", after=1.0)
    message = f"{name} exists and is not {owner.name}'s (delete it, or give {owner.name} another name)"
    raise Refused(Reason.NAME_TAKEN, message)


def _hash(body: dict[str, Any]) -> str | None:
    value = body["metadata"].get("annotations", {}).get(meta.HASH)
    return str(value) if value is not None else None
