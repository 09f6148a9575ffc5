"""`gog serve agent`: the trained policy with its tools, as a chat.

    gog serve agent --policy URL --tools '{"grounding": URL, "imageSearch": URL, "textSearch": URL}'

answers POST /v1/chat/completions as OpenAI does, streamed or not; GET / is a page to try it. A client that goes away ends
its episode. Where the tools require keys, they are read from the environment as in a stage. With --routes a file names the
policy's server, the tools and the versions, and may change meanwhile (`routes`); GET /progress counts what became of chats.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.responses import StreamingResponse

from gog import api_keys, catalog, metrics
from gog.errors import UserError
from gog.spec import AgentSettings, ToolsSpec, key_variable
from gog.tool_client import Toolbox
from gog.trajectory import Trajectory
from gog_tools.agent import admission, chats, episodes, routes
from gog_tools.agent.chats import AgentRequest, Reply
from gog_tools.agent.policy import SERVICE, PolicyClient, PolicyFailed, Where
from gog_tools.agent.routes import Routes
from gog_tools.serving import arguments, chat, errors, http_json, process

NAME = "agent"
PAGE_POLICY = (
    "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
ASSETS = {"/": ("page.html", "text/html"), "/page.js": ("page.js", "text/javascript")}
Model = TypeVar("Model", bound=BaseModel)


@dataclass
class Chosen:
    """What plays one chat."""

    arm: routes.Arm
    """Whether it is the version that is served, or the one that is tried."""
    version: str
    """Name of the version; empty for the default of the policy's server."""
    player: episodes.Player
    """Plays it."""
    trajectory: Trajectory | None = None
    """The chat, once it was played."""


class Agent:
    """The agent's state: its connections are made on the loop of the first chat."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.settings = _parsed(AgentSettings, args.settings, "--settings")
        self.limits = _parsed(ToolsSpec, args.limits, "--limits")
        self.routes = _routes(args)
        self.tally = routes.Tally(self.routes())
        self.args, self.name = args, args.name
        self.admission = admission.Admission(
            admission.hashed(_keys(args.keys)), args.rate_per_minute, args.chats, args.waiting, time.monotonic
        )
        self._starting = asyncio.Lock()
        self._toolboxes: dict[str, Toolbox] = {}
        self._clients: dict[tuple[str, str], PolicyClient] = {}

    def follow(self) -> Routes:
        """The routes of the next chat."""
        current = self.routes()
        self.tally.follow(current)
        return current

    @contextlib.asynccontextmanager
    async def chat(self) -> AsyncIterator[Chosen]:
        """What plays one chat; counts how it ends."""
        current = self.follow()
        arm = current.choose(random.random())
        chosen = Chosen(arm, current.version(arm), await self._player(current, current.version(arm)))
        started = time.monotonic()
        try:
            with _as_status():
                yield chosen
        except errors.RequestError as error:
            if error.status >= 500:
                self.tally.failed(arm, chosen.version)
            raise
        if chosen.trajectory is not None:
            self.tally.ended(arm, chosen.version, chosen.trajectory, time.monotonic() - started)

    async def _player(self, current: Routes, version: str) -> episodes.Player:
        """What plays chats of a version. Connections are kept, because chats of earlier routes may still use them."""
        async with self._starting:
            tools = json.dumps(current.tools, sort_keys=True)
            if tools not in self._toolboxes:
                self._toolboxes[tools] = await Toolbox(current.tools, self.limits).__aenter__()
            client = self._clients.get((current.policy, version))
            if client is None:
                key = api_keys.from_environment(key_variable(SERVICE))
                where = Where(current.policy, version, key, self.args.temperature, self.args.turn_seconds)
                client = self._clients[current.policy, version] = PolicyClient(where, self.settings)
        return episodes.Player(
            client, self._toolboxes[tools], self.settings, self.args.style, frozenset(current.tools), self.args.seconds
        )


def application(agent: Agent) -> FastAPI:
    """The agent's application."""
    metrics.initialise_agent()
    app = http_json.application("gog agent")

    @app.post("/v1/chat/completions")
    async def complete(request: Request) -> Response:
        caller = agent.admission.caller(request.headers.get("authorization", ""))
        body = await http_json.read(request, AgentRequest)
        asked = chats.asked(body)
        place = contextlib.AsyncExitStack()
        await place.enter_async_context(agent.admission.chat(caller))
        if body.stream:
            events = _events(agent, asked, body, place)
            return StreamingResponse(events, media_type="text/event-stream", headers={"cache-control": "no-store"})
        async with place, agent.chat() as chosen:
            chosen.trajectory = await _unless_gone(request, chosen.player.play(asked))
            reply = Reply.new(agent.name, chosen.version)
            return http_json.reply(reply.whole(chosen.trajectory, trace=body.trace))

    @app.get("/progress", include_in_schema=False)
    async def progress() -> Response:
        agent.follow()
        return http_json.reply(agent.tally.document())

    chat.add_models(app, lambda: chat.models([agent.name]))
    for path, (name, kind) in ASSETS.items():
        _add_asset(app, path, name, kind)
    return app


def _add_asset(app: FastAPI, path: str, name: str, kind: str) -> None:
    content = resources.files("gog_tools.agent").joinpath(name).read_bytes()
    headers = {"content-security-policy": PAGE_POLICY, "x-content-type-options": "nosniff", "cache-control": "no-cache"}

    @app.get(path, include_in_schema=False)
    async def asset() -> Response:
        return Response(content, media_type=kind, headers=headers)


async def _unless_gone(request: Request, playing: Any) -> Trajectory:
    """The trajectory of a chat; ends the episode when its client goes away."""
    task = asyncio.ensure_future(playing)
    watching = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((task, watching), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise errors.RequestError(499, "the client went away")
        return await task
    finally:
        task.cancel()
        watching.cancel()


async def _gone(request: Request) -> None:
    while not await request.is_disconnected():
        await asyncio.sleep(0.5)


@contextlib.contextmanager
def _as_status() -> Any:
    """Turns what ends a chat into an HTTP status."""
    try:
        yield
    except PolicyFailed as error:
        raise errors.Unavailable(f"the policy's server: {error}") from None
    except TimeoutError:
        raise errors.RequestError(504, "the chat took too long") from None


async def _events(
    agent: Agent, asked: chats.Asked, body: AgentRequest, place: contextlib.AsyncExitStack
) -> AsyncIterator[bytes]:
    """The events of a streamed chat. A failure after the first of them is an event with an error, as OpenAI sends it."""
    async with place:
        try:
            async with agent.chat() as chosen:
                reply = Reply.new(agent.name, chosen.version)
                yield _event(reply.opening())
                async with contextlib.aclosing(chosen.player.steps(asked)) as steps:
                    async for each in steps:
                        if isinstance(each, Trajectory):
                            chosen.trajectory = each
                            for ending in reply.ending(each, usage=body.stream_options.include_usage):
                                yield _event(ending)
                        elif body.trace:
                            yield _event(reply.traced(each.number, each.turn, stage=each.stage))
        except errors.RequestError as error:
            yield _event({"error": {"message": error.message, "type": "server_error", "code": error.status}})
        except UserError as error:
            yield _event({"error": {"message": error.sentence(), "type": "invalid_request_error", "code": 400}})
        yield b"data: [DONE]\n\n"


def _event(body: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(body, allow_nan=False, separators=(",", ":")).encode() + b"\n\n"


def _parsed(kind: type[Model], text: str, option: str) -> Model:
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise http_json.invalid(error, where=option, prefix=f"{option}: ") from None


def _routes(args: argparse.Namespace) -> Callable[[], Routes]:
    """Where chats go, as the options say. Raises UserError."""
    if (args.routes is None) == (args.policy is None):
        raise UserError("give one of --policy and --routes", where="gog serve agent")
    if args.routes is not None:
        return routes.RoutesFile(args.routes).current
    fixed = Routes(policy=args.policy, tools=_urls(args.tools), served=args.model)
    return lambda: fixed


def _urls(text: str) -> dict[str, str]:
    """The tools' servers by name. Raises UserError."""
    try:
        urls = TypeAdapter(dict[str, str]).validate_json(text)
    except ValidationError:
        raise UserError("not JSON of the form {TOOL: URL}", where="--tools") from None
    known = sorted(tool.name for tool in catalog.TOOLS if tool.callable)
    if wrong := sorted(set(urls) - set(known)):
        raise UserError(f"no tool {wrong[0]!r}", where="--tools", remedy=f"tools: {', '.join(known)}")
    return urls


def _keys(path: Path | None) -> dict[str, str]:
    """Key by caller, from a file. Raises UserError."""
    if path is None:
        return {}
    try:
        keys = TypeAdapter(dict[str, str]).validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", where=f"--keys {path}") from None
    except ValidationError:
        raise UserError("not JSON of the form {CALLER: KEY}", where=f"--keys {path}") from None
    if not keys:
        raise UserError("holds no key", where=f"--keys {path}", remedy="leave the option out to require none")
    return {name: api_keys.clean(key, f"--keys {path}: {name}") for name, key in keys.items()}


def main(argv: list[str]) -> int:
    """Serves an agent until SIGTERM. Returns the exit code."""
    parser = process.parser(NAME, "Serves a policy with its tools, behind OpenAI's chat protocol.")
    add = parser.add_argument
    add("--policy", metavar="URL", help="the policy's server: gog serve policy, or a vLLM")
    add("--routes", type=Path, metavar="FILE", help="JSON with policy, tools and versions, which may change meanwhile")
    add("--model", default="", help="version to ask it for; empty: its default")
    add(
        "--tools",
        default="{}",
        metavar="JSON",
        help="server of each tool by name: imageSearch, grounding, textSearch, ocr",
    )
    add("--settings", default="{}", metavar="JSON", help="caps of an episode, as in a stage: {max_calls: 10, …}")
    add("--limits", default="{}", metavar="JSON", help="policies of calls, as spec.tools of a manifest")
    add("--style", choices=("full", "terse"), default="full", help="what the policy reads; terse: the tiny model")
    add("--temperature", type=arguments.real(0), default=0.0, help="0 takes the most probable token")
    add("--name", default="gog", help="model name in answers")
    add("--seconds", type=arguments.real(0.001), default=120.0, help="time that a chat may take")
    add("--turn-seconds", type=arguments.real(0.001), default=60.0, help="time that one attempt at a turn may take")
    add("--chats", type=arguments.whole(1), default=32, help="chats that are played at once")
    add(
        "--waiting",
        type=arguments.whole(0),
        default=64,
        help="chats that may wait for a place; further ones are refused",
    )
    add("--keys", type=Path, metavar="FILE", help="JSON {CALLER: KEY}: chats require one of these keys")
    add("--rate-per-minute", type=arguments.real(0), default=0.0, help="chats per minute of each caller; 0: any number")
    return process.main(NAME, parser, argv, lambda args: application(Agent(args)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
