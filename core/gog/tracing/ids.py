"""Who a span is: ids that follow from names, never from chance.

A trace is a run; its id follows from the run's uid. A span's id follows from its parent's and from what it is, so that
whoever knows the run can name any span of it: a pod names its parent, which another process tells of, and who tells the
same thing twice tells the same span.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

BITS = 64


@dataclass(frozen=True)
class SpanContext:
    """A span's own ids, as W3C Trace Context has them: trace 32 hexadecimal digits, span 16."""

    trace: str
    span: str

    @classmethod
    def of(cls, traceparent: str) -> SpanContext:
        """`00-<trace>-<span>-01` -> place. The specification has looked at its form."""
        _, trace, span, _ = traceparent.split("-")
        return cls(trace, span)

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace}-{self.span}-01"

    def child(self, *parts: object) -> SpanContext:
        """The place of the child that `parts` tell from its siblings."""
        return SpanContext(self.trace, _digest(8, self.span, *parts))


def root(uid: str) -> SpanContext:
    """The place of the run (or lone stage) with this uid."""
    return SpanContext(_digest(16, uid), _digest(8, uid))


def chosen(identity: str, share: float) -> bool:
    """Whether an episode is among the share (0 to 1) that is traced: always the same ones, whoever asks."""
    return int(_digest(BITS // 8, identity), 16) < share * 2**BITS


def _digest(size: int, *parts: object) -> str:
    return hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=size).hexdigest()
