"""Who may change what a policy server serves: the control plane that started it, by a token of which it knows a digest."""

from __future__ import annotations

import types
from typing import Any

import pytest
from starlette.testclient import TestClient

from gog import admin_tokens
from gog_tools.policy import server as policy_server

TOKEN = admin_tokens.token(b"k" * 32, "research/world-policy/uid")
CHANGES = {
    "/v1/load_lora_adapter": {"lora_name": "grpo-1", "lora_path": "grpo/1"},
    "/v1/unload_lora_adapter": {"lora_name": "grpo-1"},
    "/v1/default": {"model": "grpo-1"},
}


class Versions:
    """Records what it is asked to change."""

    base, default, paths = "base", "base", {"base": "base"}

    def __init__(self) -> None:
        self.changes: list[str] = []

    def names(self) -> list[str]:
        return ["base"]

    async def load(self, name: str, path: str, gone: Any) -> None:
        self.changes.append(f"load {name}")

    async def unload(self, name: str) -> None:
        self.changes.append(f"unload {name}")

    def set_default(self, name: str) -> None:
        self.changes.append(f"default {name}")


def client(digest: str) -> tuple[TestClient, Versions]:
    versions = Versions()
    policy: Any = types.SimpleNamespace(versions=versions)
    return TestClient(policy_server.application(policy, policy_server.administrator(digest))), versions


def post(to: TestClient, path: str, token: str | None) -> int:
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    status: int = to.post(path, json=CHANGES[path], headers=headers).status_code
    return status


@pytest.mark.parametrize("path", CHANGES)
@pytest.mark.parametrize("token", [None, "", "wrong", admin_tokens.digest(TOKEN), TOKEN.upper()])
def test_a_change_without_the_token_is_refused(path, token):
    server, versions = client(admin_tokens.digest(TOKEN))
    assert post(server, path, token) == 401 and versions.changes == []


@pytest.mark.parametrize("path", CHANGES)
def test_the_control_plane_changes_what_is_served(path):
    server, versions = client(admin_tokens.digest(TOKEN))
    assert post(server, path, TOKEN) == 200 and len(versions.changes) == 1


def test_what_is_served_may_be_listed_by_all():
    assert client(admin_tokens.digest(TOKEN))[0].get("/v1/models").status_code == 200


def test_a_new_digest_counts_without_a_restart_and_without_one_nothing_is_admitted(tmp_path):
    file = tmp_path / "admin"
    server, _ = client(f"@{file}")
    assert post(server, "/v1/default", TOKEN) == 401, "the file is missing"
    file.write_text("")
    assert post(server, "/v1/default", TOKEN) == 401
    file.write_text(admin_tokens.digest(TOKEN) + "\n")
    assert post(server, "/v1/default", TOKEN) == 200
    file.write_text(admin_tokens.digest(admin_tokens.token(b"l" * 32, "research/world-policy/uid")))
    assert post(server, "/v1/default", TOKEN) == 401


def test_on_one_machine_a_server_without_a_digest_admits_all():
    assert post(client("")[0], "/v1/default", None) == 200
