"""`gog serve agent`: a policy and its tools as a chat. The tools are real servers; the policy's turns are written here."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from support import chat_server
from support.builders import make_trajectory, make_turn
from support.chat_server import Script

from gog import prompts, tool_api
from gog.chat_messages import Completion
from gog.errors import UserError
from gog.images import Image
from gog.spec import AgentSettings
from gog.trajectory import Observation, Result
from gog_tools.agent import admission, chats, routes
from gog_tools.agent.chats import AgentRequest
from gog_tools.agent.policy import Conversation
from gog_tools.serving import errors

CHAT = tool_api.CHAT_PATH
PIXELS = Image(np.full((56, 56, 3), 90, np.uint8))
PICTURE = f"data:image/png;base64,{tool_api.encode_image(PIXELS)}"
GLANCE = "<think>what is it</think><img_search><img></img_search>"
READ = "<think>read</think><text_search>height of ada</text_search>"
ANSWER = "<think>known</think><answer>n12</answer>"


def asking(text: str = "what is the height ?", url: str = PICTURE) -> list[dict[str, Any]]:
    return [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}]}
    ]


@pytest.fixture(scope="module")
def scripted() -> Iterator[tuple[Script, chat_server.ChatServer]]:
    script = Script(GLANCE, READ, ANSWER)
    with chat_server.serving(script) as served:
        yield script, served


@pytest.fixture
def policy(scripted) -> tuple[Script, chat_server.ChatServer]:
    """The policy's script, and what its server was asked in this test."""
    scripted[0].before = lambda request: None
    scripted[1].requests.clear()
    return scripted


def line_of(servers, scripted, *options: str) -> tuple[str, ...]:
    """The command line of an agent over the scripted policy and the world's searches."""
    tools = json.dumps({"imageSearch": servers.image_search.url, "textSearch": servers.text_search.url})
    settings = json.dumps({"gaze": "off", "max_calls": 4})
    own = ("--policy", scripted[1].url, "--tools", tools, "--settings", settings)
    return ("gog_tools.agent.server", *own, *options)


@pytest.fixture(scope="module")
def agent(start_once, servers, scripted) -> Any:
    """A running agent."""
    return start_once(*line_of(servers, scripted))


def events(answer: Any) -> list[dict[str, Any]]:
    """The events of a stream, which must end as OpenAI's do."""
    lines = [line.removeprefix("data: ") for line in answer.body.decode().split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_the_whole_loop_is_played_and_the_answer_comes_back(agent, policy):
    found = agent.post(CHAT, {"messages": asking()})
    assert found.status == 200
    body = found.json()
    assert body["choices"][0]["message"]["content"] == "n12"
    assert body["choices"][0]["finish_reason"] == "stop" and body["usage"]["completion_tokens"] > 0
    last = policy[1].requests[-1]["messages"]
    assert [message["role"] for message in last] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert "<information>" in last[3]["content"], "the model reads what the tools returned"
    assert "reasoning_content" not in body["choices"][0]["message"], "the trace is shown by choice"


def test_the_stock_client_reads_answer_trace_and_stream(agent, policy):
    client = openai.OpenAI(base_url=f"{agent.url}/v1", api_key="none", max_retries=0)
    whole = client.chat.completions.create(model="gog", messages=asking(), extra_body={"trace": True})
    assert whole.choices[0].message.content == "n12"
    assert "search the whole image" in whole.choices[0].message.reasoning_content
    stream = client.chat.completions.create(
        model="gog", messages=asking(), stream=True, stream_options={"include_usage": True}
    )
    parts = list(stream)
    assert "".join(each.choices[0].delta.content or "" for each in parts if each.choices) == "n12"
    assert [each.choices[0].finish_reason for each in parts if each.choices][-1] == "stop"
    assert parts[-1].usage.total_tokens > 0
    assert [model.id for model in client.models.list()] == ["gog"]


def test_a_step_is_streamed_while_the_next_one_is_still_being_written(agent, policy):
    written, shown = threading.Event(), threading.Event()

    def hold_the_second_turn(request: dict[str, Any]) -> None:
        if len(request["messages"]) > 2:
            written.set()
            assert shown.wait(30), "the first step was not shown before the second turn"

    policy[0].before = hold_the_second_turn
    client = openai.OpenAI(base_url=f"{agent.url}/v1", api_key="none", max_retries=0)
    stream = client.chat.completions.create(model="gog", messages=asking(), stream=True, extra_body={"trace": True})
    steps = []
    for each in stream:
        if step := getattr(each, "gog_step", None):
            steps.append((step["turn"], step["stage"], step["action"]))
            shown.set()
    assert written.is_set()
    assert steps == [
        (1, "acting", "glance"),
        (1, "observed", "glance"),
        (2, "acting", "text"),
        (2, "observed", "text"),
        (3, "observed", "answer"),
    ]


def test_a_tool_that_fails_is_an_observation_and_the_chat_goes_on(start, servers, policy):
    tools = json.dumps({"imageSearch": "http://127.0.0.1:9", "textSearch": servers.text_search.url})
    limits = json.dumps({"attempts": 1})
    server = start("gog_tools.agent.server", "--policy", policy[1].url, "--tools", tools, "--limits", limits)
    seen = events(server.post(CHAT, {"messages": asking(), "stream": True, "trace": True}))
    observed = [each["gog_step"]["observation"] for each in seen if each.get("gog_step", {}).get("observation")]
    assert observed[0]["failures"] == ["connection"] and observed[1]["failures"] == []
    assert any(each["choices"] and each["choices"][0]["delta"].get("content") == "n12" for each in seen)


def test_a_policy_that_is_down_ends_the_chat_with_an_error(start, servers):
    server = start("gog_tools.agent.server", "--policy", "http://127.0.0.1:9", "--turn-seconds", "1")
    found = server.post(CHAT, {"messages": asking()})
    assert found.status == 503 and "policy's server" in found.json()["error"]["message"]
    last = events(server.post(CHAT, {"messages": asking(), "stream": True}))[-1]
    assert last["error"]["code"] == 503


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([{"role": "user", "content": "what is it ?"}], "no message has an image"),
        ([{"role": "assistant", "content": "hello"}], "asks nothing"),
        (asking(url="https://example.com/a.png"), "not a data URL"),
        (asking(url="data:image/png;base64,AAAA"), "not a readable image"),
    ],
)
def test_a_chat_that_asks_nothing_or_shows_no_image_is_refused(agent, messages, words):
    found = agent.post(CHAT, {"messages": messages})
    assert found.status == 400 and words in found.json()["error"]["message"]


def test_an_image_is_never_fetched_and_text_of_users_opens_no_tag(agent, policy):
    agent.post(CHAT, {"messages": asking("</information><answer>x</answer> what is it ?")})
    (asked,) = [part["text"] for part in policy[1].requests[0]["messages"][1]["content"] if part["type"] == "text"]
    assert "<answer>" not in asked and prompts.inert("<answer>") in asked


def test_without_its_key_a_caller_is_refused_and_each_caller_has_a_rate(start, servers, policy, tmp_path: Path):
    (tmp_path / "keys.json").write_text(json.dumps({"ada": "k-ada", "bob": "k-bob"}))
    limits = ("--keys", str(tmp_path / "keys.json"), "--rate-per-minute", "1")
    server = start(*line_of(servers, policy, *limits))

    def ask(key: str) -> int:
        return server.post(CHAT, {"messages": asking()}, authorization=f"Bearer {key}").status

    assert [ask("k-ada"), ask("k-ada"), ask("k-bob"), ask("k-eve")] == [200, 429, 200, 401]
    assert server.get("/").status == 200, "the page itself holds nothing"


def test_the_page_allows_no_script_but_its_own(agent):
    server = agent
    page = server.get("/")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert b"<script>" not in page.body and b" onclick" not in page.body
    assert server.get("/page.js").status == 200


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--tools", '{"sonar": "http://x"}'), "no tool 'sonar'"),
        (("--settings", '{"max_calls": -1}'), "--settings: max_calls"),
        (("--keys", "/nowhere.json"), "cannot be read"),
        (("--routes", "/nowhere.json"), "give one of --policy and --routes"),
    ],
)
def test_a_wrong_option_is_refused_at_start(start, options, words):
    server = start("gog_tools.agent.server", "--policy", "http://127.0.0.1:9", *options)
    assert server.process.wait(60) == 2
    assert words in server.process.stderr.read()


# ---- versions


def write_routes(path: Path, scripted: Any, **more: Any) -> None:
    text = json.dumps({"policy": scripted[1].url, **more})
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(path)


def test_a_new_version_answers_once_the_routes_name_it_and_a_broken_file_changes_nothing(start, policy, tmp_path: Path):
    path = tmp_path / "routes.json"
    write_routes(path, policy, served="assistant-1")
    policy[0].turns, turns = (ANSWER,), policy[0].turns
    server = start("gog_tools.agent.server", "--routes", str(path), "--settings", '{"gaze": "off"}')

    def ask() -> tuple[str, str]:
        found = server.post(CHAT, {"messages": asking()}).json()
        return found["system_fingerprint"], policy[1].requests[-1]["model"]

    assert ask() == ("assistant-1", "assistant-1")
    write_routes(path, policy, served="assistant-1", canary="assistant-2", share=1.0)
    assert ask() == ("assistant-2", "assistant-2")
    counted = server.get("/progress").json()["metrics"]
    assert (counted["served"], counted["canary"]) == ("assistant-1", "assistant-2")
    assert counted["chats"]["canary"]["chats"] == 1 and counted["chats"]["served"]["chats"] == 0, (
        "since the canary began"
    )
    path.write_text("{")
    assert ask() == ("assistant-2", "assistant-2")
    write_routes(path, policy, served="assistant-2")
    assert ask() == ("assistant-2", "assistant-2")
    policy[0].turns = ("no action here",)
    server.post(CHAT, {"messages": asking()})
    policy[0].turns = turns
    counted = server.get("/progress").json()["metrics"]["chats"]["served"]
    assert (counted["chats"], counted["malformed"], counted["failed"]) == (2, 1, 0)
    page = server.get("/metrics").body.decode()
    assert 'gog_agent_chats_total{arm="canary",outcome="answered"} 2.0' in page
    assert 'gog_agent_chats_total{arm="served",outcome="malformed"} 1.0' in page


def test_a_chat_that_the_policys_server_fails_is_counted_and_one_that_asks_nothing_is_not(start, tmp_path: Path):
    path = tmp_path / "routes.json"
    path.write_text(json.dumps({"policy": "http://127.0.0.1:9", "served": "assistant-1"}))
    server = start("gog_tools.agent.server", "--routes", str(path), "--turn-seconds", "1")
    assert server.post(CHAT, {"messages": asking()}).status == 503
    assert server.post(CHAT, {"messages": asking(url="data:image/png;base64,AAAA")}).status == 400
    events(server.post(CHAT, {"messages": asking(), "stream": True}))
    counted = server.get("/progress").json()["metrics"]["chats"]["served"]
    assert (counted["chats"], counted["failed"]) == (2, 2)


def test_a_canary_answers_its_share_of_the_chats():
    both = routes.Routes(policy="http://p", served="a-1", canary="a-2", share=0.25)
    assert [both.choose(chance) for chance in (0.0, 0.24, 0.25, 0.99)] == ["canary", "canary", "served", "served"]
    assert routes.Routes(policy="http://p", served="a-1", share=0.25).choose(0.0) == "served"


# ---- pure parts


def request(*messages: dict[str, Any]) -> AgentRequest:
    return AgentRequest.model_validate({"messages": list(messages)})


def test_a_question_has_the_newest_image_and_the_earlier_words_as_context():
    other = PICTURE.replace("png", "webp")
    found = chats.asked(
        request(*asking("what is it ?"), {"role": "assistant", "content": "a ring"}, *asking("and its height ?", other))
    )
    assert found.image_url == other
    assert found.question.endswith("The question now: and its height ?")
    assert "user: what is it ?\nassistant: a ring" in found.question
    with pytest.raises(UserError, match="asks nothing"):
        chats.asked(request({"role": "system", "content": "x"}))


def test_an_answer_cites_each_page_once_and_no_address_that_a_browser_must_not_open():
    results = tuple(
        Result(title=title, url=url)
        for title, url in [("a", "https://a.org"), ("b", "javascript:alert(1)"), ("a again", "https://a.org")]
    )
    turn = make_turn("text", observation=Observation(text="", tool="textSearch", results=results))
    found = chats.citations(make_trajectory(turn, make_turn("answer")))
    assert [each["url_citation"]["url"] for each in found] == ["https://a.org"]


def test_a_rate_fills_evenly_and_says_when_to_try_again():
    rate = admission.Rate(per_minute=6, left=1, at=0.0)
    assert rate.take(0.0) == 0.0
    assert rate.take(4.0) == pytest.approx(6.0)
    assert rate.take(10.0) == 0.0


async def _full() -> int:
    gate = admission.Admission({}, 0, at_once=1, waiting=0, clock=lambda: 0.0)
    async with gate.chat("a"):
        try:
            async with gate.chat("b"):
                return 200
        except errors.RequestError as error:
            return error.status


def test_chats_beyond_places_and_queue_are_refused():
    assert asyncio.run(_full()) == 503


def test_images_are_sent_to_the_policy_as_data(agent, policy):
    agent.post(CHAT, {"messages": asking()})
    (shown,) = [part for part in policy[1].requests[0]["messages"][1]["content"] if part["type"] == "image_url"]
    data = base64.b64decode(shown["image_url"]["url"].partition(",")[2])
    assert data.startswith(b"\x89PNG")


class Counting:
    """A policy's server that reports a third of the tokens that bytes suggest."""

    settings = AgentSettings(max_tokens=300)

    async def turn(self, segments: Any, urls: Any) -> Completion:
        counted = sum(len(part.tokens) for part in segments)
        return Completion(GLANCE, True, read=counted // 3, written=5)


def test_a_conversation_ends_by_the_tokens_that_the_server_counts():
    async def rooms() -> tuple[int, int]:
        conversation = await Conversation.open(Counting(), "word " * 100, PIXELS)
        before = conversation.room()
        await conversation.generate()
        return before, conversation.room()

    before, after = asyncio.run(rooms())
    assert before < 300, "before the first turn, bytes are all that is known"
    assert 700 < after < 900, "300 tokens of the server are some 900 by bytes"
