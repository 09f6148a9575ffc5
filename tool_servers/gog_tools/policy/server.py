"""A small OpenAI-compatible server of a policy: what vLLM is to a cluster with GPUs, for one machine and for tests.

Chat and raw completions (requests), from versions of the policy that come and go under names (versions), out of one
folder or one store named at start (adapter_source). A version named at start is loaded before the server is ready, so
that a restarted pod never answers without it.

The back end (gog.completions.Model) generates in a thread, in batches; health is answered meanwhile. Images come in the
request, never from an address. What is not implemented (streaming, several choices, nucleus sampling) is refused.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response

from gog import adapters, admin_tokens, base_model, base_source, hub, store, tool_api
from gog.completions import Completion, Job, Model, Prompt
from gog.errors import UserError
from gog.spec import PixelBounds
from gog_tools.policy import adapter_source, receiver, requests, vllm_server
from gog_tools.policy.versions import Versions
from gog_tools.serving import arguments, backend_calls, backends, chat, errors, http_json, inputs, process

NAME = "policy"


class Policy:
    """A model's requests, in the order of its one thread: batches of completions, adapters in between."""

    def __init__(self, model: Model, *, name: str, source: adapter_source.AdapterSource, batch_size: int) -> None:
        """Creates a policy without adapters. name: of the base model; batch_size: most completions of one batch."""
        self.model = model
        self.batches = backend_calls.batcher(model, model.complete, max_size=batch_size, max_wait=0.002)
        self.versions = Versions(model, self.batches.executor, source, base=name)

    async def complete(
        self, body: requests.SamplingRequest, prompt: str | Sequence[int], images: Sequence[str]
    ) -> tuple[str, Completion]:
        """Completes a prompt.

        Args:
            body: the version and the sampling
            prompt: text or token ids, with one placeholder per image
            images: base64 of image files

        Returns:
            The name of the version that wrote the completion, and the completion.

        Raises:
            UserError: for a prompt or an image that the model cannot use.
            RequestError: for an unknown version, and for a model that fails.
        """
        name = self.versions.acquire(body.model)
        try:
            decoded = await asyncio.to_thread(requests.decode, images) if images else ()
            text = prompt if isinstance(prompt, str) else tuple(prompt)
            adapter = "" if name == self.versions.base else name
            completion = await backend_calls.answer(self.batches, Job(Prompt(text, decoded), body.sampling(), adapter))
        finally:
            await self.versions.release(name)
        if not all(map(math.isfinite, completion.logprobs)):
            raise errors.RequestError(500, f"the weights of {name!r} produce log-probabilities that are not finite")
        return name, completion


Admin = Callable[[Request], None]
"""Checks that a request may change what is served. Raises RequestError."""


def application(policy: Policy, admin: Admin = lambda _: None) -> FastAPI:
    """The policy server's application. admin: checks requests that change what is served; by default all may."""
    app = http_json.application("gog policy")
    _add_completions(app, policy)
    _add_adapters(app, policy.versions, admin)
    return app


def administrator(digest: str) -> Admin:
    """Admits requests with the token of a digest.

    Args:
        digest: The digest, or `@FILE` that holds it and is read for each request; empty admits all.
    """

    def check(request: Request) -> None:
        try:
            expected = Path(digest[1:]).read_text(encoding="utf-8") if digest.startswith("@") else digest
        except OSError:
            expected = ""
        if not admin_tokens.matches(request.headers.get("authorization", ""), expected):
            raise errors.RequestError(401, "adapters are loaded by the control plane that started this server")

    return check if digest else lambda _: None


def _add_completions(app: FastAPI, policy: Policy) -> None:
    @app.post(tool_api.CHAT_PATH)
    async def chat_completion(request: Request) -> Response:
        body = await http_json.read(request, requests.ChatCompletion)
        messages, images = body.rendered()
        prompt = await asyncio.to_thread(policy.model.render, messages)
        version, completion = await policy.complete(body, prompt, images)
        choice: dict[str, Any] = {
            "message": {"role": "assistant", "content": _text(completion, body)},
            "logprobs": None,
        }
        if body.logprobs:
            pairs = zip(policy.model.words(completion.tokens), completion.logprobs, strict=True)
            tokens: list[dict[str, Any]] = [
                {"token": word, "logprob": value, "bytes": None, "top_logprobs": []} for word, value in pairs
            ]
            choice["logprobs"] = {"content": tokens}
        return _reply(version, body, completion, choice, "chat.completion")

    @app.post("/v1/completions")
    async def text_completion(request: Request) -> Response:
        body = await http_json.read(request, requests.TextCompletion)
        version, completion = await policy.complete(body, body.prompt, body.images)
        choice: dict[str, Any] = {"text": _text(completion, body), "logprobs": None}
        if body.logprobs is not False:
            choice["logprobs"] = {
                "tokens": policy.model.words(completion.tokens),
                "token_logprobs": completion.logprobs,
            }
        return _reply(version, body, completion, choice, "text_completion")


def _text(completion: Completion, body: requests.SamplingRequest) -> str:
    return completion.text + (completion.stopped_by if body.include_stop_str_in_output else "")


def _reply(
    version: str, body: requests.SamplingRequest, completion: Completion, choice: dict[str, Any], kind: str
) -> Response:
    choice |= {"finish_reason": completion.finish, "stop_reason": completion.stopped_by or None}
    if body.return_token_ids:
        choice |= {"prompt_token_ids": completion.prompt_tokens, "token_ids": completion.tokens}
    usage = chat.Usage.of(prompt=len(completion.prompt_tokens), new=len(completion.tokens))
    return http_json.reply(chat.completion(choice, model=version, usage=usage, kind=kind))


def _add_adapters(app: FastAPI, versions: Versions, admin: Admin) -> None:
    def cards() -> list[dict[str, Any]]:
        cards = chat.models(versions.names())
        for card in cards:  # root and parent as vLLM has them
            name = card["id"]
            card |= {"root": versions.paths.get(name, name), "default": name == versions.default}
            card["parent"] = None if name == versions.base else versions.base
        return cards

    chat.add_models(app, cards)

    @app.post("/v1/load_lora_adapter")
    async def load(request: Request) -> Response:
        admin(request)
        body = await http_json.read(request, requests.LoadAdapter)
        await versions.load(body.lora_name, body.lora_path, request.is_disconnected)
        return _success(f"LoRA adapter '{body.lora_name}' added successfully.")

    @app.post("/v1/unload_lora_adapter")
    async def unload(request: Request) -> Response:
        admin(request)
        body = await http_json.read(request, requests.UnloadAdapter)
        await versions.unload(body.lora_name)
        return _success(f"LoRA adapter '{body.lora_name}' removed successfully.")

    @app.post("/v1/default")
    async def default(request: Request) -> Response:
        admin(request)
        body = await http_json.read(request, requests.Default)
        versions.set_default(body.model)
        return _success(f"{body.model!r} is the default.")


def _success(sentence: str) -> Response:
    return Response(f"Success: {sentence}", media_type="text/plain")  # vLLM's words for adapters


def build(args: argparse.Namespace) -> FastAPI:
    """The application, with the version loaded that it is to start with. Raises UserError."""
    version = _version(args.version)
    base = inputs.base_model(_pinned(args, version), args)
    base_model.check(base.folder, where="--base")
    identity = base_model.Identity(base.name, base_model.fingerprint(base.folder))
    source = _source(args, identity)
    policy = Policy(_model(args, base.folder), name=args.name, source=source, batch_size=args.batch_size)
    for each in reversed(version.split()):  # the last one that is loaded is the default
        try:
            policy.versions.start_with(each)
        except errors.RequestError as error:
            raise UserError(error.message, where="--version") from None
    return application(policy, administrator(args.admin_digest))


def _pinned(args: argparse.Namespace, version: str) -> str:
    """The base, at the commit that the version to start with was trained on if it is an hf:// one."""
    if not version or args.store is None or hub.parse(args.base) is None:
        return args.base
    opened = store.open_store(inputs.store_spec(args.store))
    return base_source.recorded(args.base, adapters.lineage(opened, version.split()[0]))


def _model(args: argparse.Namespace, folder: Path) -> Model:
    resources = inputs.resources(args) | {
        "folder": lambda: folder,
        "device": lambda: args.device,
        "dtype": lambda: base_model.stored_dtype(folder) if args.dtype == "auto" else args.dtype,
        "pixels": lambda: PixelBounds(args.min_pixels, args.max_pixels),
    }
    model: Model = backends.load(NAME, args.backend, args.options, Model, resources)
    return model


def _source(args: argparse.Namespace, base: base_model.Identity) -> adapter_source.AdapterSource:
    if args.adapters is not None and args.store is not None:
        raise UserError("adapters come from one place", where="--adapters", remedy="give this or --store")
    if args.adapters is not None:
        if not args.adapters.is_dir():
            raise UserError("no such folder", where=f"--adapters {args.adapters}", remedy="create it first")
        return adapter_source.Folder(args.adapters)
    if args.store is not None:
        spec = inputs.store_spec(args.store)
        return adapter_source.Checkpoints(lambda: store.open_store(spec), args.scratch, base)
    return adapter_source.NoAdapters()


def _version(text: str) -> str:
    """The version to start with. `@FILE` is read, because a restarted pod keeps its arguments but sees a new file."""
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise UserError(f"cannot read: {error.strerror}", where=f"--version {text}") from None


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = process.parser(NAME, "A policy with LoRA adapters, over OpenAI's protocol.")
    add = parser.add_argument
    add(
        "--base",
        "--model",
        dest="base",
        required=True,
        help="base model: `tiny`, a folder or s3:// prefix in Hugging Face form, or hf://org/name[@revision]",
    )
    add("--name", default="base", help="the base model's name in requests")
    add("--adapters", type=Path, help="folder under which adapters may be loaded; else they come from --store")
    add(
        "--version",
        default="",
        help="checkpoint loaded before the server is ready: grpo/120, or @FILE that names it; further ones after a space",
    )
    add(
        "--admin-digest",
        default="",
        help="SHA-256 of the token of requests that load, unload or choose adapters, or @FILE that holds it; else all may",
    )
    add("--batch-size", type=arguments.whole(1, 4_096), default=32, help="most completions generated together")
    backends.add_arguments(parser, NAME)
    add("--device", default="cpu", help="torch device")
    add(
        "--dtype",
        default="auto",
        choices=("auto", "float32", "bfloat16"),
        help="type of the weights; auto: as they are stored",
    )
    pixels = arguments.whole(1)
    add("--max-pixels", type=pixels, help="most pixels of an image that the model sees, as in training")
    add("--min-pixels", type=pixels, help="fewest pixels of an image that the model sees, as in training")
    return parser


def main(argv: list[str]) -> int:
    """`gog serve policy`. Returns the exit code."""
    if argv[:2] == ["--runtime", "vllm"]:
        return vllm_server.main(argv[2:])
    if argv[:2] == ["--runtime", "receiver"]:
        return receiver.main(argv[2:])
    return process.main(NAME, options(), argv, build)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
