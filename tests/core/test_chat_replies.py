"""Bodies of chat completions, of many servers."""

from __future__ import annotations

from typing import Any

import pytest

from gog import chat_replies
from gog.chat_replies import ChatReply


def completion(message: Any, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"message": message, "finish_reason": "stop"}], **fields}


@pytest.mark.parametrize(
    ("message", "parts"),
    [
        ({"content": "a ring"}, ("a ring", "", "")),
        ({"content": None, "reasoning_content": "hm"}, ("", "hm", "")),
        ({"content": "", "reasoning_content": " ", "reasoning": "hm"}, ("", "hm", "")),
        (
            {"content": ["a ", {"type": "text", "text": "ring"}, {"type": "reasoning", "text": "hm"}]},
            ("a ring", "", ""),
        ),
        ({"content": 5, "refusal": "no"}, ("", "", "no")),
    ],
)
def test_answer_reasoning_and_refusal_are_kept_apart(message: Any, parts: tuple[str, str, str]) -> None:
    reply = chat_replies.parse(completion(message))
    assert (reply.content, reply.reasoning, reply.refusal) == parts


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ({"prompt_tokens": 7, "completion_tokens": 2}, (7, 2)),
        ({"prompt_tokens": "7", "completion_tokens": -1}, (0, 0)),
        ({"prompt_tokens": True, "completion_tokens": 1e9}, (0, 0)),
        ([7, 2], (0, 0)),
        (None, (0, 0)),
    ],
)
def test_counts_of_tokens_that_cannot_be_believed_are_zero(usage: Any, counts: tuple[int, int]) -> None:
    assert chat_replies.parse(completion({"content": "x"}, usage=usage)) == ChatReply("x", "", "", "stop", *counts)


@pytest.mark.parametrize(
    "body", [None, [], {}, {"choices": []}, {"choices": [{"message": "x"}]}, {"choices": {"a": 1}}]
)
def test_other_bodies_are_no_completions(body: Any) -> None:
    with pytest.raises(ValueError, match="not a chat completion"):
        chat_replies.parse(body)


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("a ring", "a ring"),
        ("<think>red? blue?</think>a ring", "a ring"),
        ("red? blue?</think>a ring", "a ring"),
        ("<reason>red?</reason>a ring", "a ring"),
        ("<seed:think>red?</seed:think>a ring", "a ring"),
        ("<|channel|>analysis<|message|>red?<|end|><|channel|>final<|message|>a ring<|return|>", "a ring"),
        ("<think>a <think>b</think>c</think>a ring", "a ring"),
        ("<THINK>red?</Think>a [THINK]blue?[/THINK]ring", "a ring"),
        ("<think>red?</reason></think>a ring", "a ring"),
        ("<|begin_of_thought|>red?<|end_of_thought|>a ◁think▷blue?◁/think▷ring", "a ring"),
        ("<think>red?", None),
        ("<think>red?</think>a ring<think>", None),
        ("<|channel|>analysis<|message|>red?", None),
    ],
)
def test_reasoning_in_a_text_is_left_out(text: str, rest: str | None) -> None:
    assert chat_replies.without_reasoning(text) == rest


@pytest.mark.parametrize(
    "piece", ["<think>", "[THINK]", "<|channel|>", "<|channel|>a", "</think>", "<|begin_of_thought|>"]
)
def test_a_model_that_repeats_itself_is_read_in_time_that_grows_with_its_length(piece: str) -> None:
    """Two megabytes take a moment; in quadratic time they would take hours."""
    chat_replies.without_reasoning(piece * (2_000_000 // len(piece)))
    chat_replies.without_reasoning("<|channel|>" + "a" * 2_000_000)
