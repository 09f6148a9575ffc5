"""Back ends of the tool servers that take their time: those of the embedded world, 0.3 s later.

Named in a manifest as `support.slow_tools:Detector` and so on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from gog_tools.grounding.world_detector import WorldDetector
from gog_tools.judge.world_judge import WorldJudge
from gog_tools.search.image_index import ImageIndex
from gog_tools.search.text_index import TextIndex

SECONDS = 0.3
Result = TypeVar("Result")


class Slow:
    """Calls that wait side by side, and then compute one after the other."""

    threads = 16

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def later(self, call: Callable[..., Result], *arguments: Any) -> Result:
        time.sleep(SECONDS)
        with self._lock:
            return call(*arguments)


class Detector(Slow):
    """The world's detector."""

    def __init__(self) -> None:
        super().__init__()
        self._inner = WorldDetector()

    def detect(self, *arguments: Any) -> Sequence[Any]:
        return self.later(self._inner.detect, *arguments)


class Judge(Slow):
    """The world's judge."""

    def __init__(self) -> None:
        super().__init__()
        self._inner = WorldJudge()

    def reply(self, *arguments: Any) -> Sequence[str]:
        return self.later(self._inner.reply, *arguments)


class ImageSearch(Slow):
    """The world's image search."""

    def __init__(self, data: Path) -> None:
        super().__init__()
        self._inner = ImageIndex.read(data)

    def search(self, *arguments: Any) -> Sequence[Any]:
        return self.later(self._inner.search, *arguments)


class TextSearch(Slow):
    """The world's text search."""

    def __init__(self, data: Path) -> None:
        super().__init__()
        self._inner = TextIndex.read(data)

    def search(self, *arguments: Any) -> Sequence[Any]:
        return self.later(self._inner.search, *arguments)
