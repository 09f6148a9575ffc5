"""Back ends from outside the project, one per role, as a user would write them. Each is found as `outside:Name`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from gog import tool_api
from gog.completions import Completion, Job
from gog.errors import UserError
from gog.images import Image
from gog.spec import PixelBounds
from gog_tools.search.backend import Found
from gog_tools.serving import chat
from gog_tools.serving.errors import Unavailable


class WholeImage:
    """A detector that finds the whole image, and refuses what its expression asks for."""

    def __init__(self, label: str, *, score: Annotated[float, Field(ge=0, le=1)] = 1.0) -> None:
        self.label, self.score = label, score

    def detect(self, images: Sequence[Image], expressions: Sequence[str]) -> list[list[tool_api.Detection]]:
        if "busy" in expressions:
            raise Unavailable("the detector is restarting", retry_after=2.5)
        if "huge" in expressions:
            raise UserError("too large for the detector", where="image")
        score = float("nan") if "nan" in expressions else self.score
        return [
            [tool_api.Detection.model_construct(box=(0, 0, each.width, each.height), score=score, label=self.label)]
            for each in images
        ]


class Sizes:
    """An image search that finds the size of an image, for money."""

    max_batch = 1
    threads = 4

    def search(self, images: Sequence[Image], tops: Sequence[int]) -> list[Found]:
        ((image,), (top,)) = images, tops
        hits = [tool_api.SearchHit(title=f"{image.width}x{image.height}")] * (top + 1)
        return [Found(hits, cost_usd=0.015, credit_usd=74.25)]


class Mirrored:
    """An image search that finds the image itself, mirrored."""

    def search(self, images: Sequence[Image], tops: Sequence[int]) -> list[Found]:
        mirrored = [tool_api.encode_image(Image(each.pixels[:, ::-1])) for each in images]
        return [Found([tool_api.SearchHit(title="mirrored", thumbnail=each)]) for each in mirrored]


class Files:
    """A text search over the files of a dataset folder."""

    def __init__(self, data: Path, scratch: Path, *, order: Literal["up", "down"] = "up") -> None:
        assert scratch.is_dir()
        self.names = sorted((path.name for path in data.iterdir()), reverse=order == "down")

    def search(self, queries: Sequence[str], tops: Sequence[int]) -> list[Found]:
        return [
            Found([tool_api.SearchHit(title=name) for name in self.names if query in name][:top])
            for query, top in zip(queries, tops, strict=True)
        ]


class HostilePages:
    """A text search that finds pages with this text, one of them at an address that a browser would run."""

    def __init__(self, *, text: str) -> None:
        urls = ("https://example.org/a", "javascript:window.owned=1")
        self.hits = [tool_api.SearchHit(title=text, url=url, text=text) for url in urls]

    def search(self, queries: Sequence[str], tops: Sequence[int]) -> list[Found]:
        return [Found(self.hits) for _ in queries]


class Agreeable:
    """A judge that approves of everything."""

    def __init__(self, *, words: dict[str, str] | None = None) -> None:
        self.words = words or {"yes": "Yes"}

    def reply(self, conversations: Sequence[Sequence[chat.Message]]) -> list[str]:
        return [self.words["yes"] for _ in conversations]


class Parrot:
    """A policy that repeats its prompt."""

    def __init__(self, folder: Path, device: str, dtype: str, pixels: PixelBounds, *, times: int = 1) -> None:
        self.adapters: dict[str, str] = {}
        self.times, self.where = times, f"{folder.name} {device} {dtype} {pixels.min_pixels}-{pixels.max_pixels}"

    def complete(self, jobs: Sequence[Job]) -> list[Completion | Exception]:
        if any("break" in str(job.prompt.text) for job in jobs):
            raise RuntimeError("the device is lost")
        return [self._completion(str(job.prompt.text)) for job in jobs]

    def _completion(self, text: str) -> Completion:
        logprob = float("nan") if text == "nan" else -0.5
        return Completion((1,), [2], [logprob], f"{text * self.times} {self.where}", finish="stop")

    def load_adapter(self, name: str, folder: Path) -> None:
        raise UserError("a parrot takes no adapters")

    def unload_adapter(self, name: str) -> None:
        raise UserError("a parrot takes no adapters")

    def render(self, messages: list[dict[str, Any]]) -> str:
        return " ".join(f"{each['role']}:{each['content']}" for each in messages)

    def words(self, tokens: Sequence[int]) -> list[str]:
        return [str(token) for token in tokens]


def mute(**_: str) -> object:
    """Makes what has none of the methods."""
    return object()
