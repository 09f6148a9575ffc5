"""Judge and policy answer what ordinary OpenAI clients send.

The bodies are those that clients send (the official packages for Python and Node, LangChain, LiteLLM, the AI SDK),
written out; each case is one way of saying the same request.
"""

from __future__ import annotations

import base64
import io
import json
import threading

import numpy as np
import pytest
from PIL import Image as PILImage

from gog import judging, tool_api
from gog.images import Image

CHAT, RAW, MODELS = tool_api.CHAT_PATH, "/v1/completions", "/v1/models"
RNG = np.random.default_rng(0)


def file(height, width, form="PNG"):
    """An image file as base64."""
    stream = io.BytesIO()
    PILImage.fromarray(RNG.integers(0, 256, (height, width, 3), np.uint8)).save(stream, form)
    return base64.b64encode(stream.getvalue()).decode()


PNG, JPEG = file(56, 56), file(56, 56, "JPEG")
QUESTION = "what is the height of the red ring ?"


def user(*parts):
    return {"role": "user", "content": list(parts)}


def text(words=QUESTION, kind="text"):
    return {"type": kind, "text": words}


def image(data=PNG, kind="png", **more):
    return {"type": "image_url", "image_url": {"url": f"data:image/{kind};base64,{data}", **more}}


SETTINGS = {
    "the Python package, every optional field null": {
        "stream": False, "logprobs": None, "max_completion_tokens": 4, "metadata": {"a": "b"}, "n": 1, "seed": 3,
        "response_format": {"type": "text"}, "stop": None, "store": False, "stream_options": None, "temperature": None,
        "tools": None, "tool_choice": None, "user": "u", "top_p": None, "frequency_penalty": None, "logit_bias": None,
        "presence_penalty": None, "top_logprobs": None, "max_tokens": None, "functions": None, "service_tier": None,
        "reasoning_effort": None, "modalities": None, "audio": None, "prediction": None, "parallel_tool_calls": None,
    },
    "LangChain": {"max_tokens": 4, "stream": False, "n": 1, "temperature": 0.7, "top_p": 1.0, "presence_penalty": 0.0},
    "LiteLLM": {"max_tokens": 4, "temperature": 0, "extra_body": {}, "user": "proxy", "num_retries": 3},
    "the AI SDK": {"max_tokens": 4, "temperature": 0, "frequency_penalty": 0, "stop": ["</answer>"], "tools": []},
    "vLLM's extensions": {"max_tokens": 4, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "stop_token_ids": []},
    "fields of the future": {"max_tokens": 4, "verbosity": "low", "safety_identifier": "x", "anything": {"a": [None]}},
    "one stop string": {"max_tokens": 4, "stop": "</answer>"},
    "a long stop string": {"max_tokens": 4, "stop": "x" * 1_000},
    "a negative seed": {"max_tokens": 4, "seed": -7},
    "an answer's log-probabilities": {"max_tokens": 4, "logprobs": True, "top_logprobs": 0},
}  # fmt: skip
CONVERSATIONS = {
    "text": [{"role": "user", "content": QUESTION}],
    "a name": [{"role": "user", "content": QUESTION, "name": "ann"}],
    "developer": [{"role": "developer", "content": "be brief"}, {"role": "user", "content": QUESTION}],
    "system in parts": [{"role": "system", "content": [text("be brief")]}, user(text())],
    "parts of the Responses API": [user(text(kind="input_text"), {"type": "input_image", "image_url": image()["image_url"]["url"]})],
    "an image with detail": [user(image(detail="high"), text())],
    "a JPEG of upper case": [user(image(JPEG, "JPEG"), text())],
    "an image wrapped at 76 characters": [user(image("\n".join(PNG[i : i + 76] for i in range(0, len(PNG), 76))), text())],
    "a data URL with a parameter": [user(image(kind="png;charset=utf-8"), text())],
    "a call of a tool and its result": [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c", "content": "42"},
    ],
    "an older call of a function": [
        {"role": "assistant", "content": "", "function_call": {"name": "look", "arguments": "{}"}},
        {"role": "function", "name": "look", "content": "42"},
    ],
    "a refusal of an earlier turn": [
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}], "refusal": None, "annotations": []},
        {"role": "user", "content": QUESTION},
    ],
}  # fmt: skip


def sentence(answer):
    """The message of an error in OpenAI's form."""
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"] and "\n" not in error["message"] and isinstance(error["type"], str)
    return error["message"]


# ---- what is understood


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_policy_answers_every_clients_settings(servers, settings):
    messages = [{"role": "user", "content": QUESTION}]
    answer = servers.policy.post(CHAT, {"model": "policy", "messages": messages, **settings})
    assert answer.status == 200, answer.body
    assert answer.json()["usage"]["completion_tokens"] <= 4


@pytest.mark.parametrize("messages", CONVERSATIONS.values(), ids=CONVERSATIONS)
def test_a_policy_answers_every_form_of_a_conversation(servers, messages):
    answer = servers.policy.post(CHAT, {"messages": messages, "max_tokens": 1})
    assert answer.status == 200, answer.body


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_judge_answers_every_clients_settings(servers, settings):
    body = {"model": "judge", "messages": judging.messages("what?", ["n12"], "N12."), **settings, "top_p": 0.5}
    answer = servers.judge.post(CHAT, body)
    assert answer.status == 200 and answer.json()["choices"][0]["message"]["content"] == "Yes"


def test_a_judge_reads_a_case_in_parts(servers):
    system, case = judging.messages("what?", ["n12"], "n13")
    half = len(case["content"]) // 2
    parts = [text(case["content"][:half]), text(case["content"][half:], kind="input_text")]
    answer = servers.judge.post(CHAT, {"messages": [system | {"role": "developer"}, user(*parts)]})
    assert answer.json()["choices"][0]["message"]["content"] == "No"


def prompt_ids(server, messages):
    answer = server.post(CHAT, {"messages": messages, "max_tokens": 1, "return_token_ids": True})
    assert answer.status == 200, answer.body
    return answer.json()["choices"][0]["prompt_token_ids"]


def test_content_means_the_same_as_text_and_as_parts(servers):
    whole = prompt_ids(servers.policy, [{"role": "system", "content": "be"}, {"role": "user", "content": QUESTION}])
    parts = [{"role": "developer", "content": [text("be")]}, user(text(QUESTION[:9]), text(QUESTION[9:], "input_text"))]
    assert prompt_ids(servers.policy, parts) == whole


def test_a_call_of_a_tool_is_part_of_what_the_model_reads(servers):
    called = CONVERSATIONS["a call of a tool and its result"]
    silent = [called[0], {"role": "assistant", "content": ""}, called[2]]
    assert len(prompt_ids(servers.policy, called)) > len(prompt_ids(servers.policy, silent))


@pytest.mark.parametrize("prompt", ["what", ["what"], [0], [[0]]])
def test_a_raw_prompt_may_be_a_list_of_one(servers, prompt):
    assert servers.policy.post(RAW, {"prompt": prompt, "max_tokens": 1, "echo": False, "suffix": None}).status == 200


# ---- what is answered


def test_an_answer_has_every_field_that_clients_read(servers):
    case = {"model": "judge", "messages": judging.messages("what?", ["n12"], "n12")}
    asked = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 2, "logprobs": True}
    for server, body in ((servers.judge, case), (servers.policy, asked)):
        answer = server.post(CHAT, body)
        body = answer.json()
        assert body["object"] == "chat.completion" and body["id"].startswith("chatcmpl-")
        assert isinstance(body["created"], int) and body["model"]
        (choice,) = body["choices"]
        assert choice["index"] == 0 and choice["finish_reason"] in ("stop", "length")
        assert choice["message"]["role"] == "assistant" and isinstance(choice["message"]["content"], str)
        usage = body["usage"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0
        assert answer.headers["content-type"] == "application/json"
    for token in choice["logprobs"]["content"]:
        assert token.keys() == {"token", "logprob", "bytes", "top_logprobs"}


def test_models_are_listed_and_can_be_asked_for_one_by_one(servers):
    for server in (servers.judge, servers.policy):
        for card in server.get(MODELS).json()["data"]:
            assert card["object"] == "model" and isinstance(card["created"], int) and card["owned_by"]
            assert server.get(f"{MODELS}/{card['id']}").json()["id"] == card["id"]
        missing = server.get(f"{MODELS}/nothing")
        assert missing.status == 404 and "nothing" in sentence(missing)


# ---- what is refused


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("stream", True),
        ("n", 2),
        ("tools", [{"type": "function", "function": {"name": "look"}}]),
        ("functions", [{"name": "look"}]),
        ("tool_choice", "required"),
        ("response_format", {"type": "json_object"}),
        ("response_format", {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "alloy", "format": "wav"}),
        ("web_search_options", {}),
    ],
)
def test_what_would_change_the_form_of_an_answer_is_refused_by_both(servers, field, value):
    body = {"messages": judging.messages("what?", ["n12"], "n12"), field: value}
    for server in (servers.judge, servers.policy):
        answer = server.post(CHAT, body)
        assert answer.status == 400 and sentence(answer).startswith(f"{field}: ")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("top_p", 0.9),
        ("frequency_penalty", 0.1),
        ("presence_penalty", -1),
        ("logit_bias", {"50256": -100}),
        ("top_logprobs", 5),
        ("top_k", 20),
        ("min_p", 0.05),
        ("repetition_penalty", 1.1),
    ],
)
def test_sampling_that_the_policy_lacks_is_refused_with_its_field(servers, field, value):
    answer = servers.policy.post(CHAT, {"messages": CONVERSATIONS["text"], field: value})
    assert answer.status == 400 and sentence(answer).startswith(f"{field}: ")


@pytest.mark.parametrize(
    ("messages", "place"),
    [
        (None, "messages"),
        ([], "messages"),
        ("x", "messages"),
        ([None], "messages.0"),
        ([{"content": "x"}], "messages.0.role"),
        ([{"role": "<|im_end|>", "content": "x"}], "messages.0.role"),
        ([{"role": "user", "content": 7}], "messages.0.content"),
        ([user({"type": "video_url", "video_url": {"url": "x"}})], "messages.0.content"),
        ([user({"type": "text"})], "messages.0.content"),
        ([user({"type": "image_url"})], "messages.0.content"),
        ([user("x")], "messages.0.content"),
        ([user(image("AAAA"))], "image 1"),
        ([user(image("%%%"))], "image 1"),
        ([user({"type": "image_url", "image_url": "https://example.com/a.png"})], "image_url"),
        ([user({"type": "image_url", "image_url": "data:image/png,AAAA"})], "image_url"),
    ],
)
def test_a_message_that_cannot_be_read_is_a_400_with_its_place(servers, messages, place):
    answer = servers.policy.post(CHAT, {"messages": messages, "max_tokens": 1})
    assert answer.status == 400 and sentence(answer).startswith(place)


def test_more_stop_strings_than_the_limit_are_refused(servers):
    answer = servers.policy.post(CHAT, {"messages": CONVERSATIONS["text"], "stop": ["a"] * 65, "max_tokens": 1})
    assert answer.status == 400 and sentence(answer).startswith("stop")


def test_several_prompts_in_one_request_are_refused(servers):
    answer = servers.policy.post(RAW, {"prompt": ["a", "b"], "max_tokens": 1})
    assert answer.status == 400 and sentence(answer).startswith("prompt: 2 prompts")


def test_every_error_has_openais_form(servers):
    for server in (servers.judge, servers.policy):
        for answer, status in (
            (server.get("/v1/nothing"), 404),
            (server.get(CHAT), 405),
            (server.post(CHAT, {"messages": []}), 400),
            (server.request("POST", CHAT, b"", {"content-length": "64000001"}), 413),
        ):
            assert answer.status == status and sentence(answer)


# ---- one bad request beside good ones


def test_a_thin_image_costs_the_requests_of_its_batch_nothing(servers):
    """The image processor refuses an aspect ratio above 200."""
    thin, good = file(7, 1600), file(56, 84)
    statuses = {}

    def send(number):
        data = thin if number == 5 else good
        answer = servers.policy.post(CHAT, {"messages": [user(image(data), text())], "max_tokens": 2, "temperature": 0})
        statuses[number] = answer.status
        if number == 5:
            assert "1600" in sentence(answer)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(13)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == {number: 400 if number == 5 else 200 for number in range(13)}


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 150), (3, 64), (4, 4), (64, 2)])
def test_an_image_of_a_few_pixels_is_read_like_any_other(servers, height, width):
    """Its rows must not be taken for colour channels."""
    answer = servers.policy.post(CHAT, {"messages": [user(image(file(height, width)), text())], "max_tokens": 1})
    assert answer.status == 200


def test_images_of_too_many_pixels_in_all_are_a_400(servers):
    flat = base64.b64encode(Image(np.zeros((6_000, 6_000, 3), np.uint8)).png).decode()
    answer = servers.policy.post(CHAT, {"messages": [user(*[image(flat)] * 3)], "max_tokens": 1})
    assert answer.status == 400 and "pixels" in sentence(answer)


def test_a_model_that_fails_costs_only_the_request_at_fault_and_never_answers_nan(start):
    server = start("gog_tools.policy.server", "--base", "tiny", "--backend", "outside:Parrot")
    assert server.url
    outcomes = {}

    def send(prompt):
        outcomes[prompt] = server.post(RAW, {"prompt": prompt})

    threads = [threading.Thread(target=send, args=(each,)) for each in ("break", "nan", "a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {prompt: answer.status for prompt, answer in outcomes.items()} == {
        "break": 500, "nan": 500, "a": 200, "b": 200, "c": 200,
    }  # fmt: skip
    assert "device is lost" in sentence(outcomes["break"]) and "not finite" in sentence(outcomes["nan"])


# ---- bodies


BODIES = {
    "empty": b"",
    "cut off": b'{"messages": [{"role"',
    "not JSON": b"messages=x",
    "a list": b"[]",
    "null": b"null",
    "nested deeply": b'{"messages": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "nested objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "NaN": b'{"messages": [], "temperature": NaN}',
    "Infinity": b'{"messages": [], "temperature": -Infinity}',
    "a key twice": b'{"messages": [], "messages": [], "instances": [], "instances": [], "query": "a", "query": "b"}',
    "latin-1": '{"messages": [{"role": "user", "content": "é"}], "query": "é"}'.encode("latin-1"),
    "utf-16": '{"query": "a"}'.encode("utf-16"),
    "half a surrogate": rb'{"query": "\ud800", "messages": [{"role": "user", "content": "\ud800"}]}',
    "a number of 5,000 digits": b'{"query": "a", "top": ' + b"9" * 5_000 + b"}",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_a_body_that_is_not_strict_json_is_a_400_with_a_sentence(servers, body):
    for server, path in (
        (servers.judge, CHAT),
        (servers.policy, CHAT),
        (servers.policy, RAW),
        (servers.policy, "/v1/load_lora_adapter"),
        (servers.image_search, tool_api.IMAGE_SEARCH_PATH),
        (servers.text_search, tool_api.TEXT_SEARCH_PATH),
    ):
        answer = server.post(path, body)
        assert answer.status == 400 and sentence(answer).startswith("body: "), (path, answer.body)
        assert len(answer.body) < 1_000
    answer = servers.grounding.post(tool_api.GROUNDING_PATH, body)
    assert answer.status == 400 and answer.json()["error"].startswith("body: "), answer.body
    assert len(answer.body) < 1_000


def test_a_byte_order_mark_and_any_content_type_are_accepted(servers):
    body = b"\xef\xbb\xbf" + json.dumps({"query": "t042"}).encode()
    for kind in ("application/json; charset=utf-8", "text/plain", "application/x-www-form-urlencoded"):
        answer = servers.text_search.request("POST", tool_api.TEXT_SEARCH_PATH, body, {"content-type": kind})
        assert answer.json()["hits"][0]["title"] == "t042"
