"""Chats in OpenAI's protocol: which question a request asks, and what of an episode its answer and its events say. Pure.

A chat asks about one image: the newest one of its messages. What was asked and answered before is context of the newest
question. The answer cites the pages that the agent read, as `annotations` of type `url_citation`. With `trace: true` the
steps are told apart from the answer, as `reasoning_content` (which clients of reasoning models show), and in full as
`gog_step` of each event.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import BaseModel

from gog import prompts
from gog.errors import UserError
from gog.trajectory import Observation, Result, Trajectory, Turn
from gog_tools.serving import chat

EARLIER_CHARACTERS = 2_000
"""Of earlier messages, the newest ones count."""
MOST_CITATIONS = 20
NO_ANSWER = {
    "format": "I could not decide what to do next.",
    "max_turns": "I have not found an answer within the turns of an episode.",
    "max_calls": "I have not found an answer within the tool calls of an episode.",
    "max_tokens": "I have not found an answer within the tokens of an episode.",
    "max_turn_tokens": "A turn became too long, so there is no answer.",
}
"""What is said where an episode ends without an answer, by its stop reason."""


class StreamOptions(BaseModel):
    """Options of a streamed answer."""

    include_usage: bool = False
    """Whether the last event has the tokens that were written."""


class AgentRequest(chat.ChatRequest):
    """A request for an answer about an image."""

    unsupported: ClassVar[Any] = {name: neutral for name, neutral in chat.FORM.items() if name != "stream"}
    stream: bool = False
    """Whether events arrive while the agent works."""
    stream_options: StreamOptions = StreamOptions()
    """Of a stream."""
    trace: bool = False
    """Whether the steps are shown: reasoning, actions, what tools returned."""


@dataclass(frozen=True)
class Asked:
    """What a chat asks."""

    question: str
    """The question, with earlier ones before it."""
    image_url: str
    """Data URL of the image."""


def asked(request: AgentRequest) -> Asked:
    """The question and the image of a chat. Raises UserError where one of them is missing."""
    spoken = [message for message in request.messages if message.role in ("user", "assistant")]
    if not spoken or spoken[-1].role != "user" or not spoken[-1].text.strip():
        raise UserError("the last message asks nothing", where="messages", remedy="end with a question of role user")
    images = [part.image_url for message in spoken for part in message.content if part.image_url is not None]
    if not images:
        raise UserError(
            "no message has an image", where="messages", remedy="add a part of type image_url with a data: URL"
        )
    earlier = [f"{message.role}: {text}" for message in spoken[:-1] if (text := message.text.strip())]
    question = spoken[-1].text.strip()
    if earlier:
        before = "\n".join(earlier)[-EARLIER_CHARACTERS:]
        question = f"Earlier in this conversation:\n{before}\n\nThe question now: {question}"
    return Asked(question, images[-1])


def answer_text(trajectory: Trajectory) -> str:
    """What the agent answers."""
    return trajectory.answer if trajectory.answer is not None else NO_ANSWER[trajectory.stop]


def citations(trajectory: Trajectory) -> list[dict[str, Any]]:
    """The pages that the agent read, as annotations; each once, in order."""
    read: dict[str, Result] = {}
    for turn in trajectory.turns:
        for result in turn.observation.results if turn.observation is not None else ():
            if result.url.startswith(("http://", "https://")):
                read.setdefault(result.url, result)
    return [
        {"type": "url_citation", "url_citation": {"url": url, "title": result.title, "start_index": 0, "end_index": 0}}
        for url, result in list(read.items())[:MOST_CITATIONS]
    ]


def step(number: int, turn: Turn, *, stage: Literal["acting", "observed"]) -> dict[str, Any]:
    """A turn as an event shows it: what the model wrote, and what came back once it has."""
    shown: dict[str, Any] = {
        "turn": number,
        "stage": stage,
        "action": turn.action,
        "reasoning": turn.reasoning,
        "argument": turn.argument,
        "selected": list(turn.selected),
        "seconds": turn.seconds,
    }
    if turn.observation is not None:
        shown["observation"] = _observation(turn.observation)
    return shown


def _observation(seen: Observation) -> dict[str, Any]:
    return {
        "tool": seen.tool,
        "text": seen.text.replace(prompts.IMAGE, "[image]"),
        "candidates": [
            {"number": each.number, "box": each.box, "score": each.score, "image": each.image}
            for each in seen.candidates
        ],
        "results": [{"title": each.title, "url": each.url} for each in seen.results],
        "failures": [each.kind for each in seen.failures],
        "seconds": seen.seconds,
    }


def line(number: int, turn: Turn) -> str:
    """A turn in one or two lines, for clients that show reasoning as text."""
    thought = f"{turn.reasoning}\n" if turn.reasoning else ""
    what = {
        "glance": "search the whole image",
        "ground": f"look for “{turn.argument}”",
        "gaze": "search " + ", ".join(f"#{each}" for each in turn.selected),
        "text": f"search for “{turn.argument}”",
        "ocr": "read the text in the image",
        "answer": "answer",
        "none": turn.error or "no action",
    }[turn.action]
    return f"{thought}[{number}] {what}\n"


@dataclass(frozen=True)
class Reply:
    """The form of one chat's answer."""

    model: str
    """Name of the policy."""
    id: str
    """Of the answer."""
    created: int
    """Seconds since 1970."""
    version: str = ""
    """Version of the policy that answers; empty where it is the default of its server."""

    @classmethod
    def new(cls, model: str, version: str = "") -> Reply:
        """A reply with an id of its own."""
        return cls(model, f"chatcmpl-{uuid.uuid4().hex}", int(time.time()), version)

    def whole(self, trajectory: Trajectory, *, trace: bool) -> dict[str, Any]:
        """The answer of a request that is not streamed."""
        message: dict[str, Any] = {
            "role": "assistant",
            "content": answer_text(trajectory),
            "annotations": citations(trajectory),
        }
        extra: dict[str, Any] = {}
        if trace:
            message["reasoning_content"] = "".join(
                line(number, turn) for number, turn in enumerate(trajectory.turns, 1)
            )
            extra["gog_steps"] = [
                step(number, turn, stage="observed") for number, turn in enumerate(trajectory.turns, 1)
            ]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(trajectory)}
        return self._frame("chat.completion", [choice]) | {"usage": _usage(trajectory), **extra}

    def opening(self) -> dict[str, Any]:
        """The first event of a stream."""
        return self._event({"role": "assistant", "content": ""})

    def traced(self, number: int, turn: Turn, *, stage: Literal["acting", "observed"]) -> dict[str, Any]:
        """The event of a turn: its text when the model has written it, and all of it in `gog_step`."""
        delta = {"reasoning_content": line(number, turn)} if stage == "acting" else {}
        return self._event(delta) | {"gog_step": step(number, turn, stage=stage)}

    def ending(self, trajectory: Trajectory, *, usage: bool) -> Iterator[dict[str, Any]]:
        """The last events of a stream: the answer, why it ended, and its usage if that was asked for."""
        yield self._event({"content": answer_text(trajectory), "annotations": citations(trajectory)})
        yield self._event({}, finish=_finish(trajectory))
        if usage:
            yield self._frame("chat.completion.chunk", []) | {"usage": _usage(trajectory)}

    def _event(self, delta: dict[str, Any], *, finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return self._frame("chat.completion.chunk", [choice])

    def _frame(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        frame = {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}
        return frame | ({"system_fingerprint": self.version} if self.version else {})


def _finish(trajectory: Trajectory) -> str:
    return "length" if trajectory.stop in ("max_tokens", "max_turn_tokens") else "stop"


def _usage(trajectory: Trajectory) -> dict[str, int]:
    total = sum(len(segment.tokens) for segment in trajectory.segments)
    written = trajectory.generated
    return {"prompt_tokens": total - written, "completion_tokens": written, "total_tokens": total}
