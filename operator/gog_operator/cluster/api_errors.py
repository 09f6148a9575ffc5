"""What an API server's no means: try again later, or tell a person.

Two kinds of answers are left to whoever asked, because only he knows what they mean: 404 for an object that is not
there, 409 for one that is there already or was changed meanwhile. Everything else becomes Unavailable (overload,
outage, lost connections: nobody needs to do anything) or Refused with a reason and the server's own sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gog_operator.api.meta import Reason
from gog_operator.cluster import paths
from gog_operator.cluster.interface import Refused, Unavailable
from gog_operator.cluster.kube import APPLY, MERGE, Api, ApiError

LATER = (0, 401, 408, 410, 429)
LONGEST = 1000
"""Characters of a server's sentence that are passed on."""


class Explained:
    """An Api whose errors are ApiError 404 and 409, Unavailable and Refused."""

    def __init__(self, api: Api) -> None:
        self.api = api

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        content: str = "application/json",
    ) -> dict[str, Any]:
        try:
            return self.api.call(method, path, body=body, query=query, content=content)
        except ApiError as error:
            told = explained(error, method, path)
            if told is None:
                raise
            raise told from None

    def find(self, path: str) -> dict[str, Any] | None:
        """The object of a path, None where there is none. A resource that the server does not know has no objects."""
        try:
            return self.api.call("GET", path)
        except ApiError as error:
            if error.status == 404:
                return None
            told = explained(error, "GET", path)
            if told is None:
                raise
            raise told from None

    def merge(self, path: str, patch: Mapping[str, Any]) -> bool:
        """Merges fields into an object; False when there is none. Raises ApiError 409 when the patch says which version it
        is for."""
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
        """Server-side apply: what is ours in the object becomes so; what others said of it stays."""
        query = {"fieldManager": manager, "force": "true"}
        try:
            self.call("PATCH", path, body=document, query=query, content=APPLY)
        except ApiError as error:
            if error.status != 404:
                raise Unavailable(f"{path}: {error}") from None
            raise Refused(Reason.NAMESPACE_ENDING, error.message) from None

    def drop(self, path: str, uid: str = "", *, foreground: bool = False) -> None:
        """Deletes the object of that uid; gone already, or another of the name there now, is as good."""
        body: dict[str, Any] = {"propagationPolicy": "Foreground" if foreground else "Background"}
        if uid:
            body["preconditions"] = {"uid": uid}
        try:
            self.call("DELETE", path, body=body)
        except ApiError as error:
            if error.status == 404 or (error.status == 409 and uid):
                return
            raise Unavailable(f"{path}: {error}") from None


def explained(error: ApiError, method: str, path: str) -> Refused | Unavailable | None:
    """None: whoever asked must know."""
    message = error.message[:LONGEST]
    if error.status in LATER or error.status >= 500:
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
