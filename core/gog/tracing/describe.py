"""Attributes of the spans of episodes, turns and calls, taken from what is recorded of them in any case.

Names are those of OpenTelemetry's conventions for generative AI where there is one, else `gog.…`. Values are numbers or
words of a small set, ids of questions excepted: never a text that was read or written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gog.tracing.record import Span

if TYPE_CHECKING:
    from gog.tool_types import Reply
    from gog.trajectory import Trajectory

OPERATION = "gen_ai.operation.name"


def episode(span: Span, trajectory: Trajectory) -> None:
    """Describes an episode's span and those of its turns."""
    reward = trajectory.reward
    span.attributes |= _present(
        {
            "gog.question_id": trajectory.question_id,
            "gog.step": trajectory.step,
            "gog.sample": trajectory.sample,
            "gog.policy": trajectory.policy,
            "gog.level": trajectory.level,
            "gog.outcome": trajectory.stop,
            "gog.excluded": trajectory.excluded,
            "gog.tool_calls": trajectory.tool_calls,
            "gog.tool_failures": len(trajectory.failures),
            "gog.reward": reward.total if reward else None,
            "gog.reward.accuracy": reward.accuracy if reward else None,
            "gog.reward.format": reward.format if reward else None,
        }
    )
    _turns(span, trajectory)


def _turns(episode_span: Span, trajectory: Trajectory) -> None:
    spans = [child for child in episode_span.children if child.name == "turn"]
    for number, (span, turn) in enumerate(zip(spans, trajectory.turns, strict=False), 1):
        span.children[0].attributes[OPERATION] = "chat"
        span.attributes |= {"gog.turn": number, "gog.action": turn.action, "gog.well_formed": turn.well_formed}
    read, generated, chats = 0, 0, iter([span.children[0] for span in spans])
    for segment in trajectory.segments:
        if segment.source == "model" and (chat := next(chats, None)) is not None:
            chat.attributes |= {
                "gen_ai.usage.input_tokens": read,
                "gen_ai.usage.output_tokens": len(segment.tokens),
                "gog.weights": segment.version,
            }
            generated += len(segment.tokens)
        read += len(segment.tokens)
    if trajectory.segments:
        usage = {"gen_ai.usage.input_tokens": read - generated, "gen_ai.usage.output_tokens": generated}
        episode_span.attributes |= usage


def tool_call(span: Span | None, tool: str, reply: Reply[Any]) -> None:
    """Describes the span of a finished call; a failed call is an error of its span. None: nothing is recorded."""
    if span is None:
        return
    failed = reply.failure is not None
    cache = "miss" if not reply.cached else "joined" if failed or reply.attempts else "hit"
    span.attributes |= {
        OPERATION: "execute_tool",
        "gen_ai.tool.name": tool,
        "gog.cache": cache,
        "gog.attempts": reply.attempts,
    }
    if reply.failure is not None:
        span.error = reply.failure.kind


def _present(attributes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None and value != ""}
