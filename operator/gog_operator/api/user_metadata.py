"""The metadata that a manifest may have: what the API server accepts when an object is created.

gog reads the name, the namespace, labels and annotations. The other fields are accepted, so that a manifest which was
exported from a cluster remains valid, and ignored on one machine.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AwareDatetime, Field

from gog.errors import UserError
from gog.spec import Spec

READ = ("name", "namespace", "labels", "annotations")
"""Fields that gog reads."""
NAME = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
_PREFIX = re.compile(r"[a-z][-a-z0-9]*")
_NAME_PART = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_DOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_NAMESPACE = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
_ANNOTATION_BYTES = 256 * 1024
_NonEmpty = Annotated[str, Field(min_length=1)]


class UserOwner(Spec):
    """An owner reference."""

    api_version: _NonEmpty
    """Group and version of the owner."""
    kind: _NonEmpty
    """Kind of the owner."""
    name: _NonEmpty
    """Name of the owner."""
    uid: _NonEmpty
    """uid of the owner."""
    controller: bool = False
    """Whether the owner manages the object."""
    block_owner_deletion: bool = False
    """Whether a foreground deletion of the owner waits for the object."""


class UserMetadata(Spec):
    """Metadata as a manifest writes it."""

    name: Annotated[str, Field(pattern=NAME)] = Field("", description="Names the run and its folder.")
    generate_name: str = Field("", description="Prefix of a name that is generated.")
    namespace: str = Field("", pattern=_NAMESPACE, max_length=63, description="Namespace, on a cluster.")
    labels: dict[str, str] = Field(default_factory=dict, description="Labels.")
    annotations: dict[str, str] = Field(default_factory=dict, description="Annotations.")
    finalizers: tuple[str, ...] = Field((), description="Finalizers; ignored on one machine.")
    owner_references: tuple[UserOwner, ...] = Field((), description="Owners; ignored on one machine.")
    uid: str = Field("", description="Ignored: the cluster sets it.")
    resource_version: str = Field("", description="Ignored: the cluster sets it.")
    generation: int = Field(0, description="Ignored: the cluster sets it.")
    creation_timestamp: AwareDatetime | None = Field(None, description="Ignored: the cluster sets it.")
    deletion_timestamp: AwareDatetime | None = Field(None, description="Ignored: the cluster sets it.")
    deletion_grace_period_seconds: int | None = Field(None, description="Ignored: the cluster sets it.")
    self_link: str = Field("", description="Ignored: the cluster sets it.")
    managed_fields: tuple[dict[str, Any], ...] = Field((), description="Ignored: the cluster sets it.")


def check(metadata: UserMetadata, *, where: str, longest: int, longest_prefix: int) -> None:
    """Checks names, labels, annotations and finalizers as the API server does.

    Args:
        metadata: The metadata.
        where: The field in errors: `file.yaml: metadata`.
        longest: Most characters of the name.
        longest_prefix: Most characters of `generateName`, where there is no name.

    Raises:
        UserError: the first value that the API server refuses.
    """
    if not metadata.name and not metadata.generate_name:
        raise UserError("missing", where=f"{where}.name", remedy="it names the run and its folder")
    if len(metadata.name) > longest:
        raise _too_long(metadata.name, longest, f"{where}.name")
    if not metadata.name:
        _check_prefix(metadata.generate_name, longest_prefix, f"{where}.generateName")
    for key, value in metadata.labels.items():
        _check_qualified(key, f"{where}.labels")
        if value and not _NAME_PART.fullmatch(value):
            remedy = "at most 63 letters, digits, '-', '_', '.', a letter or digit first and last"
            raise UserError(f"{value!r} is not a label value", where=f"{where}.labels.{key}", remedy=remedy)
    for key in metadata.annotations:
        _check_qualified(key.lower(), f"{where}.annotations")
    if sum(len(f"{key}{value}".encode()) for key, value in metadata.annotations.items()) > _ANNOTATION_BYTES:
        raise UserError("are larger than 256 KiB", where=f"{where}.annotations", remedy="remove some")
    for finalizer in metadata.finalizers:
        _check_qualified(finalizer, f"{where}.finalizers")


def _check_prefix(prefix: str, longest: int, where: str) -> None:
    if not _PREFIX.fullmatch(prefix):
        expected = "lower-case letters, digits and hyphens, the first a letter"
        raise UserError(f"is {prefix!r}, should be {expected}", where=where)
    if len(prefix) > longest:
        raise _too_long(prefix, longest, where)


def _too_long(given: str, limit: int, where: str) -> UserError:
    return UserError(f"is {given!r}, should be at most {limit} characters", where=where)


def _check_qualified(key: str, where: str) -> None:
    """A name with or without a domain before it: `example.org/team`."""
    domain, slash, name = key.rpartition("/")
    if not _NAME_PART.fullmatch(name) or (slash and not (len(domain) <= 253 and _DOMAIN.fullmatch(domain))):
        remedy = "write NAME or DOMAIN/NAME, a name of at most 63 letters, digits, '-', '_', '.'"
        raise UserError(f"{key!r} is not a qualified name", where=where, remedy=remedy)
