"""The four tools of an episode over HTTP: requests and answers of `gog.tool_api`, each through its own call path.

Crops are made here, once per answer, from the image's own pixels; they travel as bytes. aiohttp is the only HTTP
library of the agent: of the maintained ones it costs the least time per call, and an episode makes several.

Sockets and deadlines live on a loop of their own (`gog.io_loop`), so that a caller that computes delays no tool and no
tool's deadline. Requests that hold an image are built in worker threads, because encoding a large one takes seconds;
what is made of an answer (crops) is made in the caller's thread.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import math
import os
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

import aiohttp

from gog import judging, metrics, outage, regions, tool_api
from gog.call_path import Build, CallError, CallPath, build_here
from gog.images import Image
from gog.io_loop import IOLoop
from gog.spec import ToolsSpec, key_variable
from gog.tool_cache import Cache
from gog.tool_types import FailureKind, Grounding, Reply
from gog.trajectory import Candidate

Value = TypeVar("Value")
BACKEND = "http"
MAX_ANSWER_BYTES = 64_000_000
MAX_WHOLE_BODY = 1 << 16
"""Bytes of a request that are written to the socket at once; a longer body is written in pieces, so that others are served
in between."""


class Toolbox:
    """gog.tool_types.Tools and the judge over HTTP. Use as an async context manager.

    With a watch, calls of a service that is down wait for it, and raise ServiceDown when it stays down; a service that
    answers but never succeeds raises UserError. Without one, every call returns its failure.
    """

    def __init__(
        self,
        endpoints: Mapping[str, str],
        limits: ToolsSpec,
        judge_model: str = "",
        watch: outage.Watch | None = None,
    ) -> None:
        """
        Args:
            endpoints: base URL of each tool by name (catalog.TOOLS); to call a tool that has none is a bug.
            limits: policies of the calls, sizes of candidates and crops, the cache.
            judge_model: model to request from the judge's server; empty where it has only one.
            watch: waits out outages; None where failures are wanted as they come (`gog serve agent`, tests).
        """
        self.limits, self.judge_model, self._watch = limits, judge_model, watch
        self._endpoints = dict(endpoints)
        self._crops: OrderedDict[tuple[str, tuple[float, ...]], Image] = OrderedDict()

    async def __aenter__(self) -> Toolbox:
        self._io = IOLoop()
        try:
            await self._io.run(self._open())
        except BaseException:
            self._io.close()
            raise
        return self

    async def _open(self) -> None:
        """Makes what belongs to the I/O loop."""
        self._cache = Cache(self.limits.cache)
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), auto_decompress=False)
        self._paths = {
            "grounding": self._path("grounding", tool_api.GROUNDING_PATH, build=asyncio.to_thread),
            "imageSearch": self._path("imageSearch", tool_api.IMAGE_SEARCH_PATH, build=asyncio.to_thread),
            "textSearch": self._path("textSearch", tool_api.TEXT_SEARCH_PATH),
            # Other rules or another model are another judge: recorded verdicts of the old must not answer for the new.
            "judge": self._path("judge", tool_api.CHAT_PATH, version=fingerprint(judging.RULES + self.judge_model)),
        }

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._io.run(self._session.close())
        self._io.close()

    def _path(self, tool: str, path: str, *, version: str = "1", build: Build = build_here) -> CallPath:
        address = self._endpoints.get(tool, "").rstrip("/") + path
        send = self._sender(tool, address, os.environ.get(key_variable(tool), ""))
        return CallPath(tool, BACKEND, send, self.limits.policy(tool), self._cache, version=version, build=build)

    def _sender(self, tool: str, url: str, key: str) -> Callable[[bytes], Awaitable[bytes]]:
        # Answers are not decompressed (a small one may unfold to gigabytes), so none may come compressed.
        headers = {"content-type": "application/json", "accept-encoding": "identity"}
        if key:
            headers["authorization"] = f"Bearer {key}"

        async def send(body: bytes) -> bytes:
            data = body if len(body) <= MAX_WHOLE_BODY else io.BytesIO(body)
            try:
                async with self._session.post(url, data=data, headers=headers, allow_redirects=False) as response:
                    answer = await _read_whole(response)
                    _note_cost(tool, response.headers)
                    _check_status(response.status, response.headers.get("retry-after"), answer)
                    return answer
            except aiohttp.ClientError as error:
                raise CallError(FailureKind.CONNECTION, f"{type(error).__name__}: {error}") from None

        return send

    async def _call(
        self,
        tool: str,
        arguments: Mapping[str, Any],
        body: Callable[[], bytes],
        read: Callable[[bytes], Value],
    ) -> Reply[Value]:
        def call() -> Awaitable[Reply[Value]]:
            return self._io.run(self._paths[tool].call(arguments, body, read))

        return await (call() if self._watch is None else self._watch.call(tool, call))

    async def ground(self, image: Image, expression: str) -> Reply[Grounding]:
        expression = expression[: tool_api.MAX_EXPRESSION]

        def body() -> bytes:
            instance = tool_api.GroundingInstance(image="", expression=expression)
            return tool_api.with_image(tool_api.GroundingRequest(instances=[instance]), image)

        reply = await self._call("grounding", {"image": image.hash, "expression": expression}, body, _read_detections)
        found = None if reply.value is None else self._candidates(image, reply.value)
        return Reply(found, reply.failure, reply.attempts, reply.seconds, reply.cached)

    def _candidates(self, image: Image, detections: Sequence[tool_api.Detection]) -> Grounding:
        limits = self.limits
        chosen = regions.select(
            detections,
            image.width,
            image.height,
            limit=limits.max_candidates,
            min_side=limits.min_box_side,
            max_aspect=limits.max_box_aspect,
            max_overlap=limits.overlap,
        )
        crops = tuple(self._crop(image, item.box) for item in chosen)
        found = (
            Candidate(number=number, box=item.box, score=round(item.score, 4), label=item.label, crop=crop.hash)
            for number, (item, crop) in enumerate(zip(chosen, crops, strict=True), 1)
        )
        return Grounding(tuple(found), crops)

    def _crop(self, image: Image, box: regions.Box) -> Image:
        """The same box of the same image is cut once, however many episodes look at it."""
        key = (image.hash, box)
        if key not in self._crops:
            self._crops[key] = regions.crop(image, box, by=self.limits.pad, side=self.limits.crop_side)
            while len(self._crops) > 10_000:
                self._crops.popitem(last=False)
        return self._crops[key]

    async def search_image(self, image: Image) -> Reply[Sequence[tool_api.SearchHit]]:
        def body() -> bytes:
            return tool_api.with_image(tool_api.ImageSearchRequest(image="", top=self.limits.top), image)

        return await self._call("imageSearch", {"image": image.hash, "top": self.limits.top}, body, _read_hits)

    async def search_text(self, query: str) -> Reply[Sequence[tool_api.SearchHit]]:
        query = query[: tool_api.MAX_QUERY]

        def body() -> bytes:
            return tool_api.TextSearchRequest(query=query, top=self.limits.top).model_dump_json().encode()

        return await self._call("textSearch", {"query": query, "top": self.limits.top}, body, _read_hits)

    async def judge(self, question: str, answers: Sequence[str], answer: str) -> Reply[bool]:
        def body() -> bytes:
            chat = {
                "model": self.judge_model or "judge",
                "messages": judging.messages(question, answers, answer),
                "temperature": 0,
                "max_tokens": 4,
            }
            return json.dumps(chat).encode()

        case = {"question": question, "answers": list(answers), "answer": answer}
        reply = await self._call("judge", case, body, _read_verdict)
        metrics.verdict(reply.value)
        return reply


async def _read_whole(response: aiohttp.ClientResponse) -> bytes:
    """The body to its end; raises CallError for one that has none in sight."""
    parts, size = [], 0
    async for part in response.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > MAX_ANSWER_BYTES:
            raise CallError(FailureKind.MALFORMED, f"the answer is longer than {MAX_ANSWER_BYTES:,} bytes")
    return b"".join(parts)


def _note_cost(tool: str, headers: Mapping[str, str]) -> None:
    """Counts what the answer cost, where it says so; also that of a failure, which may be charged."""
    if tool_api.COST_HEADER in headers or tool_api.CREDIT_HEADER in headers:
        cost, left = (_dollars(headers.get(name, "")) for name in (tool_api.COST_HEADER, tool_api.CREDIT_HEADER))
        metrics.tool_cost(tool, BACKEND, cost, left)


def _dollars(text: str) -> float | None:
    """None for what is no amount of money."""
    try:
        amount = float(text)
    except ValueError:
        return None
    return amount if math.isfinite(amount) and amount >= 0 else None


def fingerprint(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def _check_status(status: int, retry_after: str | None, answer: bytes) -> None:
    """Raises CallError for anything but 200."""
    if status == 200:
        return
    text = answer[:200].decode("utf-8", "replace")
    if status == 429 or (status == 503 and retry_after):
        seconds = float(retry_after) if retry_after and retry_after.replace(".", "", 1).isdigit() else None
        raise CallError(FailureKind.RATE_LIMITED, f"HTTP {status}", seconds)
    if status >= 500 or status == 408:
        raise CallError(FailureKind.SERVER_ERROR, f"HTTP {status}: {text}")
    raise CallError(FailureKind.REFUSED, f"HTTP {status}: {text}")


def _read_detections(answer: bytes) -> Sequence[tool_api.Detection]:
    predictions = tool_api.GroundingResponse.model_validate_json(answer).predictions
    if len(predictions) != 1:
        raise ValueError(f"{len(predictions)} predictions for one instance")
    return predictions[0].detections


def _read_hits(answer: bytes) -> Sequence[tool_api.SearchHit]:
    return tool_api.SearchResponse.model_validate_json(answer).hits


def _read_verdict(answer: bytes) -> bool:
    try:
        content: Any = json.loads(answer)["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"not a chat completion: {error!r}") from None
    verdict = judging.read_verdict(str(content))
    if verdict is None:
        raise ValueError(f"neither Yes nor No: {str(content)[:60]!r}")
    return verdict
