"""A model behind OpenAI's chat protocol as a policy that is evaluated and never trained."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PILImage
from support import chat_server
from support.builders import GLANCE, FakeTools, answer, ground, make_grounding, make_image, make_question
from support.chat_server import completion, refusal, serving

from gog import chat_messages, prompts, store
from gog.calls import spend_log
from gog.engine import Limits
from gog.errors import QuestionSkipped, ServiceDown, UserError
from gog.outage import Watch
from gog.spec import (
    AgentSettings,
    EvaluateConfig,
    EvaluateSettings,
    GRPOSettings,
    ModelEndpoint,
    OutageSpec,
    StoreSpec,
    ToolsSpec,
)
from gog.tool_types import Reply
from gog_recipes.evaluate import EvaluateRecipe
from gog_recipes.rollout import chat, turn_failures
from gog_recipes.rollout.chat import ChatEngine
from gog_recipes.rollout.question_pool import QuestionPool
from gog_recipes.rollout.rollouts import Rollouts

LIMITS = Limits(tokens=4096, turn_tokens=512, temperature=0.0)


class JudgingTools(FakeTools):
    """Fake tools with a judge that accepts every answer."""

    async def judge(self, *_: object) -> Reply[bool]:
        return Reply(True)


def make_engine(
    url: str,
    *,
    patience: float = 0.0,
    limits: Limits = LIMITS,
    budget: dict[str, float] | None = None,
    store: str = "",
    **endpoint: Any,
) -> ChatEngine:
    watch = Watch(OutageSpec(patience_seconds=patience))
    tools = ToolsSpec.model_validate({"policyServer": {"backoffSeconds": 0}, "budget": budget or {}})
    config = SimpleNamespace(
        tools=tools, kind="evaluate", key="evaluate", store=StoreSpec(uri=store or "file:///nowhere")
    )
    stage = SimpleNamespace(config=config, watch=lambda: watch)
    return ChatEngine(ModelEndpoint(url=url, model="m", **endpoint), limits, 8, stage)  # type: ignore[arg-type]


def play(url: str, texts: Sequence[str], tmp_path: Any, **settings: Any) -> Any:
    """An episode whose turns the endpoint writes."""
    question, engine = make_question(), make_engine(url)
    pool = QuestionPool(tmp_path, [question])
    pool._images[question.image] = make_image()
    rollouts = Rollouts(engine, JudgingTools(make_grounding(2)), AgentSettings(**settings), pool, "evaluate", 0)

    async def scenario() -> Any:
        played = await rollouts.play([question], 1, step=0, policy="endpoint")
        await engine.close()
        return played.trajectories[0]

    return asyncio.run(scenario())


def scripted(texts: Sequence[str]) -> Callable[[dict[str, Any]], chat_server.Answer]:
    """Answers a conversation by the number of its turns."""
    return lambda request: completion(texts[sum(each["role"] == "assistant" for each in request["messages"])])


def decoded(url: str) -> np.ndarray:
    head, _, data = url.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(PILImage.open(io.BytesIO(base64.b64decode(data))))


def test_an_episode_is_a_chat_whose_images_are_data_urls(tmp_path: Any) -> None:
    texts = [ground(), "<think>two</think><img_search>#1</img_search>", answer("Ada")]
    with serving(scripted(texts)) as served:
        trajectory = play(served.url, texts, tmp_path)
    assert (trajectory.answer, trajectory.reward.accuracy, trajectory.reward.format) == ("Ada", 1.0, 1.0)
    last = served.requests[-1]["messages"]
    assert [each["role"] for each in last] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert last[0]["content"] == prompts.instructions({"grounding", "imageSearch", "textSearch"}, "select")
    image, question = last[1]["content"]
    assert (decoded(image["image_url"]["url"]) == make_image().pixels).all()
    assert question == {"type": "text", "text": make_question().question}
    assert last[2]["content"] == texts[0]
    kinds = [part["type"] for part in last[3]["content"]]
    assert kinds == ["text", "image_url", "text", "image_url", "text"], "candidates with their crops"
    assert last[3]["content"][0]["text"].startswith("<information>#1 ")


def test_a_request_names_model_temperature_room_and_the_noise_of_its_turn(tmp_path: Any) -> None:
    texts = [GLANCE, answer("Ada")]
    with serving(scripted(texts)) as served:
        play(served.url, texts, tmp_path)
    first, second = served.requests
    assert (first["model"], first["temperature"], first["max_tokens"]) == ("m", 0.0, 512)
    assert first["seed"] != second["seed"] and max(first["seed"], second["seed"]) < 2**31
    assert "stop" not in first and "logprobs" not in first


def test_a_turn_ends_at_its_first_closing_tag(tmp_path: Any) -> None:
    invented = GLANCE + "\n<information>made up</information><answer>made up</answer>"
    with serving(scripted([invented, answer("Ada")])) as served:
        trajectory = play(served.url, [], tmp_path)
    assert trajectory.turns[0].text == GLANCE and trajectory.answer == "Ada"


def test_reasoning_that_the_server_returns_apart_is_the_turn_s_reasoning(tmp_path: Any) -> None:
    reply = completion("<answer>Ada</answer>", reasoning_content="I see <answer>Ada</answer>.")
    with serving(lambda _: reply) as served:
        trajectory = play(served.url, [], tmp_path)
    assert (trajectory.answer, trajectory.reward.format) == ("Ada", 1.0)
    assert trajectory.turns[0].reasoning == "I see ‹answer›Ada‹/answer›."


@pytest.mark.parametrize(
    ("reply", "stop"),
    [
        (completion("<think>so</think><answer>A", finish_reason="length"), "max_turn_tokens"),
        (completion(None, refusal="I cannot help."), "format"),
        (completion(""), "format"),
    ],
)
def test_a_turn_without_an_action_ends_the_episode_with_its_reason(reply: Any, stop: str, tmp_path: Any) -> None:
    with serving(lambda _: reply) as served:
        trajectory = play(served.url, [], tmp_path)
    assert (trajectory.stop, trajectory.answer, trajectory.reward.accuracy) == (stop, None, 0.0)


def test_the_key_is_sent_and_a_refused_field_is_left_out(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENDPOINT_GOG_API_KEY", "open sesame")

    def reply(request: dict[str, Any]) -> chat_server.Answer:
        if "temperature" in request:
            return refusal("Unsupported value: 'temperature' does not support 0 with this model.")
        return completion(answer("Ada"))

    with serving(reply) as served:
        assert play(served.url, [], tmp_path).answer == "Ada"
    assert served.keys == ["Bearer open sesame"] * 2


def test_a_refused_request_skips_its_question_by_name(tmp_path: Any) -> None:
    async def scenario(url: str) -> None:
        engine = make_engine(url)
        (session,) = await engine.open(prompts.prompt("What?", style="full"), [make_image()], [(1,)])
        try:
            with pytest.raises(QuestionSkipped, match="HTTP 400: blocked by policy"):
                await session.generate()
        finally:
            session.close()
            await engine.close()

    with serving(lambda _: refusal("blocked by policy")) as served:
        asyncio.run(scenario(served.url))


def test_a_turn_at_which_the_server_fails_each_time_while_others_succeed_skips_its_question() -> None:
    async def scenario(url: str) -> None:
        engine = make_engine(url)

        async def others_succeed(service: str, call: Callable[[], Any]) -> Reply[Any]:
            reply = await call()
            engine._path.breaker.report(True)
            return reply

        engine._stage.watch = lambda: SimpleNamespace(call=others_succeed)  # type: ignore[method-assign,assignment,return-value]
        (session,) = await engine.open("a poisoned question", (), [(1,)])
        try:
            with pytest.raises(
                QuestionSkipped, match=f"fails at it, {turn_failures.MOST_FAILURES} times in a row: .*HTTP 500: bug"
            ):
                await session.generate()
        finally:
            session.close()
            await engine.close()

    limited = iter(range(4 * chat.ATTEMPTS))  # the server limits the rate at first, which is no fault of the question
    with serving(lambda _: refusal("busy", 429) if next(limited, None) is not None else refusal("bug", 500)) as served:
        asyncio.run(scenario(served.url))
    assert len(served.requests) == (4 + turn_failures.MOST_FAILURES) * chat.ATTEMPTS


def test_a_long_answer_is_parsed_once_and_in_no_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    loops, real = [], chat_messages.read

    def read(answer: bytes) -> chat_messages.Completion:
        loops.append(asyncio._get_running_loop())
        return real(answer)

    async def scenario(url: str) -> None:
        engine = make_engine(url, usd_per_million_prompt_tokens=10.0)
        (session,) = await engine.open("a question", (), [(1,)])
        await session.generate()
        session.close()
        await engine.close()
        assert engine.account.own.total("endpoint").usd == pytest.approx(0.001)

    monkeypatch.setattr(chat_messages, "read", read)
    with serving(lambda _: completion("word " * 40_000)) as served:
        asyncio.run(scenario(served.url))
    assert loops == [None]


@pytest.mark.parametrize(
    ("url", "error", "words"),
    [("http://127.0.0.1:1", ServiceDown, "endpoint: down for"), ("", UserError, "stages.evaluate.endpoint: .*bad key")],
)
def test_an_endpoint_that_is_down_or_refuses_the_key_ends_the_attempt(url: str, error: type, words: str) -> None:
    async def scenario(url: str) -> None:
        engine = make_engine(url, patience=0.0 if error is ServiceDown else 600.0)
        sessions = await engine.open(prompts.prompt("What?", style="full"), [make_image()], [(n,) for n in range(8)])
        try:
            with pytest.raises(error, match=words):
                await asyncio.gather(*(session.generate() for session in sessions))
        finally:
            for session in sessions:
                session.close()
            await engine.close()

    with serving(lambda _: refusal("bad key", 401)) as served:
        asyncio.run(scenario(url or served.url))


def test_what_the_endpoint_costs_counts_against_the_budget_of_the_run_and_stops_it(tmp_path: Any) -> None:
    async def scenario() -> None:
        sessions = await engine.open("a question", (), [(number,) for number in range(3)])
        try:
            for session in sessions:
                await session.generate()
        finally:
            for session in sessions:
                session.close()
            await engine.close()

    prices = {"usd_per_million_prompt_tokens": 10.0, "usd_per_million_completion_tokens": 100.0}
    with serving(lambda _: completion(answer("Ada"))) as served:  # 100 tokens read, 10 written: 0.002 USD
        engine = make_engine(served.url, budget={"usd": 0.005}, store=tmp_path.as_uri(), **prices)
        with pytest.raises(UserError, match=r"tools.budget.usd \(0.005 USD\) is used up \(raise it"):
            asyncio.run(scenario())
    assert len(served.requests) == 2
    spent = spend_log.read(store.open_store(tmp_path.as_uri())).total("endpoint")
    assert (spent.calls, round(spent.usd, 6)) == (2, 0.004)


def test_a_conversation_resumes_from_its_segments() -> None:
    texts = [GLANCE, answer("Ada")]

    async def scenario(url: str) -> None:
        engine, prompt = make_engine(url), prompts.prompt("Größe?", style="full")
        (first,) = await engine.open(prompt, [make_image()], [(1,)])
        await first.generate()
        first.observe(await first.encode(f"one {prompts.IMAGE}", [make_image(2)]))
        first.close()
        (again,) = await engine.open(prompt, [make_image(), make_image(2)], [(1,)], resume=[first.segments()])
        assert (await again.generate()).text == texts[1]
        again.close()
        await engine.close()

    with serving(scripted(texts)) as served:
        asyncio.run(scenario(served.url))
    assert len(served.requests[-1]["messages"]) == 4 and len(served.requests) == 2


def test_a_conversation_never_exceeds_its_limit() -> None:
    async def scenario(url: str) -> None:
        engine = make_engine(url, limits=Limits(800, 512, 0.0))
        (session,) = await engine.open(prompts.prompt("What?", style="full"), [make_image()], [(1,)])
        generation = await session.generate()
        assert (generation.finished, generation.room, session.room()) == (False, False, 0)
        assert (await session.generate()).room is False
        session.close()
        await engine.close()

    with serving(lambda _: completion("word " * 4000)) as served:
        asyncio.run(scenario(served.url))


@given(st.text(max_size=200))
def test_a_segment_holds_its_text_and_counts_its_images(text: str) -> None:
    kept = text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")
    assert chat_messages.text_of(chat_messages.segment("model", text)) == kept
    shown = chat_messages.segment("observation", text, [make_image()])
    assert chat_messages.text_of(shown) == kept and len(shown.tokens) > len(text.encode("utf-8", "replace")) / 4


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"choices": []}', b'{"choices": [{"message": 1}]}', b"<html>"])
def test_what_is_no_completion_is_malformed(body: bytes) -> None:
    with pytest.raises(ValueError):
        chat_messages.read(body)


def test_a_chat_endpoint_is_refused_as_an_engine_and_needs_an_address_as_a_policy() -> None:
    with pytest.raises(ValueError, match="no tokens and no log-probs"):
        GRPOSettings(engine="chat")
    with pytest.raises(ValueError, match="policies endpoint and endpoint-direct need endpoint"):
        EvaluateSettings(policies=("endpoint",))
    with pytest.raises(ValueError, match="messages cannot be set here"):
        ModelEndpoint(url="http://e", model="m", request={"messages": []})


def test_the_evaluation_compares_an_endpoint_without_loading_the_base(make: Any, endpoints: Any, tmp_path: Any) -> None:
    with serving(lambda _: completion(answer("Ada"))) as served:
        compared = {"policies": ["endpoint", "endpoint-direct"], "endpoint": {"url": served.url, "model": "m"}}
        recipe = EvaluateRecipe(make(EvaluateConfig, tmp_path, questions=4, bootstrap=100, **compared))
        recipe.setup()
        assert not hasattr(recipe, "model") and recipe.cfg.max_tokens < 200, "the endpoint has a context of its own"
        recipe.save_checkpoint(asyncio.run(recipe.train()))
    opened = store.Store(tmp_path / "store")
    results = json.loads(opened.open(opened.latest("evaluate"), "results.json").read_text())
    assert [(row["policy"], row["n"], row["format_mean"]) for row in results["rows"]] == [
        ("endpoint", 4, 1.0),
        ("endpoint-direct", 4, 1.0),
    ]
    systems = {request["messages"][0]["content"] for request in served.requests}
    assert prompts.SYSTEM_DIRECT in systems and len(systems) == 2


def test_an_endpoint_that_changes_its_model_midway_is_named(make: Any, tmp_path: Any, capsys: Any) -> None:
    asked = iter(range(100))

    def say(_: Any) -> Any:
        status, body = completion(answer("Ada"))
        return status, {**body, "model": "m-1" if next(asked) < 3 else "m-2", "system_fingerprint": "fp"}

    with serving(say) as served:
        compared = {"policies": ["endpoint"], "endpoint": {"url": served.url, "model": "m"}}
        recipe = EvaluateRecipe(make(EvaluateConfig, tmp_path, questions=4, bootstrap=100, **compared))
        recipe.setup()
        recipe.save_checkpoint(asyncio.run(recipe.train()))
    opened = store.Store(tmp_path / "store")
    results = json.loads(opened.open(opened.latest("evaluate"), "results.json").read_text())
    assert results["served_by"]["endpoint"] == {"m-1 (fp)": 3, "m-2 (fp)": 1}
    assert "the endpoint changed its model: m-1 (fp) (3 answers), m-2 (fp) (1 answer)" in capsys.readouterr().out
