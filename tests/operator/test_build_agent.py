"""An agent as an InferenceService: its limits and keys, its routes, and what restarts its pods."""

from __future__ import annotations

import json
from typing import Any

import support.operator_golden as golden

from gog_operator.build import agents, inference, meta

GIVEN: dict[str, Any] = {
    "model": {"base": "tiny"},
    "endpoints": {"policy": {}, "imageSearch": {"backend": "serpapi-lens", "secretName": "lens"}},
    "settings": {"maxTurns": 6},
    "tools": {"cropSide": 28},
    "limits": {"ratePerMinute": 30, "chats": 8, "waiting": 2, "seconds": 45},
    "keysSecretName": "callers",
}


def agent(version: str = "assistant/1", **given: Any) -> Any:
    data = {"uri": "s3://bucket/world"}
    return golden.tool_server("agent", "assistant", data=data, version=version, agent={**GIVEN, **given})


def pod(**given: Any) -> dict[str, Any]:
    found: dict[str, Any] = inference.service(agent(**given), golden.PLATFORM, None)["spec"]["predictor"]
    return found


def flags(**given: Any) -> dict[str, str]:
    line = pod(**given)["containers"][0]["command"]
    return dict(zip(line[3::2], line[4::2], strict=True))


def test_limits_of_chats_and_of_their_caps_are_on_the_command_line():
    found = flags()
    assert {name: found[f"--{name}"] for name in ("rate-per-minute", "chats", "waiting", "seconds")} == {
        "rate-per-minute": "30", "chats": "8", "waiting": "2", "seconds": "45",
    }  # fmt: skip
    assert json.loads(found["--settings"]) == {"max_turns": 6} and json.loads(found["--limits"]) == {"crop_side": 28}
    assert found["--style"] == "terse", "the tiny model reads no other"


def test_callers_need_a_key_of_the_secret_and_tools_are_called_with_theirs():
    assert flags()["--keys"] == "/etc/gog-keys/keys.json" and "--keys" not in flags(keysSecretName=None)
    (volume,) = [each["secret"] for each in pod()["volumes"] if each["name"] == "gog-keys"]
    assert volume == {"secretName": "callers", "items": [{"key": "keys.json", "path": "keys.json"}]}
    (key,) = [each for each in pod()["containers"][0]["env"] if each["name"] == "IMAGE_SEARCH_GOG_API_KEY"]
    assert key["valueFrom"]["secretKeyRef"]["name"] == "lens"


def test_its_pods_follow_a_file_so_that_a_version_restarts_none_and_a_limit_does():
    assert flags()["--routes"] == "/etc/gog/routes.json"
    (config,) = [each["configMap"] for each in pod()["volumes"] if each["name"] == "config"]
    written = inference.routes_file(agent(), "{}")
    assert config["name"] == written["metadata"]["name"] and written["data"] == {"routes.json": "{}"}

    def fingerprint(*version: str, **given: Any) -> str:
        head = inference.service(agent(*version, **given), golden.PLATFORM, None)["metadata"]
        return str(head["annotations"][meta.HASH])

    assert fingerprint() == fingerprint("assistant/2") != fingerprint(limits={"chats": 9})


def test_it_needs_neither_a_model_nor_a_store():
    assert pod()["containers"][0]["image"] == golden.PLATFORM.tools_image
    assert not {"--model", "--store", "--data"} & flags().keys()


def test_routes_name_the_versions_as_the_policy_does_and_no_server_that_the_policy_may_not_call():
    urls = {"policy": "http://p", "textSearch": "http://t"}
    found = json.loads(agents.routes(agent(), urls, "assistant/1", "assistant/2"))
    assert found == {
        "policy": "http://p", "tools": {"textSearch": "http://t"}, "served": "assistant-1", "canary": "assistant-2",
        "share": 0.1,
    }  # fmt: skip
    assert json.loads(agents.routes(agent(), urls, "assistant/1", ""))["share"] == 0.0
