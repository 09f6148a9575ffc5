"""What the viewer's tests look at: stores and archives of invented trajectories, a viewer over them, a plain client."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gog import store, trajectory_zip
from gog.trajectory import Candidate, Observation, Segment, Trajectory, Turn
from gog_console.viewer import index, sources
from gog_console.viewer.api import Api
from gog_console.viewer.reviews import Reviews
from gog_console.viewer.server import Server
from gog_console.viewer.tokens import Vocabulary
from support import builders
from support.report_builders import Maker

NOW = datetime(2026, 3, 14, 9, 26, 53, tzinfo=UTC)
EVIL = '</script><img src=x onerror="window.owned=1"><script>window.owned=1</script>'
BIDI, ANSI = "\u202egnp.exe\u202c", "\x1b[31mred\x1b[0m"


@dataclass
class Viewer:
    """A viewer that is serving, and a client that has its key."""

    server: Server
    indexer: index.Indexer
    headers: dict[str, str] = field(default_factory=dict)

    def request(self, path: str, *, method: str = "GET", body: bytes | None = None, **headers: str | None) -> Reply:
        """One request; a header given as None is left out. `_` in names stands for `-`."""
        given = {"Host": f"127.0.0.1:{self.server.port}", **self.headers}
        given.update({name.replace("_", "-"): value for name, value in headers.items()})
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=20)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        if body is not None:
            given.setdefault("Content-Length", str(len(body)))
        for name, value in given.items():
            if value is not None:
                connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        reply = Reply(answer.status, dict(answer.getheaders()), answer.read())
        connection.close()
        return reply

    def json(self, path: str) -> Any:
        return json.loads(self.request(path).body)

    def ids(self, query: str = "") -> list[str]:
        return [row["id"] for row in self.json(f"/api/list?{query}")["rows"]]

    def decide(self, **fields: Any) -> Reply:
        return self.request(
            "/api/review", method="POST", body=json.dumps(fields).encode(), Content_Type="application/json",
            Origin=f"http://127.0.0.1:{self.server.port}",
        )  # fmt: skip


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes


@contextlib.contextmanager
def viewing(
    place: sources.Source, cache: Path, *, reviews: Path | None = None, vocabulary: Vocabulary | None = None
) -> Iterator[Viewer]:
    """A viewer over a place, its index made."""
    indexer = index.Indexer(place, cache / "index.sqlite")
    indexer.refresh()
    kept = Reviews(reviews, lambda: NOW) if reviews else None
    server = Server(Api(place, indexer, kept, vocabulary), token="key")
    thread = server.start()
    viewer = Viewer(server, indexer, {"Cookie": f"gog-view-{server.port}=key"})
    try:
        yield viewer
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def publish(
    kept: store.Store, made: Sequence[Trajectory], scratch: Path, *, key: str = "curate", step: int = 1
) -> None:
    """Commits an archive of trajectories with the images of `illustrated`."""
    path = scratch / "trajectories.zip"
    trajectory_zip.write(path, made, MAKER.images)
    kept.publish(key, step, {"trajectories.zip": path})


MAKER = Maker(random.Random("view"))


def illustrated(number: int = 3, *, policy: str = "teacher", **fields: Any) -> Trajectory:
    """A trajectory that grounds, gazes and answers, over an image that is there. number: of the scene."""
    scene = Maker(random.Random(f"scene {number}"), MAKER.images).scene()
    seen = Observation(
        text="candidates", tool="grounding", attempts=2, seconds=0.25,
        candidates=tuple(
            Candidate(number=n, box=box, score=0.9 - n / 10, label="thing", crop=crop.hash)
            for n, (box, crop) in enumerate(zip(scene.boxes, scene.crops), 1)
        ),
    )  # fmt: skip
    turns = (
        Turn(
            text="<img_search>ring</img_search>",
            action="ground",
            argument="ring",
            reasoning="look closer",
            observation=seen,
        ),
        Turn(
            text="<img_search>#1</img_search>",
            action="gaze",
            selected=(1,),
            observation=Observation(text="found", tool="imageSearch"),
        ),
        Turn(text="<answer>blue sky</answer>", action="answer", argument="blue sky"),
    )
    segments = tuple(Segment(source="model", tokens=(1, 2), logprobs=(-0.02, -1.5)) for _ in turns)
    given: dict[str, Any] = {
        "id": f"p{number}", "question_id": f"q-{number}", "question": f"which ring is number {number}?", "policy": policy,
        "image": scene.image.hash, "region": scene.boxes[0], "segments": segments,
    }  # fmt: skip
    return builders.make_trajectory(*turns, **{**given, **fields})
