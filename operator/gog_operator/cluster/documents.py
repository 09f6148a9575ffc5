"""Converts between API documents and our objects.

A cluster adds metadata that is not needed here, and documents may come from a newer gog or from an editor. An object
that cannot be parsed is reported in its own status, with the same messages as for a manifest; other objects are not
affected.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from gog import validation
from gog.offers import Published
from gog.spec import AgentSettings, ToolsSpec
from gog_operator.api import lenient, patches, problems
from gog_operator.api.meta import API_VERSION, LENIENT, Metadata, OwnerReference
from gog_operator.api.objects import Object, Status, document


class Unreadable(Exception):
    """An object that does not match our models.

    Attributes:
        kind: Kind of the object.
        name: Name of the object.
        sentence: Field, cause and remedy.
        body: The unchanged document.
    """

    def __init__(self, kind: str, name: str, sentence: str, body: Mapping[str, Any]) -> None:
        super().__init__(sentence)
        self.kind, self.name, self.sentence, self.body = kind, name, sentence, body


VERSION = re.compile(r"[a-z][-a-z0-9]{0,99}/[0-9]{1,9}")
"""A version of an agent."""
METADATA = {field.alias or name for name, field in Metadata.model_fields.items()}
OWNER = {field.alias or name for name, field in OwnerReference.model_fields.items()}
CREATED = ("name", "labels", "annotations", "ownerReferences")
"""Metadata fields that are set on a new object."""
Thing = TypeVar("Thing", bound=Object)


def parse(kind: type[Thing], body: Mapping[str, Any]) -> Thing:
    """The object of an API document.

    An object of a newer version is accepted: unknown condition types and reasons are kept, so that a patch of the status
    does not remove them. Unknown fields, and unknown words of enumerations, are ignored; those of a spec are named by the
    object, because a setting that is ignored may train something else.

    Raises:
        Unreadable: something else is wrong, or a required field has an unknown value.
    """
    metadata = {key: value for key, value in body.get("metadata", {}).items() if key in METADATA}
    metadata["ownerReferences"] = [
        {key: value for key, value in each.items() if key in OWNER} for each in metadata.get("ownerReferences", ())
    ]
    known = {key: body[key] for key in ("apiVersion", "kind", "spec", "status") if key in body}
    known.setdefault("spec", {})
    given = {"kind": kind.__name__, **known, "metadata": metadata}
    try:
        return kind.model_validate(given, context=LENIENT)
    except ValidationError as error:
        newer = lenient.understood(kind, given)
        if newer is not None:
            return newer
        sentence = problems.explain(error, kind, where=kind.__name__).sentence()
        raise Unreadable(kind.__name__, metadata.get("name", ""), sentence, body) from None


def created(thing: Object, namespace: str) -> dict[str, Any]:
    """The document that creates an object. Its owner references make foreground deletion of the owner wait for it."""
    body = document(thing)
    body.pop("status", None)
    metadata = {key: value for key, value in body["metadata"].items() if key in CREATED}
    for owner in metadata.get("ownerReferences", ()):
        owner |= {"apiVersion": API_VERSION, "controller": True, "blockOwnerDeletion": True}
    return {**body, "metadata": {**metadata, "namespace": namespace}}


def status_patch(old: Status, new: Status) -> dict[str, Any]:
    """The merge patch that turns one status into the other."""
    return patches.merge_patch(_plain(old), _plain(new))


def _plain(status: Status) -> dict[str, Any]:
    # A field set to None is absent, as in what the server returns; otherwise every reconcile would patch it.
    return status.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)


def published(result: Mapping[str, Any]) -> Published:
    """The result of a publication, which a tenant's pod wrote; what does not fit counts as no version."""
    version, sentence = str(result.get("version") or ""), str(result.get("sentence") or "")
    try:
        caps = AgentSettings.model_validate(result.get("settings") or {})
        tools = ToolsSpec.model_validate(result.get("tools") or {})
    except ValidationError as error:
        return Published("", f"the result of the publication is not valid: {validation.first_sentence(error)}")
    if version and not VERSION.fullmatch(version):
        return Published("", "the result of the publication names no version")
    given = (each.as_given() for each in (caps, tools))
    return Published(version, sentence, *given)


def owned(body: Mapping[str, Any], uid: str) -> bool:
    """Whether an owner of the document has that uid."""
    return any(each.get("uid") == uid for each in body.get("metadata", {}).get("ownerReferences") or ())


def is_predecessor_s(body: Mapping[str, Any], owner: Object) -> bool:
    """Whether the document belongs to an earlier object of the owner's name, and is about to be garbage-collected."""
    owners = body.get("metadata", {}).get("ownerReferences") or ()
    return any((each.get("kind"), each.get("name")) == owner.key for each in owners)


def terminating(body: Mapping[str, Any]) -> bool:
    """Whether the object is being deleted."""
    return bool(body.get("metadata", {}).get("deletionTimestamp"))
