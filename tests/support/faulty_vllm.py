"""A server that speaks the part of vLLM's protocol that the engine uses, to provoke faults. It samples nothing real.

Its error bodies are those of vLLM 0.32. That the protocol is right is shown against a real vLLM (tests/vllm).
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from typing import Any

import numpy as np
from aiohttp import web

from gog_recipes.rollout import vllm_request as requests
from gog_recipes.rollout.vllm_replica import Probe, Served

PROMPT = requests.Prompt([1, 9, 6, 8, 7], [1, 9, 6, 6, 8, 7], [(2, 2)])
IMAGES = ("data:image/png;base64,AAAA",)
MISSING = {"detail": "Not Found"}
"""Of a path that the server does not have."""


def error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "NotFoundError", "param": None, "code": 404}}


def served(name: str = "run-grpo-1-abc", logprob: float = 0.0) -> Served:
    """An adapter whose probe expects this log-prob of every token."""
    return Served(name, f"/adapters/{name}", 1, Probe(PROMPT, IMAGES, np.full(2, logprob), 1e-3))


class FaultyVLLM:
    """Answers correctly, unless the next answer of a path is scripted.

    Attributes:
        script: for each path, answers to give first: (status, body, headers), seconds to wait, an event to wait for, or
            an exception to break the connection with.
        calls: path and body of each request.
        adapters: those that are loaded.
        probe: the prompt with an image that it expects, and its log-probs.
        token: what it samples.
        logprob: that it reports of it.
        fails_at: seed of the turn at which it always fails.
        kills: seed of the turn at which it always breaks off.
    """

    def __init__(self) -> None:
        self.script: dict[str, deque[Any]] = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.adapters: set[str] = set()
        self.probe, self.token = served().probe, 30
        self.expanded, self.processed, self.length = PROMPT.expanded, True, 1024
        self.logprob, self.fails_at, self.kills = 0.0, -1, -1
        self.in_flight = self.most = 0
        self.port = 0

    async def __aenter__(self) -> FaultyVLLM:
        app = web.Application(client_max_size=10_000_000)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    def serve(self, probe: Probe) -> None:
        """Expects this prompt, and computes what its trainer computes."""
        self.probe, self.expanded = probe, probe.prompt.expanded

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else {}
        self.calls.append((request.path, body))
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        try:
            if body.get("sampling_params", {}).get("seed") == self.kills:
                await self._scripted(request, ConnectionError("dies"))
            planned = self.script.get(request.path)
            return (await self._scripted(request, planned.popleft()) if planned else None) or self._answer(
                request.path, body
            )
        finally:
            self.in_flight -= 1

    async def _scripted(self, request: web.Request, step: Any) -> web.Response | None:
        """The scripted answer; None for the ordinary one after a pause."""
        if isinstance(step, float):
            await asyncio.sleep(step)
            return None
        if isinstance(step, asyncio.Event):
            await step.wait()
            return None
        if isinstance(step, Exception):
            assert request.transport is not None
            request.transport.abort()
            raise step
        status, content, headers = step
        text = content if isinstance(content, str) else json.dumps(content)
        return web.Response(status=status, text=text, headers=headers)

    def _answer(self, path: str, body: dict[str, Any]) -> web.Response:
        if path == "/v1/models":
            base = {"id": "base", "parent": None, "max_model_len": self.length}
            return web.json_response({"data": [base, *({"id": name, "parent": "base"} for name in self.adapters)]})
        if path == "/health":
            return web.Response()
        if path == "/tokenize":
            return web.json_response(MISSING, status=404)
        if path == "/v1/load_lora_adapter":
            self.adapters.add(body["lora_name"])
            return web.Response(text="Success")
        if path == "/v1/unload_lora_adapter":
            if body["lora_name"] not in self.adapters:
                return web.json_response(error(f"The lora adapter '{body['lora_name']}' cannot be found."), status=404)
            self.adapters.remove(body["lora_name"])
            return web.Response(text="Success")
        assert path == requests.GENERATE, path
        if body["model"] not in {"base", *self.adapters}:
            return web.json_response(error(f"The model `{body['model']}` does not exist."), status=404)
        if body["sampling_params"].get("seed") == self.fails_at:
            return web.json_response(error("no such kernel"), status=500)
        return web.json_response(self._sample(body))

    def _sample(self, body: dict[str, Any]) -> dict[str, Any]:
        parameters, images = body["sampling_params"], body.get("content_parts")
        token = (parameters.get("allowed_token_ids") or [self.token])[0]
        spans = [{"offset": start, "length": count} for start, count in self.probe.prompt.spans]
        logprob = self.logprob if self.processed else -1.5
        made = {
            "choices": [
                {
                    "token_ids": [token],
                    "logprobs": {"content": [{"token_id": token, "logprob": logprob}]},
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens_details": None},
            "prompt_token_ids": self.expanded if images else body["token_ids"],
            "mm_placeholders": {"image": spans} if images else None,
        }
        if "prompt_logprobs" in parameters:
            known = self.probe.logprobs
            values = np.concatenate([np.zeros(len(self.expanded) - len(known)), known])[1:]
            pairs = zip(self.expanded[1:], values.tolist(), strict=True)
            made["prompt_logprobs"] = [None, *({str(token): {"logprob": value}} for token, value in pairs)]
        return made
