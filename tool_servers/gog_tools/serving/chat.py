"""The part of OpenAI's chat protocol that judge and policy speak: what a request asks, what a completion says.

Fields that neither uses are accepted and ignored, since every client sends some.
"""

from __future__ import annotations

import time
import uuid
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Message(BaseModel):
    """content: text, or parts of type `text` and `image_url` (a data URL)."""

    model_config = ConfigDict(extra="ignore")

    role: str
    content: str | list[dict[str, Any]]

    @property
    def text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        return "".join(str(part.get("text", "")) for part in self.content if part.get("type") == "text")


class ChatRequest(BaseModel):
    model_config = ConfigDict(extra="ignore")

    model: str = ""
    messages: list[Message] = Field(min_length=1)


class Usage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0


def completion(choice: dict[str, Any], *, model: str, usage: Usage, kind: str = "chat.completion") -> dict[str, Any]:
    """The body of a reply with one choice."""
    return {
        "id": f"{'chatcmpl' if kind == 'chat.completion' else 'cmpl'}-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, **choice}],
        "usage": usage.model_dump(),
    }


def models(names: list[str]) -> dict[str, Any]:
    """The body of /v1/models."""
    return {"object": "list", "data": [{"id": name, "object": "model", "owned_by": "gog"} for name in names]}
