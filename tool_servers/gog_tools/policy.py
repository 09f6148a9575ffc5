"""A small OpenAI-compatible server of a policy: what vLLM is to a cluster with GPUs, for one machine and for tests.

Chat completions, and raw completions whose prompt (text or token ids) holds image placeholders beside a list of
pictures: an agent owns its text, and having a server render it again would change tokens it has already sampled.
Adapters are loaded under a new name per step; a name in use is not given to other weights, since whoever cached by
name would mix two policies. They are read from one folder only, which has to be named at start.

Generation runs in a thread, in batches; health is answered meanwhile. Pictures come in the request, never from an
address. What is not implemented (streaming, several choices, nucleus sampling) is refused rather than ignored.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from gog import basemodel, wire
from gog.errors import UserError
from gog.pictures import Picture
from gog_tools import bodies, chat, serving
from gog_tools.batching import MicroBatcher
from gog_tools.completions import Completion, Job, Model, Prompt, Sampling

NAME = "policy"
ADAPTER_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"


class SamplingRequest(BaseModel):
    """What chat and raw completions share. logprobs and token ids are returned when asked for."""

    model_config = ConfigDict(extra="ignore")

    model: str = ""
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float = Field(1.0, ge=0, le=100)
    stop: str | list[str] | None = None
    seed: int | None = Field(None, ge=0)
    logprobs: bool | int | None = None
    n: Literal[1] = 1
    stream: Literal[False] = False
    top_p: Literal[1] = 1
    include_stop_str_in_output: bool = False
    return_token_ids: bool = False

    def stops(self) -> tuple[str, ...]:
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(stop for stop in given if stop)


class ChatCompletion(SamplingRequest):
    messages: list[chat.Message] = Field(min_length=1)


class TextCompletion(SamplingRequest):
    prompt: str | list[int]
    images: list[wire.Base64] = Field(default_factory=list, max_length=256)


class LoadAdapter(BaseModel):
    lora_name: str = Field(pattern=ADAPTER_NAME)
    lora_path: str = Field(min_length=1, max_length=4_000)


class UnloadAdapter(BaseModel):
    lora_name: str


class Refusal(Exception):
    """A request refused with another status than 400."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


class Policy:
    """The model's requests, in the order of one thread: batches of completions, adapters in between."""

    def __init__(self, model: Model, *, name: str, adapters: Path | None, batch_size: int) -> None:
        self.model, self.name, self.root = model, name, adapters
        self.batches: MicroBatcher[Job, Completion] = MicroBatcher(model.complete, max_size=batch_size)
        self.taken = {name}
        """Names in use; that of an adapter still loading among them."""

    def adapter_of(self, model: str) -> str:
        """The adapter that a request's model stands for, "" for the base. Raises Refusal."""
        if model in ("", self.name):
            return ""
        if model not in self.model.adapters:
            raise Refusal(404, f"model: there is no {model!r} here (see /v1/models, or load it as an adapter)")
        return model

    async def load(self, name: str, path: str) -> None:
        """Raises Refusal for a name in use, UserError for a folder that is no adapter or lies elsewhere."""
        if name in self.taken:
            raise Refusal(409, f"lora_name: {name!r} is loaded already (give each adapter a new name)")
        folder = self.allowed(path)
        self.taken.add(name)
        try:
            await self._in_thread(self.model.load_adapter, name, folder)
        except BaseException:
            self.taken.discard(name)
            raise

    async def unload(self, name: str) -> None:
        if name not in self.model.adapters:
            raise Refusal(404, f"lora_name: no adapter {name!r} is loaded")
        await self._in_thread(self.model.unload_adapter, name)
        self.taken.discard(name)

    def allowed(self, path: str) -> Path:
        """The folder, when it lies under the adapters' root once links are followed."""
        if self.root is None:
            raise Refusal(403, "lora_path: this server loads no adapters (start it with --adapters FOLDER)")
        try:
            folder = (self.root / path).resolve()
            inside = all(item.resolve().is_relative_to(self.root) for item in (folder, *folder.glob("*")))
        except (OSError, ValueError) as error:
            raise UserError(str(error), where="lora_path") from None
        if not inside:
            raise Refusal(403, f"lora_path: {path} is not under {self.root}")
        return folder

    async def _in_thread(self, work: Any, *arguments: Any) -> None:
        await asyncio.get_running_loop().run_in_executor(self.batches.thread, work, *arguments)


def application(policy: Policy) -> FastAPI:
    app = bodies.application("gog policy")

    @app.exception_handler(Refusal)
    async def refused(_: Request, error: Refusal) -> Response:
        return bodies.refuse(error.status, error.sentence)

    _add_completions(app, policy)
    _add_adapters(app, policy)
    return app


def _add_completions(app: FastAPI, policy: Policy) -> None:
    @app.post(wire.CHAT_PATH)
    async def chat_completion(request: Request) -> Response:
        asked = await bodies.read(request, ChatCompletion)
        messages, images = _read_messages(asked.messages)
        done = await _complete(policy, asked, policy.model.render(messages), images)
        choice: dict[str, Any] = {"message": {"role": "assistant", "content": _text(done, asked)}}
        if asked.logprobs:
            pairs = zip(policy.model.words(done.tokens), done.logprobs, strict=True)
            choice["logprobs"] = {"content": [{"token": word, "logprob": value} for word, value in pairs]}
        return _reply(policy, asked, done, choice, "chat.completion")

    @app.post("/v1/completions")
    async def text_completion(request: Request) -> Response:
        asked = await bodies.read(request, TextCompletion)
        done = await _complete(policy, asked, asked.prompt, asked.images)
        choice: dict[str, Any] = {"text": _text(done, asked), "logprobs": None}
        if asked.logprobs is not None and asked.logprobs is not False:
            choice["logprobs"] = {"tokens": policy.model.words(done.tokens), "token_logprobs": done.logprobs}
        return _reply(policy, asked, done, choice, "text_completion")


async def _complete(
    policy: Policy, asked: SamplingRequest, prompt: str | Sequence[int], images: Sequence[str]
) -> Completion:
    adapter = policy.adapter_of(asked.model)
    pictures = await asyncio.to_thread(_decode, images) if images else ()
    sampling = Sampling(asked.max_completion_tokens or asked.max_tokens, asked.temperature, asked.stops(), asked.seed)
    text = prompt if isinstance(prompt, str) else tuple(prompt)
    return await policy.batches.submit(Job(Prompt(text, pictures), sampling, adapter))


def _decode(images: Sequence[str]) -> tuple[Picture, ...]:
    return tuple(wire.decode_image(image, where=f"image {number}") for number, image in enumerate(images, 1))


def _read_messages(messages: Sequence[chat.Message]) -> tuple[list[dict[str, Any]], list[str]]:
    """Messages as chat templates want them, and the base64 of their pictures in order. Raises UserError."""
    rendered: list[dict[str, Any]] = []
    images: list[str] = []
    for message in messages:
        if isinstance(message.content, str):
            rendered.append({"role": message.role, "content": message.content})
            continue
        parts: list[dict[str, Any]] = []
        for part in message.content:
            if part.get("type") == "image_url":
                images.append(_data_of(part))
                parts.append({"type": "image"})
            elif part.get("type") == "text":
                parts.append({"type": "text", "text": str(part.get("text", ""))})
            else:
                raise UserError(f"content of type {part.get('type')!r}", where="messages", remedy="text or image_url")
        rendered.append({"role": message.role, "content": parts})
    return rendered, images


def _data_of(part: dict[str, Any]) -> str:
    """The base64 of a data URL. Other addresses are never fetched."""
    url = part.get("image_url")
    url = url.get("url") if isinstance(url, dict) else url
    head, comma, data = str(url).partition(",")
    if not (comma and head.startswith("data:image/") and head.endswith(";base64")):
        raise UserError("not a data URL", where="image_url", remedy="send data:image/png;base64,…")
    return data


def _text(done: Completion, asked: SamplingRequest) -> str:
    return done.text + (done.stopped_by if asked.include_stop_str_in_output else "")


def _reply(policy: Policy, asked: SamplingRequest, done: Completion, choice: dict[str, Any], kind: str) -> Response:
    choice |= {"finish_reason": done.finish, "stop_reason": done.stopped_by or None}
    if asked.return_token_ids:
        choice |= {"prompt_token_ids": done.prompt_tokens, "token_ids": done.tokens}
    prompt, new = len(done.prompt_tokens), len(done.tokens)
    usage = chat.Usage(prompt_tokens=prompt, completion_tokens=new, total_tokens=prompt + new)
    body = chat.completion(choice, model=asked.model or policy.name, usage=usage, kind=kind)
    return Response(json.dumps(body), media_type="application/json")


def _add_adapters(app: FastAPI, policy: Policy) -> None:
    @app.get("/v1/models")
    async def models() -> Response:
        return Response(json.dumps(chat.models([policy.name, *policy.model.adapters])), media_type="application/json")

    @app.post("/v1/load_lora_adapter")
    async def load(request: Request) -> Response:
        asked = await bodies.read(request, LoadAdapter)
        await policy.load(asked.lora_name, asked.lora_path)
        return Response(f"Success: LoRA adapter '{asked.lora_name}' added successfully.", media_type="text/plain")

    @app.post("/v1/unload_lora_adapter")
    async def unload(request: Request) -> Response:
        asked = await bodies.read(request, UnloadAdapter)
        await policy.unload(asked.lora_name)
        return Response(f"Success: LoRA adapter '{asked.lora_name}' removed successfully.", media_type="text/plain")


def build(given: argparse.Namespace) -> FastAPI:
    adapters = given.adapters.resolve() if given.adapters else None
    if adapters is not None and not adapters.is_dir():
        raise UserError("no such folder", where=f"--adapters {given.adapters}", remedy="create it first")
    basemodel.check(given.model, where="--model")
    from gog_tools.policy_model import PolicyModel  # torch takes seconds: not for --help, nor for a port in use

    model = PolicyModel(given.model, device=given.device, dtype=given.dtype)
    return application(Policy(model, name=given.name, adapters=adapters, batch_size=given.batch_size))


def main(argv: list[str]) -> int:
    """`gog serve policy`. Returns the exit code."""
    options = serving.parser(NAME, "A Qwen2.5-VL policy with LoRA adapters, over OpenAI's protocol.")
    options.add_argument("--model", type=Path, required=True, help="folder of the base model in Hugging Face form")
    options.add_argument("--name", default="base", help="the base model's name in requests")
    options.add_argument("--adapters", type=Path, help="folder under which adapters may be loaded; none without it")
    options.add_argument("--batch-size", type=int, default=32, help="most completions generated together")
    options.add_argument("--device", default="cpu", help="torch device")
    options.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="type of the weights")
    options.add_argument("--data", help="not read: this server knows only what it is sent")
    return serving.main(NAME, options, argv, build)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
