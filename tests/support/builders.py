"""Builders with good defaults, fakes that record their calls, and fake time.

`run` runs a coroutine in an event loop whose clock jumps: when every task waits, the time becomes that of the first
timer. So a test of thirty-second deadlines takes a millisecond, and one that would wait forever fails.
"""

from __future__ import annotations

import asyncio
import selectors
import tempfile
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from gog import regions, tool_actions, tool_api
from gog.agent import Episode, Generation
from gog.call_path import CallPath
from gog.dataset import Evidence, Question
from gog.images import Image
from gog.spec import AgentSettings, CacheSpec, ToolsSpec
from gog.store import Manifest, Store
from gog.tool_actions import SEARCH_TOOLS
from gog.tool_cache import Cache
from gog.tool_types import Bill, CallError, FailureKind, Grounding, Reply, ToolFailure
from gog.trajectory import Candidate, Observation, Segment, Trajectory, Turn

Value = TypeVar("Value")


# ---- time


class _JumpingSelector(selectors.SelectSelector):
    """A selector that moves the clock instead of waiting."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list:
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("every task waits, and no timer will wake one")
        if not ready:
            self.now += max(0.0, timeout or 0.0)
        return ready


class FakeTimeLoop(asyncio.SelectorEventLoop):
    """An event loop that starts at second 0 and whose time passes only while all tasks wait."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now

    def run_in_executor(self, executor: Any, work: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """What a worker thread would compute is computed here, and takes no time."""
        done = self.create_future()
        try:
            done.set_result(work(*args))
        except Exception as error:  # noqa: BLE001 (not swallowed: raised where the result is awaited)
            done.set_exception(error)
        return done


def run(coroutine: Coroutine[Any, Any, Value]) -> Value:
    """Runs a coroutine to its end in fake time."""
    with asyncio.Runner(loop_factory=FakeTimeLoop) as runner:
        return runner.run(coroutine)


def now() -> float:
    return asyncio.get_running_loop().time()


# ---- turns


def think(action: str) -> str:
    return f"<think>because</think>{action}"


GLANCE = think("<img_search><img></img_search>")


def ground(expression: str = "red ring") -> str:
    return think(f"<img_search>{expression}</img_search>")


def gaze(*numbers: int) -> str:
    return think(f"<img_search>{','.join(f'#{number}' for number in numbers)}</img_search>")


def text_search(query: str = "maker of the ring") -> str:
    return think(f"<text_search>{query}</text_search>")


def answer(text: str = "blue") -> str:
    return think(f"<answer>{text}</answer>")


# ---- records


def make_image(seed: int = 0, width: int = 40, height: int = 30) -> Image:
    """Noise; different seeds give different images."""
    return Image(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def make_question(id: str = "q1", **fields: Any) -> Question:
    given = {"image": "images/q1.png", "question": "who made the red ring?", "answers": ("Ada",)}
    return Question(id=id, **{**given, **fields})


def make_marked_question(region: tuple[float, float, float, float], **fields: Any) -> Question:
    return make_question(evidence=Evidence(kind="maker", expression="red ring", region=region), **fields)


def make_crop(number: int) -> Image:
    """The crop of the candidate with this number."""
    return make_image(100 + number, 8, 8)


def make_candidate(number: int, *, score: float | None = None) -> Candidate:
    """Candidates side by side, each with a crop of its own, best first."""
    box = (10.0 * number, 5.0, 10.0 * number + 8, 13.0)
    score = round(1 - number / 10, 4) if score is None else score
    return Candidate(number=number, box=box, score=score, label="ring", crop=make_crop(number).hash)


def make_grounding(count: int) -> Grounding:
    numbers = range(1, count + 1)
    return Grounding(tuple(map(make_candidate, numbers)), tuple(map(make_crop, numbers)))


def make_hits(*titles: str) -> list[tool_api.SearchHit]:
    return [
        tool_api.SearchHit(title=title, url=f"https://example.org/{title}", text=f"about {title}") for title in titles
    ]


def make_turn(action: str = "answer", **fields: Any) -> Turn:
    """A turn that was acted on; a search has an observation."""
    tool = {"glance": "imageSearch", "gaze": "imageSearch", "ground": "grounding", "text": "textSearch"}.get(action)
    seen = Observation(text="seen", tool=tool) if tool else None
    return Turn(**{"text": action, "action": action, "observation": seen, **fields})


def make_trajectory(*turns: Turn, **fields: Any) -> Trajectory:
    """An episode of these turns; by default it answers at once."""
    given: dict[str, Any] = {
        "id": "t1",
        "question_id": "q1",
        "question": "who made the red ring?",
        "answers": ("Ada",),
        "image": make_image().hash,
        "turns": turns or (make_turn("answer", argument="Ada"),),
        "stop": "answer",
        "answer": "Ada",
    }
    return Trajectory(**{**given, **fields})


OLD = {"adapter.safetensors": b"old", "state/step.json": b"1"}
NEW = {"adapter.safetensors": b"new", "log": b"2"}
"""Contents of the files of two checkpoints."""


def publish(store: Store, step: int, contents: dict[str, bytes], *, stage: str = "sft", **fields: Any) -> Manifest:
    """Publishes files with these contents."""
    with tempfile.TemporaryDirectory() as folder:
        return store.publish(stage, step, source_files(Path(folder), contents), **fields)


def source_files(folder: Path, contents: dict[str, bytes]) -> dict[str, Path]:
    """Files with these contents in a folder, by name."""
    files = {name: folder / name for name in contents}
    for name, path in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents[name])
    return files


def contents(store: Store, manifest: Manifest) -> dict[str, bytes]:
    """The files of a checkpoint as the store returns them, verified."""
    return {name: store.open(manifest, name).read_bytes() for name in manifest.files}


# ---- fakes


@dataclass
class FakeSession:
    """A policy that writes the turns it was given. A character is a token, an image is `image_tokens` tokens 0."""

    turns: Sequence[str | Generation]
    limit: int = 1_000_000
    image_tokens: int = 1
    seconds: float = 0.0
    observed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    shown: list[Image] = field(default_factory=list)
    closed: bool = False
    _next: int = 0
    _images: dict[str, Image] = field(default_factory=dict)
    _segments: list[Segment] = field(default_factory=lambda: [Segment(source="prompt", tokens=(1, 2, 3))])

    async def generate(self) -> Generation:
        await asyncio.sleep(self.seconds)
        turn = self.turns[self._next]
        self._next += 1
        generation = turn if isinstance(turn, Generation) else Generation(turn, finished=True)
        tokens = tuple(map(ord, generation.text))
        self._segments.append(Segment(source="model", tokens=tokens, logprobs=(-0.5,) * len(tokens)))
        return generation

    def room(self) -> int:
        return self.limit - sum(len(segment.tokens) for segment in self._segments)

    async def encode(self, body: str, images: Sequence[Image], note: str = "") -> Segment:
        self._images |= {image.hash: image for image in images}
        tokens = tuple(map(ord, f"<{body}>{note}")) + (0,) * self.image_tokens * len(images)
        return Segment(source="observation", tokens=tokens, images=tuple(image.hash for image in images))

    def observe(self, observation: Segment) -> None:
        assert len(observation.tokens) <= self.room()
        body, note = "".join(map(chr, observation.tokens)).rstrip("\0").removeprefix("<").rsplit(">", 1)
        self.observed.append(body)
        self.notes.append(note)
        self.shown += [self._images[image] for image in observation.images]
        self._segments.append(observation)

    def segments(self) -> tuple[Segment, ...]:
        return tuple(self._segments)

    def close(self) -> None:
        self.closed = True


@dataclass
class FakeTools:
    """Tools that return what they were given and record each call as (tool, expression, hash or query).

    failing: kind of failure by tool (grounding, imageSearch, textSearch).
    """

    grounding: Grounding = field(default_factory=Grounding)
    hits: Sequence[tool_api.SearchHit] = field(default_factory=lambda: make_hits("Ada's ring"))
    failing: Mapping[str, FailureKind] = field(default_factory=dict)
    calls: list[tuple[str, str]] = field(default_factory=list)
    looked: list[tuple[str, regions.Box | None]] = field(default_factory=list)
    """Hash of the image and region of each grounding."""

    async def ground(self, image: Image, expression: str, region: regions.Box | None = None) -> Reply[Grounding]:
        self.looked.append((image.hash, region))
        return self._reply("grounding", expression, self.grounding)

    async def search_image(self, image: Image) -> Reply[Sequence[tool_api.SearchHit]]:
        return self._reply("imageSearch", image.hash, self.hits)

    async def search_text(self, query: str) -> Reply[Sequence[tool_api.SearchHit]]:
        return self._reply("textSearch", query, self.hits)

    def _reply(self, tool: str, asked: str, found: Value) -> Reply[Value]:
        self.calls.append((tool, asked))
        kind = self.failing.get(tool)
        if kind is not None:
            return Reply(None, ToolFailure(tool, kind, "on purpose"), attempts=3, seconds=0.5)
        return Reply(found, attempts=1, seconds=0.25)

    def asked(self, tool: str) -> list[str]:
        return [what for name, what in self.calls if name == tool]


def make_episode(
    turns: Sequence[str | Generation],
    toolbox: tool_actions.Tools | None = None,
    *,
    question: Question | None = None,
    style: Any = "full",
    limit: int = 1_000_000,
    image_tokens: int = 1,
    tools: frozenset[str] = SEARCH_TOOLS,
    **settings: Any,
) -> Episode:
    """An episode whose policy writes `turns` in a context of `limit` tokens; `settings` are AgentSettings."""
    session = FakeSession(turns, limit, image_tokens)
    given = AgentSettings(**{"max_tokens": limit, **settings})
    toolbox = toolbox or FakeTools()
    return Episode(question or make_question(), make_image(), session, toolbox, given, style, now, tools)


def play(episode: Episode) -> Trajectory:
    return run(episode.run())


HANG = object()
"""An outcome of a backend: it never answers."""


@dataclass
class FakeBackend:
    """What a call path sends to. Its outcomes come in order, and the last one repeats: bytes, a CallError, or HANG."""

    outcomes: Sequence[Any] = (b"answer",)
    seconds: float = 0.0
    requests: list[bytes] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    busy: int = 0
    peak: int = 0

    async def __call__(self, body: bytes) -> bytes:
        outcome = self.outcomes[min(len(self.requests), len(self.outcomes) - 1)]
        self.requests.append(body)
        self.times.append(now())
        self.busy += 1
        self.peak = max(self.peak, self.busy)
        try:
            await asyncio.sleep(self.seconds)
            if outcome is HANG:
                await asyncio.Event().wait()
        finally:
            self.busy -= 1
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    @property
    def pauses(self) -> list[float]:
        """Seconds between requests."""
        return [after - before for before, after in zip(self.times, self.times[1:])]


SERVER_ERROR = CallError(FailureKind.SERVER_ERROR, "HTTP 500")


def make_path(send: Any, *, cache: Cache | None = None, **limits: Any) -> CallPath[str]:
    """A call path in the running loop's time, without a breaker that gets in the way."""
    spec = ToolsSpec(**{"breaker_failures": 1_000, **limits}).policy("textSearch")

    async def unpaid(body: bytes, bill: Bill) -> bytes:
        return await send(body)

    return CallPath("textSearch", "fake", unpaid, spec, cache or Cache(CacheSpec()), clock=now)


async def request(path: CallPath[str], query: str = "ring") -> Reply[str]:
    """One call whose body is the query and whose answer is read as text."""
    return await path.call({"query": query}, query.encode, lambda answer: answer.decode())
