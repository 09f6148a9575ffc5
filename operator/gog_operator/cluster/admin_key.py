"""The operator's own key, from which the tokens of policy servers are derived.

It is in a Secret of the operator's own namespace, which the operator creates once; that is the only Secret that it may
read. All replicas of a release use the same one. When it is deleted, the next start creates another, and servers learn the
digests of their new tokens from their ConfigMaps.
"""

from __future__ import annotations

import base64
import binascii
import secrets
import time
from collections.abc import Callable

from gog.errors import UserError
from gog_operator.cluster import paths
from gog_operator.cluster.kube import Api, ApiError

FIELD = "key"
BYTES = 32
TRIES, PAUSE = 30, 2.0
"""Tries, and seconds between them, while the API server does not answer; then the process ends and is restarted."""


def ensure(api: Api, namespace: str, name: str, pause: Callable[[float], None] = time.sleep) -> bytes:
    """The key; created where there is none.

    Args:
        api: Client of the API server.
        namespace: The operator's own namespace.
        name: Name of the Secret.
        pause: Waits between tries.

    Raises:
        ApiError: the API server does not answer, or does not allow it.
        UserError: the Secret holds no key.
    """
    for _ in range(TRIES):
        try:
            return _read(api, namespace, name) or _create(api, namespace, name)
        except ApiError as error:
            if 400 <= error.status < 500 and error.status not in (409, 429):
                raise
            pause(PAUSE)
    return _read(api, namespace, name) or _create(api, namespace, name)


def _read(api: Api, namespace: str, name: str) -> bytes:
    """The key; empty where there is no Secret."""
    try:
        body = api.call("GET", paths.SECRETS.path(namespace, name))
    except ApiError as error:
        if error.status == 404:
            return b""
        raise
    try:
        found = base64.b64decode((body.get("data") or {}).get(FIELD, ""), validate=True)
    except binascii.Error:
        found = b""
    if len(found) < BYTES:
        raise UserError(
            f"has no {FIELD} of {BYTES} bytes", where=f"Secret {namespace}/{name}", remedy="delete it; it is made anew"
        )
    return found


def _create(api: Api, namespace: str, name: str) -> bytes:
    """Creates the Secret. Raises ApiError with status 409 where another replica was faster."""
    key = secrets.token_bytes(BYTES)
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app.kubernetes.io/managed-by": "gog-operator"}},
        "type": "Opaque",
        "immutable": True,
        "data": {FIELD: base64.b64encode(key).decode()},
    }
    api.call("POST", paths.SECRETS.path(namespace), body=body)
    return key
