"""What an API server's error means: retry later, or a person must act.

Two kinds of answers are left to the caller, because only the caller knows what they mean: 404 for an object that does
not exist, 409 for one that exists already or has changed meanwhile. Everything else becomes Unavailable (overload,
outage, lost connection: passes by itself) or Refused with a reason and the server's own sentence. The table of all
exceptions is in `interface.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gog_operator.api.meta import Reason
from gog_operator.cluster import paths
from gog_operator.cluster.interface import Refused, Unavailable
from gog_operator.cluster.kube import APPLY, MERGE, Api, ApiError, Document, Request

TRANSIENT = (0, 401, 408, 410, 429)
"""Statuses that pass by themselves, besides those from 500: a token is rotated, a list is begun again."""
MAX_MESSAGE = 1000
"""Characters of a server's sentence that are passed on."""


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
        """The object at a path; None if it does not exist. A resource that the server does not know has no objects."""
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
            ApiError: 409, when the patch names the resource version that it is for.
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
        """Server-side apply: sets the fields of the document; fields of other managers stay."""
        query = {"fieldManager": manager, "force": "true"}
        try:
            self.call("PATCH", path, body=document, query=query, content=APPLY)
        except ApiError as error:
            if error.status != 404:
                raise Unavailable(f"{path}: {error}") from None
            raise Refused(Reason.NAMESPACE_ENDING, error.message) from None

    def delete(self, path: str, uid: str = "", *, foreground: bool = False) -> None:
        """Deletes the object of that uid, if it still exists and no other has taken its name.

        Args:
            path: of the object.
            uid: of the object; "" for whichever has the name.
            foreground: whether its dependents go first.
        """
        body: Document = {"propagationPolicy": "Foreground" if foreground else "Background"}
        if uid:
            body["preconditions"] = {"uid": uid}
        try:
            self.call("DELETE", path, body=body)
        except ApiError as error:
            if error.status == 404 or (error.status == 409 and uid):
                return
            raise Unavailable(f"{path}: {error}") from None


def translate(error: ApiError, method: str, path: str) -> Refused | Unavailable | None:
    """The exception for an error; None if only the caller can tell what it means."""
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
        product = resource.product if resource else "its maker"
        name = f"{resource.plural}.{resource.group}" if resource else path
        return Refused(Reason.CRD_MISSING, f"{product} is not installed: the cluster knows no {name}")
    if method == "POST":
        return Refused(Reason.NAMESPACE_ENDING, error.message)
    return None
