"""A real language model over the wire, as judge and as policy: for the protocol, not for the quality of 135M parameters."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from support import llama_server
from support.builders import make_image

from gog import actions, prompts
from gog.engine import Limits
from gog.errors import ServiceDown
from gog.outage import Watch
from gog.spec import CacheSpec, ModelEndpoint, OutageSpec, StoreSpec, ToolsSpec
from gog.tool_client import Toolbox
from gog.tool_types import FailureKind, Reply
from gog_console import cli
from gog_recipes.rollout.chat import ChatEngine

pytestmark = pytest.mark.slow

YES_OR_NO = 'root ::= "Yes" | "No"'
"""A grammar in llama.cpp's form, which is sent as a further field of requests."""
ANSWER = 'root ::= "<think>" [a-z ]{1,20} "</think><answer>" [A-Za-z]{1,20} "</answer>"'


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with llama_server.serving() as url:
        yield url


def judge(url: str, **settings: Any) -> Reply[bool]:
    tools = ToolsSpec.model_validate(
        {"judge": {"maxTokens": 48, "deadlineSeconds": 120, "budgetSeconds": 120, **settings}}
    )

    async def scenario() -> Reply[bool]:
        quiet = tools.model_copy(update={"cache": CacheSpec(mode="off")})
        async with Toolbox({"judge": url}, quiet, "smollm2") as toolbox:
            return await toolbox.judge("What is the capital of France?", ["Paris"], "Paris")

    return asyncio.run(scenario())


def test_a_small_model_judges_or_is_undecided_and_its_words_are_kept(server: str) -> None:
    reply = judge(server)
    if reply.failure is not None:
        assert reply.failure.kind is FailureKind.UNDECIDED and reply.failure.message
    assert reply.attempts == 1


def test_further_fields_reach_the_server_which_then_can_say_only_yes_or_no(server: str) -> None:
    reply = judge(server, request={"grammar": YES_OR_NO})
    assert reply.failure is None and reply.value in (True, False)


def test_votes_are_requests_of_their_own(server: str) -> None:
    reply = judge(server, request={"grammar": YES_OR_NO}, votes=3)
    assert reply.failure is None and reply.attempts == 3


def test_a_judge_without_room_is_undecided_and_the_remedy_is_named(server: str) -> None:
    reply = judge(server, maxTokens=1, request={"grammar": 'root ::= "The answer is correct."'})
    assert reply.failure is not None and "raise tools.judge.maxTokens" in reply.failure.message


def test_it_is_calibrated_as_the_judge_of_a_manifest(server: str, tmp_path: Path, capsys: Any) -> None:
    cases = [
        {"question": "Capital of France?", "answers": ["Paris"], "answer": answer, "correct": answer == "Paris"}
        for answer in ("Paris", "Rome", "東京")
    ]
    (tmp_path / "cases.jsonl").write_text("".join(json.dumps(each) + "\n" for each in cases))
    spec = {
        "model": {"base": "tiny"},
        "data": {"world": {}},
        "endpoints": {"judge": {"url": server, "model": "smollm2"}},
        "tools": {"judge": {"deadlineSeconds": 120, "budgetSeconds": 120, "request": {"grammar": YES_OR_NO}}},
    }
    body = {"apiVersion": "gog.dev/v1alpha1", "kind": "GoGRun", "metadata": {"name": "run"}, "spec": spec}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(body))
    line = ["judge", "calibrate", str(tmp_path / "cases.jsonl"), "--manifest", str(tmp_path / "run.yaml"), "--json"]
    assert cli.main(line) == 0
    total = json.loads(capsys.readouterr().out)[-1]
    assert (total["decided"], total["undecided"]) == (3, 0)


def turn(url: str, prompt: str, images: list[Any], patience: float = 600.0) -> tuple[str, bool, int]:
    """The first turn of a conversation: its text, whether it ended by itself, and the tokens that the server wrote."""
    watch = Watch(OutageSpec(patience_seconds=patience))
    tools = ToolsSpec.model_validate({"policyServer": {"backoffSeconds": 0}})
    config = SimpleNamespace(tools=tools, kind="evaluate", key="evaluate", store=StoreSpec(uri="file:///nowhere"))
    stage: Any = SimpleNamespace(config=config, watch=lambda: watch)
    endpoint = ModelEndpoint(url=url, model="smollm2", request={"grammar": ANSWER})
    engine = ChatEngine(endpoint, Limits(4096, 64, 0.0), 1, stage)

    async def scenario() -> tuple[str, bool, int]:
        (session,) = await engine.open(prompt, images, [(1,)])
        try:
            generation = await session.generate()
        finally:
            session.close()
            await engine.close()
        return generation.text, generation.finished, engine.take_counters().generated

    return asyncio.run(scenario())


def test_a_turn_of_a_small_model_is_an_action_of_the_agent(server: str) -> None:
    prompt = prompts.prompt("What is the capital of France?", style="full").replace(prompts.IMAGE, "")
    text, finished, written = turn(server, prompt, [])
    action = actions.parse_turn(text).action
    assert finished and written > 0
    assert action is not None and action.name == "answer"


def test_a_model_that_takes_no_images_ends_the_attempt_in_its_own_words(server: str) -> None:
    prompt = prompts.prompt("What is it?", style="full")
    with pytest.raises(ServiceDown, match="image input is not supported"):
        turn(server, prompt, [make_image()], patience=0.0)
