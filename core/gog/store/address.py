"""Opening a store by its address."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlparse

from pydantic import ValidationError

from gog.errors import UserError
from gog.spec import StoreSpec
from gog.store.checkpoints import Store
from gog.store.faults import Patience
from gog.store.files import FileBackend
from gog.store.s3 import S3Backend

_probed: set[StoreSpec] = set()
"""Stores that this process has probed successfully."""


def open_store(spec: StoreSpec | str, patience: Patience | None = None) -> Store:
    """The store at an address. Each process probes it once.

    Args:
        spec: address and options, or an address alone.
        patience: how long requests to a bucket are retried. Default: two minutes.

    Raises:
        UserError: the scheme is not supported, a folder that cannot be written, a bucket that is missing or forbidden, or a server
            that ignores preconditions.
        Unavailable: the server does not answer.
    """
    spec = _spec(spec) if isinstance(spec, str) else spec
    store = open_reader(spec, patience)
    if spec.uri.startswith("file://"):
        store.probe()
    elif spec not in _probed:
        store.probe()
        _probed.add(spec)
    return store


def open_reader(spec: StoreSpec, patience: Patience | None = None) -> Store:
    """The store at an address for a reader. It is not probed, because that writes.

    Args:
        spec: address and options.
        patience: as for `open_store`.

    Raises:
        UserError: an option cannot work, or boto3 is not installed.
    """
    if spec.uri.startswith("file://"):
        address = urlparse(spec.uri)
        return Store(FileBackend(Path(unquote(address.netloc + address.path)).absolute()))
    return Store(S3Backend(spec, *bucket_and_prefix(spec.uri), patience or Patience()))


def _spec(uri: str) -> StoreSpec:
    try:
        return StoreSpec(uri=uri)
    except ValidationError:
        remedy = "use file:///folder or s3://bucket/prefix"
        raise UserError(f"scheme {urlparse(uri).scheme!r} is not supported", where=uri, remedy=remedy) from None


def bucket_and_prefix(uri: str) -> tuple[str, str]:
    """Bucket and prefix of an s3:// address; the prefix has no slash at either end and may be empty.

    Raises:
        UserError: there is no bucket.
    """
    bucket, _, prefix = uri.strip().removeprefix("s3://").partition("/")
    if not bucket:
        raise UserError("no bucket", where=uri, remedy="write s3://bucket/prefix")
    return bucket, prefix.strip("/")
