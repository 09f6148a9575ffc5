"""The operator's own key: made once, the same for all replicas, and never replaced by a guess."""

from __future__ import annotations

import base64

import pytest

from gog.errors import UserError
from gog_operator.cluster import admin_key
from gog_operator.cluster.kube import Api, ApiError


class Server(Api):
    """A server with Secrets by path, and errors to answer with first."""

    def __init__(self, *errors: ApiError) -> None:
        self.secrets, self.errors, self.requests = {}, list(errors), []

    def send(self, request):
        self.requests.append(f"{request.method} {request.path}")
        if self.errors:
            raise self.errors.pop(0)
        if request.method == "GET":
            if request.path not in self.secrets:
                raise ApiError(404, "NotFound", "secrets")
            return self.secrets[request.path]
        path = f"{request.path}/{request.body['metadata']['name']}"
        if path in self.secrets:
            raise ApiError(409, "AlreadyExists", "secrets")
        self.secrets[path] = dict(request.body)
        return {}


def ensure(server, pauses=None):
    return admin_key.ensure(server, "gog-system", "gog-operator-key", (pauses if pauses is not None else []).append)


def test_the_first_start_makes_a_key_and_every_later_one_reads_it():
    server = Server()
    first = ensure(server)
    assert len(first) == 32 and ensure(server) == first
    assert server.requests.count("POST /api/v1/namespaces/gog-system/secrets") == 1


def test_two_replicas_that_start_at_once_have_one_key():
    server = Server()
    theirs = ensure(server)
    server.errors = [ApiError(404, "NotFound", "secrets")]  # the first look of the slower one was before the creation
    assert ensure(server) == theirs


def test_an_api_server_that_is_down_is_waited_for():
    pauses: list[float] = []
    assert ensure(Server(*[ApiError(503, "", "down")] * 3, ApiError(0, "", "refused")), pauses)
    assert len(pauses) == 4


def test_a_missing_permission_ends_the_start_at_once():
    with pytest.raises(ApiError, match="403"):
        ensure(Server(ApiError(403, "Forbidden", "secrets is forbidden")))


@pytest.mark.parametrize("content", ["", "bm8=", "not base64!", base64.b64encode(b"k" * 31).decode()])
def test_a_secret_without_a_key_is_not_used_and_not_replaced(content):
    server = Server()
    server.secrets["/api/v1/namespaces/gog-system/secrets/gog-operator-key"] = {"data": {"key": content}}
    with pytest.raises(UserError, match=r"Secret gog-system/gog-operator-key: has no key of 32 bytes \(delete it"):
        ensure(server)
