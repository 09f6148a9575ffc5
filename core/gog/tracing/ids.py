"""Ids of spans, derived from names instead of drawn at random.

A trace is a run, and its id follows from the run's UID. The id of a span follows from its parent's id and from what the
span is about. So every process that knows the run can name any span of it, a pod can name a parent that another process
exports, and a span that is exported twice is the same span.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

BITS = 64


@dataclass(frozen=True)
class SpanContext:
    """Identity of a span, as in W3C Trace Context."""

    trace: str
    """Id of the trace: 32 hexadecimal digits."""
    span: str
    """Id of the span: 16 hexadecimal digits."""

    @classmethod
    def of(cls, traceparent: str) -> SpanContext:
        """The context in a header `00-<trace>-<span>-01`, whose form the specification has validated."""
        _, trace, span, _ = traceparent.split("-")
        return cls(trace, span)

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace}-{self.span}-01"

    def child(self, *parts: object) -> SpanContext:
        """Context of a child span.

        Args:
            parts: what distinguishes the child from its siblings, such as a stage's key and the attempt's number.
        """
        return SpanContext(self.trace, _digest(8, self.span, *parts))


def root(uid: str) -> SpanContext:
    """Context of the span of a run, or of a stage without a run, with this UID."""
    return SpanContext(_digest(16, uid), _digest(8, uid))


def is_sampled(identity: str, share: float) -> bool:
    """Whether an episode is among the sampled ones: the same for every process and every attempt.

    Args:
        identity: names the episode within the run.
        share: fraction of episodes that are sampled, 0 to 1.
    """
    return int(_digest(BITS // 8, identity), 16) < share * 2**BITS


def _digest(size: int, *parts: object) -> str:
    return hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=size).hexdigest()
