"""Classifies errors of the API server: transient, or in need of a human.

Two statuses are left to the caller, because their meaning depends on the request: 404 for an object that does not
exist, 409 for an object that already exists or has changed. All other errors become Unavailable (overload, outage, lost
connection; transient) or Refused, with a reason and the server's message. `interface.py` lists all exceptions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gog_operator.api.meta import Reason
from gog_operator.cluster import paths
from gog_operator.cluster.interface import Refused, Unavailable
from gog_operator.cluster.kube import APPLY, MERGE, Api, ApiError, Document, Request

TRANSIENT = (0, 401, 408, 410, 429)
"""Transient statuses below 500, such as 401 while a token is rotated and 410 for an expired list."""
MAX_MESSAGE = 1000
"""Maximum characters of a server's message that are kept."""


class TranslatedApi(Api):
    """An Api whose errors are ApiError 404 and 409, Unavailable and Refused."""

    def __init__(self, api: Api) -> None:
        self.api = api

    def send(self, request: Request) -> Document:
        try:
            return self.api.send(request)
        except ApiError as error:
            translated = translate(error, request.method, request.path)
            if translated is None:
                raise
            raise translated from None

    def find(self, path: str) -> Document | None:
        """The object at a path; None if the object or its resource type does not exist."""
        try:
            return self.api.call("GET", path)
        except ApiError as error:
            if error.status == 404:
                return None
            translated = translate(error, "GET", path)
            if translated is None:
                raise
            raise translated from None

    def merge(self, path: str, patch: Mapping[str, Any]) -> bool:
        """Merges fields into an object. Returns False if it does not exist.

        Raises:
            ApiError: status 409, only if the patch carries a resource version.
        """
        try:
            self.call("PATCH", path, body=patch, content=MERGE)
        except ApiError as error:
            if error.status == 404:
                return False
            if "resourceVersion" in patch.get("metadata", {}):
                raise
            raise Unavailable(f"{path}: {error}") from None
        return True

    def apply(self, path: str, document: Mapping[str, Any], manager: str) -> None:
        """Sets the fields of the document by server-side apply; keeps the fields of other managers."""
        query = {"fieldManager": manager, "force": "true"}
        try:
            self.call("PATCH", path, body=document, query=query, content=APPLY)
        except ApiError as error:
            if error.status != 404:
                raise Unavailable(f"{path}: {error}") from None
            raise Refused(Reason.NAMESPACE_ENDING, error.message) from None

    def delete(self, path: str, uid: str = "", *, foreground: bool = False) -> None:
        """Deletes an object; does nothing if it no longer exists, or if its name now belongs to another uid.

        Args:
            path: Path of the object.
            uid: uid of the object; empty for any.
            foreground: Whether its dependents are deleted first.
        """
        body: Document = {"propagationPolicy": "Foreground" if foreground else "Background"}
        if uid:
            body["preconditions"] = {"uid": uid}
        try:
            self.call("DELETE", path, body=body)
        except ApiError as error:
            if error.status == 404 or (error.status == 409 and uid and not self._holds(path, uid)):
                return
            raise Unavailable(f"{path}: {error}") from None

    def _holds(self, path: str, uid: str) -> bool:
        """Whether the name is still that uid's. A conflict means so, too, where a write came in between."""
        found = self.find(path)
        return found is not None and found["metadata"]["uid"] == uid


def translate(error: ApiError, method: str, path: str) -> Refused | Unavailable | None:
    """The exception for an error; None if its meaning depends on the request."""
    message = error.message[:MAX_MESSAGE]
    if error.status in TRANSIENT or error.status >= 500:
        return Unavailable(f"{method} {path}: {error.status or error.reason} {message}", error.retry_after)
    if error.status == 404:
        return _missing(error, method, path)
    if error.status == 409:
        return None if method != "GET" else Unavailable(f"{method} {path}: {error}")
    if "being terminated" in message:
        return Refused(Reason.NAMESPACE_ENDING, message)
    if "queue" in message and "webhook" in message:
        return Refused(Reason.QUEUE_MISSING, message)
    return Refused(Reason.REFUSED, message or f"{method} {path}: {error.status} {error.reason}")


def _missing(error: ApiError, method: str, path: str) -> Refused | None:
    if error.missing_type:
        resource = paths.resource_of(path)
        product = resource.product if resource else "the product"
        name = f"{resource.plural}.{resource.group}" if resource else path
        return Refused(Reason.CRD_MISSING, f"{product} is not installed: the cluster has no resource {name}")
    if method == "POST":
        return Refused(Reason.NAMESPACE_ENDING, error.message)
    return None
