"""Demonstrations as tokens: a curated trajectory is words and pictures; here it gets its segments.

The same prompts, frames and codec as in rollouts, so the model learns on exactly the tokens that it will meet.
Only model turns are learned; prompts, tool text and pictures are masked.
"""

from __future__ import annotations

from gog import prompts
from gog.trajectory import Segment, Trajectory
from gog.trajectory_zip import Archive
from gog_recipes.models.processor import Codec, Vision


def segments(trajectory: Trajectory, codec: Codec, vision: Vision) -> tuple[Segment, ...]:
    """Segments of a trajectory, made from its text unless it has them. Its pictures must be in `vision`."""
    if trajectory.segments:
        return trajectory.segments
    question = prompts.prompt(trajectory.question, style=codec.style)
    out = [_given("prompt", question, (trajectory.image,), codec, vision)]
    for turn in trajectory.turns:
        out.append(Segment(source="model", tokens=tuple(codec.encode(turn.text, []))))
        if turn.observation is not None:
            body = prompts.observation(turn.observation.text)
            out.append(_given("observation", body, turn.observation.images, codec, vision))
    return tuple(out)


def _given(source: str, text: str, images: tuple[str, ...], codec: Codec, vision: Vision) -> Segment:
    tokens = codec.encode(text, [vision.tokens(image) for image in images])
    return Segment(source=source, tokens=tuple(tokens), images=images)


def read(archive: Archive, codec: Codec, vision: Vision) -> list[tuple[Segment, ...]]:
    """Every demonstration of an archive, its pictures encoded."""
    rows = []
    for trajectory in archive.trajectories():
        shown = [
            trajectory.image,
            *(i for turn in trajectory.turns if turn.observation for i in turn.observation.images),
        ]
        vision.add([archive.picture(image) for image in shown])
        rows.append(segments(trajectory, codec, vision))
    return rows
