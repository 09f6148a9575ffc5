"""A small OpenAI-compatible server of a policy: what vLLM is to a cluster with GPUs, for one machine and for tests.

Chat completions, and raw completions whose prompt (text or token ids) holds image placeholders beside a list of
images: an agent owns its text, and having a server render it again would change tokens it has already sampled.
Adapters come and go under names (gog_tools.policy.versions), from one folder or one store named at start (gog_tools.policy.adapter_source);
a version named at start is loaded before the server is ready, so that a restarted pod never answers without it.

Generation runs in a thread, in batches; health is answered meanwhile. Images come in the request, never from an
address. What is not implemented (streaming, several choices, nucleus sampling) is refused rather than ignored.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from gog import base_model, store, tool_api
from gog.completions import Completion, Job, Model, Prompt, Sampling
from gog.errors import UserError
from gog.images import Image
from gog_tools.policy import adapter_source, backends
from gog_tools.policy.versions import Versions
from gog_tools.serving import chat, http_json, inputs, process
from gog_tools.serving.batching import MicroBatcher

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
    images: list[tool_api.Base64] = Field(default_factory=list, max_length=256)


class LoadAdapter(BaseModel):
    lora_name: str = Field(pattern=ADAPTER_NAME)
    lora_path: str = Field(min_length=1, max_length=4_000)


class UnloadAdapter(BaseModel):
    lora_name: str


class Default(BaseModel):
    model: str


class Policy:
    """The model's requests, in the order of one thread: batches of completions, adapters in between."""

    def __init__(self, model: Model, *, name: str, shelf: adapter_source.Shelf, batch_size: int) -> None:
        self.model = model
        self.batches: MicroBatcher[Job, Completion] = MicroBatcher(model.complete, max_size=batch_size)
        self.versions = Versions(model, self.batches.thread, shelf, base=name)

    async def complete(
        self, asked: SamplingRequest, prompt: str | Sequence[int], images: Sequence[str]
    ) -> tuple[str, Completion]:
        """(name of the version that wrote it, completion)."""
        async with self.versions.wearing(asked.model) as name:
            decoded = await asyncio.to_thread(_decode, images) if images else ()
            limit = asked.max_completion_tokens or asked.max_tokens
            sampling = Sampling(limit, asked.temperature, asked.stops(), asked.seed)
            text = prompt if isinstance(prompt, str) else tuple(prompt)
            adapter = "" if name == self.versions.base else name
            return name, await self.batches.submit(Job(Prompt(text, decoded), sampling, adapter))


def application(policy: Policy) -> FastAPI:
    app = http_json.application("gog policy")
    _add_completions(app, policy)
    _add_adapters(app, policy.versions)
    return app


def _add_completions(app: FastAPI, policy: Policy) -> None:
    @app.post(tool_api.CHAT_PATH)
    async def chat_completion(request: Request) -> Response:
        asked = await http_json.read(request, ChatCompletion)
        messages, images = _read_messages(asked.messages)
        version, done = await policy.complete(asked, policy.model.render(messages), images)
        choice: dict[str, Any] = {"message": {"role": "assistant", "content": _text(done, asked)}}
        if asked.logprobs:
            pairs = zip(policy.model.words(done.tokens), done.logprobs, strict=True)
            choice["logprobs"] = {"content": [{"token": word, "logprob": value} for word, value in pairs]}
        return _reply(version, asked, done, choice, "chat.completion")

    @app.post("/v1/completions")
    async def text_completion(request: Request) -> Response:
        asked = await http_json.read(request, TextCompletion)
        version, done = await policy.complete(asked, asked.prompt, asked.images)
        choice: dict[str, Any] = {"text": _text(done, asked), "logprobs": None}
        if asked.logprobs is not None and asked.logprobs is not False:
            choice["logprobs"] = {"tokens": policy.model.words(done.tokens), "token_logprobs": done.logprobs}
        return _reply(version, asked, done, choice, "text_completion")


def _decode(images: Sequence[str]) -> tuple[Image, ...]:
    return tuple(tool_api.decode_image(image, where=f"image {number}") for number, image in enumerate(images, 1))


def _read_messages(messages: Sequence[chat.Message]) -> tuple[list[dict[str, Any]], list[str]]:
    """Messages as chat templates want them, and the base64 of their images in order. Raises UserError."""
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


def _reply(version: str, asked: SamplingRequest, done: Completion, choice: dict[str, Any], kind: str) -> Response:
    choice |= {"finish_reason": done.finish, "stop_reason": done.stopped_by or None}
    if asked.return_token_ids:
        choice |= {"prompt_token_ids": done.prompt_tokens, "token_ids": done.tokens}
    prompt, new = len(done.prompt_tokens), len(done.tokens)
    usage = chat.Usage(prompt_tokens=prompt, completion_tokens=new, total_tokens=prompt + new)
    body = chat.completion(choice, model=version, usage=usage, kind=kind)
    return Response(json.dumps(body), media_type="application/json")


def _add_adapters(app: FastAPI, versions: Versions) -> None:
    @app.get("/v1/models")
    async def models() -> Response:
        cards: list[dict[str, Any]] = chat.models(versions.names())["data"]
        for card in cards:  # root and parent as vLLM has them
            name = card["id"]
            card |= {"root": versions.paths.get(name, name), "default": name == versions.default}
            card["parent"] = None if name == versions.base else versions.base
        return Response(json.dumps({"object": "list", "data": cards}), media_type="application/json")

    @app.post("/v1/load_lora_adapter")
    async def load(request: Request) -> Response:
        asked = await http_json.read(request, LoadAdapter)
        await versions.load(asked.lora_name, asked.lora_path, request.is_disconnected)
        return _told(f"Success: LoRA adapter '{asked.lora_name}' added successfully.")

    @app.post("/v1/unload_lora_adapter")
    async def unload(request: Request) -> Response:
        asked = await http_json.read(request, UnloadAdapter)
        await versions.unload(asked.lora_name)
        return _told(f"Success: LoRA adapter '{asked.lora_name}' removed successfully.")

    @app.post("/v1/default")
    async def default(request: Request) -> Response:
        asked = await http_json.read(request, Default)
        versions.use(asked.model)
        return _told(f"Success: {asked.model!r} is the default.")


def _told(sentence: str) -> Response:
    return Response(sentence, media_type="text/plain")


def load_model(folder: Path, given: argparse.Namespace) -> Model:
    return backends.load(given.backend, folder, device=given.device, dtype=given.dtype)


def build(given: argparse.Namespace, load: Callable[[Path, argparse.Namespace], Model] = load_model) -> FastAPI:
    """The application, with the version loaded that it is to start with. Raises UserError."""
    shelf, version = _shelf(given), _version(given.version)
    folder = inputs.base_model(given.base, given)
    base_model.check(folder, where="--base")
    policy = Policy(load(folder, given), name=given.name, shelf=shelf, batch_size=given.batch_size)
    if version:
        try:
            policy.versions.start_with(version)
        except http_json.Refusal as refusal:
            raise UserError(refusal.sentence, where="--version") from None
    return application(policy)


def _shelf(given: argparse.Namespace) -> adapter_source.Shelf:
    if given.adapters is not None and given.store is not None:
        raise UserError("adapters come from one place", where="--adapters", remedy="give this or --store")
    if given.adapters is not None:
        if not given.adapters.is_dir():
            raise UserError("no such folder", where=f"--adapters {given.adapters}", remedy="create it first")
        return adapter_source.Folder(given.adapters)
    if given.store is not None:
        spec = inputs.store_spec(given.store)
        return adapter_source.Checkpoints(lambda: store.open_store(spec), given.scratch)
    return adapter_source.Nothing()


def _version(text: str) -> str:
    """The version to start with; `@FILE` is read, so that a restarted pod follows a mounted file, not its arguments."""
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise UserError(f"cannot read: {error.strerror}", where=f"--version {text}") from None


def options() -> argparse.ArgumentParser:
    parser = process.parser(NAME, "A policy with LoRA adapters, over OpenAI's protocol.")
    add = parser.add_argument
    add(
        "--base",
        "--model",
        dest="base",
        required=True,
        help="base model: `tiny`, or a folder or s3:// prefix in Hugging Face form",
    )
    add("--name", default="base", help="the base model's name in requests")
    add("--adapters", type=Path, help="folder under which adapters may be loaded; else they come from --store")
    add("--version", default="", help="checkpoint loaded before the server is ready: grpo/120, or @FILE that names it")
    add("--batch-size", type=int, default=32, help="most completions generated together")
    add("--backend", default="transformers", help=f"{', '.join(backends.BACKENDS)}, or module:factory of a model")
    add("--device", default="cpu", help="torch device")
    add("--dtype", default="float32", choices=("float32", "bfloat16"), help="type of the weights")
    add("--data", help="not read: this server knows only what it is sent")
    return parser


def main(argv: list[str]) -> int:
    """`gog serve policy`. Returns the exit code."""
    return process.main(NAME, options(), argv, build)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
