"""The tools and the judge served on loopback in the test's own process, each request by a given handler."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from aiohttp import web

from gog import outage, regions
from gog.spec import CallPolicy, ToolsSpec
from gog.tool_api import SearchHit
from gog.tool_client import PATHS, Toolbox
from gog.tool_types import Reply

Value = TypeVar("Value")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Provider:
    """The tools and the judge on loopback. handlers: by tool, one for each request; the last one serves all further requests."""

    def __init__(self, handlers: Mapping[str, Sequence[Handler]]) -> None:
        self.handlers = handlers
        self.requests: dict[str, list[Any]] = defaultdict(list)
        self.headers: dict[str, list[Mapping[str, str]]] = defaultdict(list)

    async def __aenter__(self) -> Provider:
        app = web.Application(client_max_size=10_000_000)
        for tool, path in PATHS.items():
            app.router.add_post(path, self._serve(tool))
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    def _serve(self, tool: str) -> Handler:
        async def serve(request: web.Request) -> web.StreamResponse:
            self.requests[tool].append(await request.json())
            self.headers[tool].append(request.headers)
            handlers = self.handlers[tool]
            return await handlers[min(len(self.requests[tool]), len(handlers)) - 1](request)

        return serve


@contextlib.contextmanager
def in_a_thread() -> Iterator[Callable[..., str]]:
    """serve(handlers): address of tools that work but for these handlers, in a thread of their own."""
    opened: list[Provider] = []
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(20)

    def serve(handlers: Mapping[str, Sequence[Handler]] | None = None) -> str:
        opened.append(run(Provider({**WORKING, **(handlers or {})}).__aenter__()))
        return opened[-1].url

    try:
        yield serve
    finally:
        for provider in opened:
            run(provider.__aexit__())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()


def responds(body: bytes | Mapping[str, Any], status: int = 200, **headers: str) -> Handler:
    """A handler that returns this response to every request."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()

    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(body=data, status=status, headers=headers)

    return handler


async def reset(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def hang(request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def half(request: web.Request) -> web.StreamResponse:
    """Announces a hundred bytes, sends ten, and closes the connection."""
    response = web.StreamResponse(headers={"content-length": "100"})
    await response.prepare(request)
    await response.write(b'{"hits": [')
    assert request.transport is not None
    request.transport.abort()
    return response


async def piecemeal(request: web.Request) -> web.StreamResponse:
    """A good answer in many small pieces."""
    response = web.StreamResponse()
    await response.prepare(request)
    for start in range(0, len(HITS_BODY), 40):
        await response.write(HITS_BODY[start : start + 40])
        await asyncio.sleep(0)
    return response


def detections(*boxes: regions.Box) -> dict[str, Any]:
    found = [{"box": box, "score": 0.9 - 0.1 * rank, "label": "ring"} for rank, box in enumerate(boxes)]
    return {"predictions": [{"detections": found}]}


def verdict(content: str) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": content}}]}


HITS = {"hits": [{"title": f"page {n}", "url": f"https://example.org/{n}", "text": "by Ada"} for n in range(5)]}
HITS_BODY = json.dumps(HITS).encode()
WORKING = {
    "grounding": [responds(detections((2, 2, 12, 12), (20, 10, 30, 20)))],
    "imageSearch": [responds(HITS)],
    "textSearch": [responds(HITS)],
    "judge": [responds(verdict("Yes"))],
    "ocr": [responds({"lines": [{"text": "a sign", "box": [1, 1, 9, 9], "score": 0.9}]})],
}


def with_toolbox(
    handlers: Mapping[str, Sequence[Handler]],
    use: Callable[[Toolbox, Provider], Awaitable[Value]],
    *,
    judge_model: str = "",
    backends: Mapping[str, str] | None = None,
    watch: outage.Watch | None = None,
    **limits: Any,
) -> Value:
    """Runs `use` with a toolbox whose tools are served by `handlers`; tools without handlers work. The judge has the
    policy of the tools."""

    async def scenario() -> Value:
        given = {"backoff_seconds": 0, "deadline_seconds": 5, "breaker_failures": 1000, "attempts": 3, **limits}
        policy = {name: value for name, value in given.items() if name in CallPolicy.model_fields}
        settings = ToolsSpec(**{"judge": policy, **given})
        async with (
            Provider({**WORKING, **handlers}) as provider,
            Toolbox(dict.fromkeys(PATHS, provider.url), settings, judge_model, watch, backends) as tools,
        ):
            return await use(tools, provider)

    return asyncio.run(scenario())


def search(handlers: Sequence[Handler], **limits: Any) -> Reply[Sequence[SearchHit]]:
    """One text search served by `handlers`."""

    async def use(tools: Toolbox, provider: Provider) -> Reply[Sequence[SearchHit]]:
        return await tools.search_text("who made the ring?")

    return with_toolbox({"textSearch": handlers}, use, **limits)
