"""What clients of the policy server may ask: chat and raw completions, and adapters.

Raw completions take a prompt (text or token ids) that holds image placeholders, beside a list of images: an agent owns
its text, and a server that rendered it again would change tokens which are already sampled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, Field, field_validator

from gog import tool_api
from gog.completions import Sampling
from gog.errors import UserError
from gog.images import Image
from gog_tools.serving import chat

ADAPTER_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
MAX_IMAGES = 256
MAX_PIXELS = 100_000_000
"""Pixels of all images of one request together, because they are all decoded before the first is used."""
MAX_STOPS = 64
"""Stop strings of one request; each is searched for after every token."""
TEMPLATE_ROLES = {"developer": "system", "function": "tool"}
"""Roles that chat templates know by another name."""


class SamplingRequest(chat.OpenAIRequest):
    """What chat and raw completions share."""

    unsupported: ClassVar[Mapping[str, tuple[Any, ...]]] = chat.FORM | chat.SAMPLING
    model: str = Field("", max_length=1_000)
    """Name of a version; empty or `policy` for the default."""
    max_tokens: int | None = Field(None, ge=1)
    """Most tokens to generate; None: as many as the context has room for."""
    max_completion_tokens: int | None = Field(None, ge=1)
    """OpenAI's newer name for max_tokens; it takes precedence."""
    temperature: float = Field(1.0, ge=0, le=100)
    """0 takes the most probable token."""
    stop: str | Annotated[list[str], Field(max_length=MAX_STOPS)] = ""
    """Strings that end the completion."""
    seed: int | None = None
    """Seed of the draws; None uses the system's entropy."""
    logprobs: bool | int = False
    """Whether to return the tokens' log-probabilities; a raw completion may ask by 0 or more alternatives."""
    include_stop_str_in_output: bool = False
    """vLLM's extension: whether the text ends with the stop string that ended it."""
    return_token_ids: bool = False
    """vLLM's extension: whether to return the token ids of prompt and completion."""

    def sampling(self) -> Sampling:
        """How the completion's tokens are drawn."""
        stops = [self.stop] if isinstance(self.stop, str) else self.stop
        seed = None if self.seed is None else self.seed % 2**64  # OpenAI's seeds may be negative
        return Sampling(
            self.max_completion_tokens or self.max_tokens, self.temperature, tuple(stop for stop in stops if stop), seed
        )


class ChatCompletion(SamplingRequest):
    """A request for a chat completion."""

    messages: list[chat.Message] = Field(min_length=1, max_length=chat.MAX_MESSAGES)
    """The conversation, oldest message first."""

    def rendered(self) -> tuple[list[dict[str, Any]], list[str]]:
        """Messages in the form of chat templates, and the base64 of their images in order. Raises UserError."""
        images: list[str] = []
        return [_rendered(message, images) for message in self.messages], images


class TextCompletion(SamplingRequest):
    """A request for a raw completion."""

    prompt: str | list[int]
    """Text or token ids, with one image placeholder per image."""
    images: list[tool_api.Base64] = Field([], max_length=MAX_IMAGES)
    """base64 of PNG, JPEG or WEBP files, in the order of their placeholders."""

    @field_validator("prompt", mode="before")
    @classmethod
    def _one_prompt(cls, prompt: Any) -> Any:
        """A list of one prompt is that prompt, as older clients send it."""
        if isinstance(prompt, list) and prompt and isinstance(prompt[0], str | list):
            if len(prompt) > 1:
                raise ValueError(f"{len(prompt)} prompts in one request (send one)")
            return prompt[0]
        return prompt


class LoadAdapter(BaseModel):
    """vLLM's request to load an adapter."""

    lora_name: str = Field(pattern=ADAPTER_NAME)
    """Name under which it is served."""
    lora_path: str = Field(min_length=1, max_length=4_000)
    """Checkpoint of the store, or path under the folder."""


class UnloadAdapter(BaseModel):
    """vLLM's request to unload an adapter."""

    lora_name: str
    """Name under which it is served."""


class Default(BaseModel):
    """A request to make a version the default."""

    model: str
    """A loaded version, or the base's name."""


def _rendered(message: chat.Message, images: list[str]) -> dict[str, Any]:
    """One message; adds the base64 of its images."""
    role = TEMPLATE_ROLES.get(message.role, message.role)
    calls = "".join(_call(each) for each in message.tool_calls)
    if all(part.image_url is None for part in message.content):
        return {"role": role, "content": message.text + calls}
    parts: list[dict[str, Any]] = []
    for part in message.content:
        if part.image_url is None:
            parts.append({"type": "text", "text": part.text})
        else:
            images.append(chat.data_of(part.image_url))
            parts.append({"type": "image"})
    if len(images) > MAX_IMAGES:
        raise UserError(f"more than {MAX_IMAGES} images", where="messages", remedy="send fewer")
    return {"role": role, "content": [*parts, {"type": "text", "text": calls}] if calls else parts}


def _call(call: dict[str, Any]) -> str:
    """A tool call of an earlier turn as Qwen's chat templates write it [Qwen2.5 chat template]."""
    function = call.get("function") if isinstance(call.get("function"), dict) else {}
    body = {"name": function.get("name"), "arguments": function.get("arguments")}  # type: ignore[union-attr]
    return f"\n<tool_call>\n{json.dumps(body, ensure_ascii=False)}\n</tool_call>"


def decode(images: Sequence[str]) -> tuple[Image, ...]:
    """The images of a request from their base64. Raises UserError, naming the image by its number."""
    decoded: list[Image] = []
    pixels = 0
    for number, image in enumerate(images, 1):
        decoded.append(tool_api.decode_image(image, where=f"image {number}"))
        pixels += decoded[-1].width * decoded[-1].height
        if pixels > MAX_PIXELS:
            raise UserError(
                f"{pixels:,} pixels in the first {number} images",
                where="images",
                remedy=f"send at most {MAX_PIXELS:,} in a request",
            )
    return tuple(decoded)
