"""The tools of an episode and the judge over HTTP: requests and answers of `gog.tool_api`, each through its call path.

Sockets and deadlines live on a loop of their own (`gog.io_loop`), so that a caller that computes delays no tool and no
tool's deadline. Requests that hold an image are built in worker threads, because encoding a large image takes seconds.
Crops of what grounding proposes are cut here (`gog.crops`) and travel as bytes.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
import logging
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from gog import (
    api_keys,
    chat_dialect,
    crops,
    judging,
    metrics,
    outage,
    regions,
    served_models,
    tool_api,
    tool_transport,
    wording,
)
from gog.call_path import Build, CallPath, build_here
from gog.calls import fallback, rate_limit, slots
from gog.calls.failure_log import FailureLog
from gog.calls.rate_limit import RateLimit
from gog.calls.spend import Account
from gog.calls.spend_log import SpendLog
from gog.images import Image
from gog.io_loop import IOLoop
from gog.metrics import loop_lag
from gog.served_models import ServedModels
from gog.spec import CallPolicy, StageConfig, StoreSpec, ToolsSpec, key_variable
from gog.tool_cache import Cache
from gog.tool_transport import BACKEND
from gog.tool_types import CallError, FailureKind, Grounding, Reply, ToolFailure
from gog.trajectory import Candidate

Value = TypeVar("Value")
PATHS = {
    "grounding": tool_api.GROUNDING_PATH,
    "imageSearch": tool_api.IMAGE_SEARCH_PATH,
    "textSearch": tool_api.TEXT_SEARCH_PATH,
    "ocr": tool_api.OCR_PATH,
    "judge": tool_api.CHAT_PATH,
}
"""Path of each tool's requests below its base URL."""
FALLBACK = "fallback"
"""Label of metrics of the server that is called where a tool's own has failed."""
SENDS_IMAGES = ("grounding", "imageSearch", "ocr")
MAX_TEXT_BYTES = 4_000_000
"""Maximum bytes of an answer without images."""

log = logging.getLogger(__name__)


class Toolbox:
    """gog.tool_actions.Tools and the judge over HTTP. Use as an async context manager.

    With a watch, calls of a service that is down wait for it, and raise ServiceDown when it stays down; a service that
    answers but never succeeds raises UserError. Without one, every call returns its failure.
    """

    def __init__(
        self,
        endpoints: Mapping[str, str],
        limits: ToolsSpec,
        judge_model: str = "",
        watch: outage.Watch | None = None,
        backends: Mapping[str, str] | None = None,
        shared: Path | None = None,
        reports: Callable[[Account], SpendLog] | None = None,
        keys: Mapping[str, str] | None = None,
        observe: Callable[[tool_transport.Exchange], None] | None = None,
        store: StoreSpec | None = None,
    ) -> None:
        """
        Args:
            endpoints: base URL of each tool by name (catalog.TOOLS); to call a tool that has none is a bug.
            limits: policies of the calls, sizes of candidates and crops, the cache.
            judge_model: model to request from the judge's server; empty where it has only one.
            watch: waits out outages; None where failures are wanted as they come (`gog serve agent`, tests).
            backends: what answers each tool, for the keys of recorded answers; a tool without one is known by its URL.
            shared: folder that the processes of this machine share, for rate limits; None limits this process only.
            reports: makes what reports the spending of an account; None: budgets hold for this process only.
            keys: API key of each server by tool; None reads them from the environment.
            observe: called after each request (`gog tools check`).
            store: of the run, whose options hold for answers that are recorded in a bucket.
        """
        self.limits, self.judge_model, self._watch = limits, judge_model, watch
        self.judged_by = ServedModels()
        self._endpoints, self._backends = dict(endpoints), dict(backends or {})
        self._shared, self._reports, self._keys, self._observe, self._store = shared, reports, keys, observe, store
        self.account = Account(limits.budgets())
        self._crops = crops.Crops(limits.pad, limits.crop_side)
        self._failures = FailureLog(log)

    @classmethod
    def of_stage(cls, config: StageConfig, watch: outage.Watch | None = None) -> Toolbox:
        """The tools of a stage, as its configuration names them."""
        shared = Path(config.workdir) / "limits" if config.workdir else None
        reports = functools.partial(SpendLog.of_stage, config)
        given = (config.endpoints, config.tools, config.judge_model, watch, config.backends)
        return cls(*given, shared, reports, store=config.store)

    async def __aenter__(self) -> Toolbox:
        self.io = IOLoop()
        try:
            await self.io.run(self._open())
        except BaseException:
            self.io.close()
            raise
        return self

    async def _open(self) -> None:
        """Makes what belongs to the I/O loop."""
        keys = self._keys
        if keys is None:
            keys = {tool: api_keys.from_environment(key_variable(tool)) for tool in PATHS}
        self._spend_log = self._reports(self.account) if self._reports is not None else None
        if self._spend_log is not None:
            await self._spend_log.sync()  # what earlier stages spent
            self._reporting = asyncio.create_task(self._spend_log.run())  # ends with the loop
        self._cache = await asyncio.to_thread(Cache, self.limits.cache, store=self._store)
        self._session = tool_transport.open_session()
        self._paths = {tool: self._path(tool, self._own_server(tool, keys.get(tool, ""))) for tool in PATHS}
        fallbacks = {tool: self._fallback_server(tool) for tool in PATHS}
        self._fallbacks = {tool: self._path(tool, server) for tool, server in fallbacks.items() if server is not None}
        self._lag = asyncio.create_task(loop_lag.measure(metrics.record_event_loop_lag))  # ends with the loop

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.io.run(self._close())
        finally:
            self.io.close()

    async def _close(self) -> None:
        for path in (
            *self._paths.values(),
            *self._fallbacks.values(),
        ):  # a stage that stops early leaves calls behind, which need the session
            await path.abandon()
        await self._session.close()
        await self._cache.close()
        if self._spend_log is not None:
            await self._spend_log.report()

    def _own_server(self, tool: str, key: str) -> _Server:
        address = self._endpoints.get(tool, "").rstrip("/")
        identity = self._backends.get(tool) or address
        return _Server(BACKEND, address, key, identity, self.judge_model, self.limits.policy(tool), tool)

    def _fallback_server(self, tool: str) -> _Server | None:
        given = self.limits.fallback(tool)
        if given is None:
            return None
        key = api_keys.from_environment(key_variable(f"{tool}Fallback"))
        address = given.url.rstrip("/")
        own = {"usd_per_call": given.usd_per_call, "rate_per_minute": None}  # price and limit are of the other server
        policy = self.limits.policy(tool).model_copy(update=own)
        return _Server(FALLBACK, address, key, address, given.model, policy, f"{tool}Fallback")

    def _path(self, tool: str, server: _Server) -> CallPath:
        if server.policy.usd_per_call is not None:
            self.account.prices[server.charged_as] = server.policy.usd_per_call
        build: Build = asyncio.to_thread if tool in SENDS_IMAGES else build_here
        # Other rules or another model are another judge: recorded verdicts of one must not answer for the other.
        version = self._judge_version(server.model) if tool == "judge" else "1"
        send = tool_transport.Transport(
            self._session,
            tool,
            server.address + PATHS[tool],
            server.key,
            server.backend,
            max_bytes=tool_transport.MAX_ANSWER_BYTES if tool == "imageSearch" else MAX_TEXT_BYTES,
            max_values=tool_transport.MAX_VALUES,
            observe=self._observe,
        ).send
        if tool == "judge":
            send = chat_dialect.DialectTransport(send).send
        shared = slots.of_process(server.policy.concurrency, os.environ)
        policy = server.policy.model_copy(update={"concurrency": shared})
        per_minute = policy.rate_per_minute and rate_limit.for_machine(policy.rate_per_minute, os.environ)
        return CallPath(
            tool,
            server.backend,
            send,
            policy,
            self._cache,
            answered_by=server.identity,
            version=version,
            build=build,
            account=self.account,
            charged_as=server.charged_as,
            rate=RateLimit(per_minute, self._shared and self._shared / tool),
        )

    def _judge_version(self, model: str) -> str:
        """Of the judge's rules, model and further settings."""
        request = self.limits.judge.request
        return fingerprint(judging.RULES + model + (json.dumps(request, sort_keys=True) if request else ""))

    async def _call(
        self,
        tool: str,
        arguments: Mapping[str, Any],
        body: Callable[[], bytes],
        read: Callable[[bytes], Value],
        fallback_body: Callable[[], bytes] | None = None,
    ) -> Reply[Value]:
        """One call. fallback_body: makes the fallback's request where it is another one than the server's."""

        async def both() -> Reply[Value]:
            reply = await self._paths[tool].call(arguments, body, read)
            path = self._fallbacks.get(tool)
            if path is None:
                return reply
            return await fallback.call(reply, lambda: path.call(arguments, fallback_body or body, read))

        def call() -> Awaitable[Reply[Value]]:
            return self.io.run(both())

        reply = await (call() if self._watch is None else self._watch.call(tool, call))
        if reply.failure is not None:
            self._failures.add(reply.failure)
        return reply

    async def ground(self, image: Image, expression: str, region: regions.Box | None = None) -> Reply[Grounding]:
        expression = expression[: tool_api.MAX_EXPRESSION]
        seen = image if region is None else await crops.part(image, region, self.limits.pad)

        def body() -> bytes:
            instance = tool_api.GroundingInstance(image="", expression=expression)
            return tool_api.with_image(tool_api.GroundingRequest(instances=[instance]), seen)

        reply = await self._call("grounding", {"image": seen.hash, "expression": expression}, body, _read_detections)
        if reply.value is None:
            return reply.with_value(None)
        detections = reply.value
        if region is not None:
            begin = regions.origin(region, self.limits.pad, image.width, image.height)
            detections = [crops.in_whole(each, seen, *begin) for each in detections]
        return reply.with_value(await self._candidates(image, detections))

    async def _candidates(self, image: Image, detections: Sequence[tool_api.Detection]) -> Grounding:
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
        cut = await self._crops.cut(image, [item.box for item in chosen])
        found = (
            Candidate(number=number, box=item.box, score=round(item.score, 4), label=item.label, crop=crop.hash)
            for number, (item, crop) in enumerate(zip(chosen, cut, strict=True), 1)
        )
        return Grounding(tuple(found), cut)

    def _read_hits(self, answer: bytes) -> Sequence[tool_api.SearchHit]:
        """Hits of a search, clipped; those beyond the number that was requested are dropped."""
        return tuple(map(tool_api.clipped, tool_api.SearchResponse.model_validate_json(answer).hits[: self.limits.top]))

    async def search_image(self, image: Image) -> Reply[Sequence[tool_api.SearchHit]]:
        def body() -> bytes:
            return tool_api.with_image(tool_api.ImageSearchRequest(image="", top=self.limits.top), image)

        return await self._call("imageSearch", {"image": image.hash, "top": self.limits.top}, body, self._read_hits)

    async def search_text(self, query: str) -> Reply[Sequence[tool_api.SearchHit]]:
        query = query[: tool_api.MAX_QUERY]

        def body() -> bytes:
            return tool_api.TextSearchRequest(query=query, top=self.limits.top).model_dump_json().encode()

        return await self._call("textSearch", {"query": query, "top": self.limits.top}, body, self._read_hits)

    async def read_text(self, image: Image) -> Reply[Sequence[str]]:
        def body() -> bytes:
            return tool_api.with_image(tool_api.OcrRequest(image=""), image)

        return await self._call("ocr", {"image": image.hash}, body, _read_lines)

    async def judge(self, question: str, answers: Sequence[str], answer: str) -> Reply[bool]:
        votes = self.limits.judge.votes
        replies = await asyncio.gather(*(self._vote(question, answers, answer, vote) for vote in range(votes)))
        reply = replies[0] if votes == 1 else _counted(replies)
        metrics.record_verdict(reply.value)
        return reply

    async def _vote(self, question: str, answers: Sequence[str], answer: str, vote: int) -> Reply[bool]:
        settings = self.limits.judge
        sampling = {"temperature": 0} if settings.votes == 1 else {"temperature": 1, "seed": vote}

        def body(model: str) -> bytes:
            chat = {
                "model": model or "judge",
                "messages": judging.messages(question, answers, answer),
                **sampling,
                "max_tokens": settings.max_tokens,
                **settings.request,
            }
            return json.dumps(chat).encode()

        case: dict[str, Any] = {"question": question, "answers": list(answers), "answer": answer}
        if settings.votes > 1:
            case["vote"] = vote
        second = settings.fallback.model if settings.fallback is not None else ""
        return await self._call("judge", case, lambda: body(self.judge_model), self._read_verdict, lambda: body(second))

    def _read_verdict(self, answer: bytes) -> bool:
        completion = json.loads(answer)
        self.judged_by.see(served_models.identity(completion))
        return _verdict(completion)


def _counted(votes: Sequence[Reply[bool]]) -> Reply[bool]:
    """The reply of several votes: their majority, else the failure of one of them, else that they disagree."""
    verdict = judging.majority([vote.value for vote in votes])
    failure = None
    if verdict is None:
        counts = f"{sum(vote.value is True for vote in votes)} Yes, {sum(vote.value is False for vote in votes)} No"
        message = f"no majority in {len(votes)} votes: {counts}"
        disagreement = ToolFailure("judge", FailureKind.UNDECIDED, message)
        failure = next((vote.failure for vote in votes if vote.failure is not None), disagreement)
    return Reply(
        verdict,
        failure,
        attempts=sum(vote.attempts for vote in votes),
        seconds=max(vote.seconds for vote in votes),
        cached=all(vote.cached for vote in votes),
        decisions=tuple(dict.fromkeys(each for vote in votes for each in vote.decisions)),
        waited=max(vote.waited for vote in votes),
        usd=sum(vote.usd for vote in votes),
    )


@dataclass(frozen=True)
class _Server:
    """What answers a tool's calls."""

    backend: str
    """Label of metrics."""
    address: str
    """Base URL."""
    key: str
    """API key; empty where it requires none."""
    identity: str
    """What answers, as part of the keys of recorded answers."""
    model: str
    """Model to request; the judge's only."""
    policy: CallPolicy
    """How it is called."""
    charged_as: str
    """Name under which its calls are charged."""


def fingerprint(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def _read_detections(answer: bytes) -> Sequence[tool_api.Detection]:
    predictions = tool_api.GroundingResponse.model_validate_json(answer).predictions
    if len(predictions) != 1:
        raise ValueError(f"{len(predictions)} predictions for one instance")
    return predictions[0].detections


def _read_lines(answer: bytes) -> list[str]:
    return [line.text for line in tool_api.OcrResponse.model_validate_json(answer).lines]


def _verdict(completion: Any) -> bool:
    try:
        reply = judging.reply_text(completion)
    except judging.NoVerdict as error:
        raise CallError(FailureKind.UNDECIDED, str(error)) from None
    verdict = judging.read_verdict(reply)
    if verdict is None:  # not retried, because at temperature 0 the reply would be the same
        words = wording.one_line(reply)
        raise CallError(FailureKind.UNDECIDED, f"neither Yes nor No: {words!r}")
    return verdict
