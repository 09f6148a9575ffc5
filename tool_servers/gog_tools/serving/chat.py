"""The part of OpenAI's protocol that the judge and policy servers share: requests, completions, the list of models.

Clients differ in what they send for the same request: null for a field they do not set, content as text or as parts,
fields that this server does not know. A request is therefore read leniently: null means absent, unknown fields are
ignored. A field that is not supported and would change the answer is refused unless it has its neutral value, because
ignoring it would answer a different request.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from fastapi import FastAPI, Response
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from gog.errors import UserError
from gog_tools.serving import errors, http_json

MAX_MESSAGES, MAX_PARTS = 1_000, 1_000
TEXT_PARTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
"""The field that holds the text of a content part, by the part's type."""
IMAGE_PARTS = ("image_url", "input_image")
"""Types of content parts whose field `image_url` holds an address, or an object with it in `url`."""

FORM: dict[str, tuple[Any, ...]] = {
    "stream": (False,),
    "n": (1,),
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": ([], ["text"]),
    "audio": (),
    "web_search_options": (),
}
"""Unsupported fields that change the form of an answer, with the values that do not."""
SAMPLING: dict[str, tuple[Any, ...]] = {
    "top_p": (1,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "top_logprobs": (0,),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    # vLLM's extensions of the protocol
    "top_k": (-1, 0),
    "min_p": (0,),
    "repetition_penalty": (1,),
    "min_tokens": (0,),
    "ignore_eos": (False,),
    "bad_words": ([],),
    "stop_token_ids": ([],),
}
"""Unsupported fields that change which tokens are sampled, with the values that do not."""


@dataclass(frozen=True)
class Part:
    """A piece of a message's content: text or an image."""

    text: str = ""
    """The text; empty for an image."""
    image_url: str | None = None
    """Address of an image, as it was sent; None for text."""


class OpenAIRequest(BaseModel):
    """What all requests share. A field whose value is null counts as absent."""

    model_config = ConfigDict(extra="ignore")
    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    """Fields that are refused, with the values that are accepted nevertheless."""

    @model_validator(mode="before")
    @classmethod
    def _present(cls, value: Any) -> Any:
        """Drops nulls and refuses unsupported fields (with a UserError, so that the sentence names the field)."""
        if not isinstance(value, dict):
            return value
        given = {name: each for name, each in value.items() if each is not None}
        for name, neutral in cls.unsupported.items():
            if name in given and given[name] not in neutral:
                accepted = f", or send {' or '.join(repr(each) for each in neutral)}" if neutral else ""
                shown = repr(given[name])
                shown = shown if len(shown) <= 60 else f"{shown[:60]}…"
                raise UserError(f"{shown} is not supported", where=name, remedy=f"leave it out{accepted}")
        return given


class Message(OpenAIRequest):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    """Who speaks. `developer` is OpenAI's newer word for `system`, `function` the older one for `tool`."""
    content: tuple[Part, ...] = ()
    """Text and images in order; empty for an assistant's message that only calls tools."""
    tool_calls: list[dict[str, Any]] = Field([], max_length=MAX_PARTS)
    """Calls that an assistant's message makes, as OpenAI writes them."""

    @field_validator("content", mode="before")
    @classmethod
    def _parts(cls, content: Any) -> tuple[Part, ...]:
        if isinstance(content, str):
            return (Part(_text(content)),)
        if not isinstance(content, list):
            raise ValueError("give text or a list of parts")
        if len(content) > MAX_PARTS:
            raise ValueError(f"{len(content)} parts (at most {MAX_PARTS})")
        return tuple(_part(each) for each in content)

    @property
    def text(self) -> str:
        """The text of all parts."""
        return "".join(part.text for part in self.content)


def _part(part: Any) -> Part:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in TEXT_PARTS:
        return Part(_text(part.get(TEXT_PARTS[kind])))
    if kind in IMAGE_PARTS:
        url = part.get("image_url")
        url = url.get("url") if isinstance(url, dict) else url
        if not isinstance(url, str):
            raise ValueError(f"a part of type {kind} without image_url")
        return Part(image_url=url)
    raise ValueError(f"content of type {kind!r} (send text or image_url)")


def _text(text: Any) -> str:
    if not isinstance(text, str):
        raise ValueError("a part of type text without text")
    return text


class ChatRequest(OpenAIRequest):
    """A request for a chat completion, without its sampling."""

    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = FORM
    model: str = Field("", max_length=1_000)
    """Name of the model; empty for the server's default."""
    messages: list[Message] = Field(min_length=1, max_length=MAX_MESSAGES)
    """The conversation, oldest message first."""


def data_of(url: str) -> str:
    """The base64 of a data URL. Other addresses are never fetched. Raises UserError."""
    head, comma, data = url.partition(",")
    kind, *parameters = head.lower().replace(" ", "").split(";")
    if not comma or not kind.startswith("data:image/") or "base64" not in parameters:
        raise UserError("not a data URL", where="image_url", remedy="send data:image/png;base64,…")
    return "".join(data.split())


class Usage(BaseModel):
    """What a completion consumed."""

    prompt_tokens: int = 0
    """Tokens of the prompt, those of images included."""
    completion_tokens: int = 0
    """Tokens generated."""
    total_tokens: int = 0
    """Their sum."""

    @classmethod
    def of(cls, *, prompt: int, new: int) -> Usage:
        """The usage of `new` tokens after a prompt of `prompt` tokens."""
        return cls(prompt_tokens=prompt, completion_tokens=new, total_tokens=prompt + new)


def completion(choice: dict[str, Any], *, model: str, usage: Usage, kind: str = "chat.completion") -> dict[str, Any]:
    """The body of an answer with one choice.

    Args:
        choice: the choice, without its index
        model: name of the model that answered
        usage: what it consumed
        kind: `chat.completion` or `text_completion`
    """
    return {
        "id": f"{'chatcmpl' if kind == 'chat.completion' else 'cmpl'}-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, **choice}],
        "usage": usage.model_dump(),
    }


def models(names: list[str]) -> list[dict[str, Any]]:
    """The cards of /v1/models."""
    created = int(time.time())
    return [{"id": name, "object": "model", "created": created, "owned_by": "gog"} for name in names]


def add_models(app: FastAPI, cards: Callable[[], list[dict[str, Any]]]) -> None:
    """Adds /v1/models and /v1/models/NAME. cards: the models at the time of a request."""

    @app.get("/v1/models")
    async def every() -> Response:
        return http_json.reply({"object": "list", "data": cards()})

    @app.get("/v1/models/{name}")
    async def one(name: str) -> Response:
        for card in cards():
            if card["id"] == name:
                return http_json.reply(card)
        raise errors.RequestError(404, f"model: there is no {name!r} here (see /v1/models)")
