"""Spans while they happen: plain objects in a tree, which nobody has to want.

Which span is open is a context variable: each task of an event loop has its own, and one that is started inside another
begins with what was open there. So hundreds of episodes record side by side, and a call that two episodes share belongs
to the one that made it. Where no episode is being traced, nothing is open and `span` hands out one object that forgets.
"""

from __future__ import annotations

import contextvars
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType

from gog.tracing.ids import SpanContext

Value = str | int | float | bool
OFFSET = time.time_ns() - time.monotonic_ns()
"""One clock that is never set back, read as the time since 1970: no child ends after its parent."""


def now() -> int:
    """Nanoseconds since 1970."""
    return OFFSET + time.monotonic_ns()


@dataclass(slots=True)
class Span:
    """name: of few kinds. begun, ended: nanoseconds since 1970. error: a word for what went wrong; empty: nothing."""

    name: str
    begun: int
    ended: int = 0
    error: str = ""
    attributes: dict[str, Value] = field(default_factory=dict)
    children: list[Span] = field(default_factory=list)

    def walk(self) -> Iterator[Span]:
        """This span and all below."""
        yield self
        for child in self.children:
            yield from child.walk()


@dataclass(frozen=True)
class Tree:
    """Spans on their way. place: of the top one; parent: of the one above it, None at the root."""

    top: Span
    place: SpanContext
    parent: SpanContext | None

    @property
    def size(self) -> int:
        return sum(1 for _ in self.top.walk())


_open: contextvars.ContextVar[Span | None] = contextvars.ContextVar("gog_open_span", default=None)


class Opened:
    """A span that is open inside `with`."""

    __slots__ = ("_token", "told")

    def __init__(self, told: Span) -> None:
        self.told = told

    def __enter__(self) -> Span:
        self._token = _open.set(self.told)
        return self.told

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _open.reset(self._token)
        self.told.ended = now()
        if kind is not None:
            self.told.error = kind.__name__


class Nothing:
    """Stands where a span would be opened."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


NOTHING = Nothing()


def span(name: str) -> Opened | Nothing:
    """A child of the span that is open, for `with`; inside it is a Span, or None where nothing is traced."""
    parent = _open.get()
    if parent is None:
        return NOTHING
    told = Span(name, now())
    parent.children.append(told)
    return Opened(told)
