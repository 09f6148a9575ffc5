"""Objects that one other service may fetch for a short time, and that are deleted afterwards.

An image search of a vendor fetches the image from an address. The address is a presigned one of a random key, valid for
minutes; the object is deleted when its use ends, whatever happens. What a killed process leaves behind can no longer be
fetched, and is deleted by the next one that starts.
"""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from gog.errors import UserError
from gog.spec import StoreSpec
from gog.store.address import bucket_and_prefix
from gog.store.backend import Unavailable
from gog.store.client import Client
from gog.store.faults import Patience, Refusal
from gog.store.s3 import S3Backend

FOLDER = "published/"
LEFT_BEHIND = timedelta(hours=1)
"""Age of an object that no process still uses."""

log = logging.getLogger(__name__)


class Publisher:
    """Publishes objects in a bucket. May be used by several threads."""

    def __init__(
        self, spec: StoreSpec, *, seconds: int, public_endpoint: str | None = None, patience: Patience | None = None
    ) -> None:
        """Opens a bucket, tries it, and deletes what earlier processes have left behind.

        Args:
            spec: address of the bucket and a prefix in it; credentials come from the environment.
            seconds: for which an address can be fetched.
            public_endpoint: address under which others reach the server, where it differs from the store's.
            patience: how long requests are retried.

        Raises:
            UserError: no bucket, no permission, or no s3:// address.
            Unavailable: the server does not answer.
        """
        if not spec.uri.startswith("s3://"):
            raise UserError(
                "only s3:// objects can be published", where=spec.uri, remedy="name a bucket: s3://bucket/prefix"
            )
        bucket, prefix = bucket_and_prefix(spec.uri)
        patience = patience or Patience(budget=20.0)
        self._seconds = seconds
        self._backend = S3Backend(spec, bucket, prefix, patience)
        public = spec if public_endpoint is None else spec.model_copy(update={"endpoint_url": public_endpoint})
        self._signer = Client(public, bucket, patience)
        self._try()

    def _try(self) -> None:
        key = f"{FOLDER}probe-{uuid.uuid4().hex}"
        self._backend.put(key, b"1", "text/plain")
        self._backend.delete(key)
        before = datetime.now(UTC) - LEFT_BEHIND
        for entry in list(self._backend.entries(FOLDER)):
            if entry.modified < before:
                self._backend.delete(entry.key)

    @contextlib.contextmanager
    def published(self, data: bytes, content_type: str, suffix: str = "") -> Iterator[str]:
        """The address of an object, which exists inside the `with` block only.

        Args:
            data: its content.
            content_type: as it is served.
            suffix: of its name, as `.jpg`.

        Raises:
            UserError, Unavailable: it cannot be stored.
        """
        key = f"{FOLDER}{uuid.uuid4().hex}{suffix}"
        try:  # a request that got no answer may have stored the object
            self._backend.put(key, data, content_type)
            yield self._signer.presigned(self._backend.prefix + key, self._seconds)
        finally:
            try:
                self._backend.delete(key)
            except (Unavailable, UserError, Refusal) as error:
                log.warning("a published object was not deleted, but expires: %s", error)
