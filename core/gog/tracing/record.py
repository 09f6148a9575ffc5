"""In-memory span tree; export is decided when the episode ends.

The open span is a context variable: each task of an event loop has its own, and a task starts with the span that was
open where it was created. So hundreds of episodes record side by side, and a call that two episodes share belongs to the
one that made it. Outside a recorded episode no span is open, and `span` returns one shared object that does nothing.
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
"""Makes times since 1970 from a clock that is never set back, so that no child ends after its parent."""


def now() -> int:
    """Nanoseconds since 1970."""
    return OFFSET + time.monotonic_ns()


@dataclass(slots=True)
class Span:
    """What took place between two times."""

    name: str
    """What it is, from a small set: `turn`, `execute_tool grounding`."""
    started: int
    """Nanoseconds since 1970."""
    ended: int = 0
    """Nanoseconds since 1970; 0 while it is open."""
    error: str = ""
    """Kind of the error, in one word; empty for none."""
    attributes: dict[str, Value] = field(default_factory=dict)
    """Attributes by name."""
    children: list[Span] = field(default_factory=list)
    """Spans that were opened inside it, in order."""

    def walk(self) -> Iterator[Span]:
        """This span and all its descendants."""
        yield self
        for child in self.children:
            yield from child.walk()


@dataclass(frozen=True)
class Tree:
    """A span with its descendants, ready for export."""

    root: Span
    """The uppermost span."""
    context: SpanContext
    """Identity of the uppermost span; those of its descendants follow from it."""
    parent: SpanContext | None
    """Identity of the span above; None at the top of a trace."""

    @property
    def size(self) -> int:
        """Number of spans."""
        return sum(1 for _ in self.root.walk())


_open: contextvars.ContextVar[Span | None] = contextvars.ContextVar("gog_open_span", default=None)


class OpenSpan:
    """A span that is open inside `with`."""

    __slots__ = ("_token", "span")

    def __init__(self, span: Span) -> None:
        self.span = span

    def __enter__(self) -> Span:
        self._token = _open.set(self.span)
        return self.span

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _open.reset(self._token)
        self.span.ended = now()
        if kind is not None:
            self.span.error = kind.__name__


class NoopSpan:
    """Takes the place of a span where none is recorded."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


NOOP_SPAN = NoopSpan()


def span(name: str) -> OpenSpan | NoopSpan:
    """Opens a child of the open span, for `with`, which yields the Span, or None where nothing is recorded."""
    parent = _open.get()
    if parent is None:
        return NOOP_SPAN
    child = Span(name, now())
    parent.children.append(child)
    return OpenSpan(child)
