"""Client of a Kubernetes API server: one method, plain dicts. The only module that imports `kubernetes`.

The official client is used only to find the server and its credentials (service account with token rotation, kubeconfig
with plugins) and to build the TLS pool. Its typed layer is not used, because it costs memory and lacks the custom
resources that matter here. Every request has a deadline, because a half-open connection would otherwise block a worker
forever. Requests are not retried here; callers decide when to retry (`api_errors`).
"""

from __future__ import annotations

import abc
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3
from kubernetes import config
from kubernetes.client import Configuration, rest

from gog.errors import UserError

READ_SECONDS = 20.0
WRITE_SECONDS = 5.0
"""Shorter than the remaining term of a lease that cannot be renewed, so that no write lands after another operator may
have acquired it."""
JSON = "application/json"
MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"
PAGE = 250
"""Objects per page of a list."""
TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")

Document = dict[str, Any]


class ApiError(Exception):
    """An error response, or no response.

    Attributes:
        status: HTTP status; 0 without a response.
        reason: Reason in the response, such as `AlreadyExists`.
        message: Message in the response.
        retry_after: Value of Retry-After in seconds; 0 if absent.
    """

    def __init__(self, status: int, reason: str, message: str, retry_after: float = 0.0) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status, self.reason, self.message, self.retry_after = status, reason, message, retry_after

    @property
    def missing_type(self) -> bool:
        """Whether the server does not have the resource type, rather than the object."""
        unknown = "could not find the requested resource" in self.message or "page not found" in self.message
        return self.status == 404 and unknown


@dataclass(frozen=True)
class Request:
    """One request to an API server."""

    method: str
    """GET, POST, PATCH or DELETE."""
    path: str
    """`/apis/batch/v1/namespaces/x/jobs`"""
    body: Mapping[str, Any] | None = None
    """Document to send."""
    query: Mapping[str, str] | None = None
    """URL parameters."""
    content: str = JSON
    """Content type of the body, which selects the kind of a patch."""

    @property
    def writes(self) -> bool:
        return self.method != "GET"


class Api(abc.ABC):
    """A client of an API server, or a layer around one."""

    @abc.abstractmethod
    def send(self, request: Request) -> Document:
        """Sends one request. Raises ApiError."""

    def call(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
        content: str = JSON,
    ) -> Document:
        """Sends a request given by its parts. Raises ApiError."""
        return self.send(Request(method, path, body, query, content))


class KubeApi(Api):
    """The API server of a configuration.

    Args:
        configuration: Configuration of the official client.
        connections: Number of threads that send requests at the same time.
    """

    def __init__(self, configuration: Any, connections: int) -> None:
        configuration.connection_pool_maxsize = connections
        configuration.retries = False
        self.configuration = configuration
        self.pool = rest.RESTClientObject(configuration).pool_manager

    def send(self, request: Request) -> Document:
        if {".", ".."} & set(request.path.split("/")):  # urllib3 would resolve these to another path
            raise ApiError(404, "NotFound", f"{request.path} is not a path of an object")
        headers = {"Accept": JSON, "Content-Type": request.content, "User-Agent": "gog-operator"}
        token = self.configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        if token:
            headers["Authorization"] = token
        query = f"?{urlencode(request.query)}" if request.query else ""
        try:
            answer = self.pool.request(
                request.method,
                f"{self.configuration.host}{request.path}{query}",
                body=None if request.body is None else json.dumps(request.body).encode(),
                headers=headers,
                timeout=urllib3.Timeout(total=WRITE_SECONDS if request.writes else READ_SECONDS),
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ApiError(0, type(error).__name__, str(error)) from None
        return parse_answer(answer.status, answer.headers, answer.data)


def parse_answer(status: int, headers: Mapping[str, str], data: bytes) -> Document:
    """The document in a response. Raises ApiError for an error response or one that is not a document."""
    try:
        document = json.loads(data) if data else {}
    except ValueError:
        document = {"message": data[:500].decode(errors="replace").strip()}
        status = status if status >= 400 else 0
    if 200 <= status < 300 and isinstance(document, dict):
        return document
    error = document if isinstance(document, dict) else {}
    after = str(headers.get("Retry-After") or (error.get("details") or {}).get("retryAfterSeconds") or "")
    wait = float(after) if after.isdigit() else 0.0
    raise ApiError(status, str(error.get("reason") or ""), str(error.get("message") or ""), wait)


def connect(connections: int, kubeconfig: str | None = None) -> KubeApi:
    """The client of the cluster that this pod runs in; outside a cluster, of the kubeconfig's.

    Args:
        connections: Number of threads that send requests at the same time.
        kubeconfig: Path of the kubeconfig; default: KUBECONFIG, else ~/.kube/config.

    Raises:
        UserError: no cluster is configured.
    """
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


def items(api: Api, path: str, selector: str = "", fields: str = "") -> Iterator[Document]:
    """Lists objects, page by page.

    Args:
        api: Client of the API server.
        path: Path of the list.
        selector: Label selector; empty for all.
        fields: Field selector; empty for all.

    Raises:
        ApiError: the list failed; status 410 if the continue token expired between two pages.
    """
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
