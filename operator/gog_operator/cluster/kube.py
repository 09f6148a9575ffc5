"""Speaking to a Kubernetes API server: one method, plain dicts. The only importer of `kubernetes`.

Of the official client only what is hard is used: finding the server and its credentials (service account with token
rotation, kubeconfig with plugins) and building the TLS pool. Its typed layer is left out: it costs memory, and it knows
none of the resources that matter here. Every request has a deadline, because a half-open connection would otherwise
keep a worker for ever. Nothing is tried again here: whoever asked knows better when.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlencode

import urllib3
from kubernetes import config
from kubernetes.client import Configuration, rest

from gog.errors import UserError

READ_SECONDS = 20.0
WRITE_SECONDS = 5.0
"""Shorter than what remains of a lease that cannot be renewed: no write lands after somebody else may have begun."""
MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"
PAGE = 250
TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


class ApiError(Exception):
    """The server said no, or nothing (status 0). retry_after: seconds that it asks for."""

    def __init__(self, status: int, reason: str, message: str, retry_after: float = 0.0) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status, self.reason, self.message, self.retry_after = status, reason, message, retry_after

    @property
    def missing_type(self) -> bool:
        """Whether the server knows no such resource at all, rather than no object of that name."""
        unknown = "could not find the requested resource" in self.message or "page not found" in self.message
        return self.status == 404 and unknown


class Api(Protocol):
    def call(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        content: str = "application/json",
    ) -> dict[str, Any]:
        """One request. Raises ApiError."""


class KubeApi:
    """The API server of a configuration. connections: how many threads speak at once."""

    def __init__(self, configuration: Any, connections: int) -> None:
        configuration.connection_pool_maxsize = connections
        configuration.retries = False
        self.configuration = configuration
        self.pool = rest.RESTClientObject(configuration).pool_manager

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        content: str = "application/json",
    ) -> dict[str, Any]:
        headers = {"Accept": "application/json", "Content-Type": content, "User-Agent": "gog-operator"}
        token = self.configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        if token:
            headers["Authorization"] = token
        try:
            answer = self.pool.request(
                method,
                f"{self.configuration.host}{path}{'?' + urlencode(query) if query else ''}",
                body=None if body is None else json.dumps(body).encode(),
                headers=headers,
                timeout=urllib3.Timeout(total=READ_SECONDS if method == "GET" else WRITE_SECONDS),
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ApiError(0, type(error).__name__, str(error)) from None
        return understood(answer.status, answer.headers, answer.data)


def understood(status: int, headers: Mapping[str, str], data: bytes) -> dict[str, Any]:
    """The document of an answer. Raises ApiError for one that is an error, or no document."""
    try:
        document = json.loads(data) if data else {}
    except ValueError:
        document = {"message": data[:500].decode(errors="replace").strip()}
        status = status if status >= 400 else 0
    if 200 <= status < 300 and isinstance(document, dict):
        return document
    told = document if isinstance(document, dict) else {}
    after = str(headers.get("Retry-After") or (told.get("details") or {}).get("retryAfterSeconds") or "")
    wait = float(after) if after.isdigit() else 0.0
    raise ApiError(status, str(told.get("reason") or ""), str(told.get("message") or ""), wait)


def connect(connections: int, kubeconfig: str | None = None) -> KubeApi:
    """The API server of the pod that this is, else of the kubeconfig. Raises UserError."""
    configuration = Configuration()
    try:
        if kubeconfig is None and "KUBERNETES_SERVICE_HOST" in os.environ and TOKEN.exists():
            config.load_incluster_config(client_configuration=configuration)
        else:
            config.load_kube_config(config_file=kubeconfig, client_configuration=configuration)
    except config.ConfigException as error:
        remedy = "set KUBECONFIG, or run it in a pod with a service account"
        raise UserError(f"no cluster is configured: {error}", remedy=remedy) from None
    return KubeApi(configuration, connections)


def items(api: Api, path: str, selector: str = "", fields: str = "") -> Iterator[dict[str, Any]]:
    """Every object of a list, page by page. Raises ApiError; with 410 when the list grew too old meanwhile."""
    query = {"limit": str(PAGE)}
    if selector:
        query["labelSelector"] = selector
    if fields:
        query["fieldSelector"] = fields
    while True:
        page = api.call("GET", path, query=query)
        yield from page.get("items") or ()
        more = page.get("metadata", {}).get("continue")
        if not more:
            return
        query = {**query, "continue": more}
