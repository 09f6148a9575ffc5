"""Demonstrations as tokens: a curated trajectory is text and images; here it gets its segments.

Prompts, frames and processor are those of rollouts, so the model is trained on exactly the tokens that it will meet.
"""

from __future__ import annotations

from gog import prompts
from gog.trajectory import Segment, Trajectory
from gog.trajectory_zip import Archive
from gog_recipes.models.family import Processor
from gog_recipes.models.vision import Vision


def segments(trajectory: Trajectory, processor: Processor, vision: Vision) -> tuple[Segment, ...]:
    """The segments of a trajectory, made from its text unless it has them.

    Args:
        trajectory: a demonstration.
        processor: tokenizes the text.
        vision: knows the images of the trajectory.
    """
    if trajectory.segments:
        return trajectory.segments
    question = prompts.prompt(trajectory.question, style=processor.style, gaze=trajectory.gaze)
    out = [_given("prompt", question, (trajectory.image,), processor, vision)]
    for turn in trajectory.turns:
        out.append(Segment(source="model", tokens=tuple(processor.encode(turn.text, []))))
        if turn.observation is not None:
            body = prompts.observation(turn.observation.text, turn.observation.note)
            out.append(_given("observation", body, turn.observation.images, processor, vision))
    return tuple(out)


def _given(source: str, text: str, images: tuple[str, ...], processor: Processor, vision: Vision) -> Segment:
    tokens = processor.encode(text, [vision.tokens(image) for image in images])
    return Segment(source=source, tokens=tuple(tokens), images=images)


def read(archive: Archive, processor: Processor, vision: Vision) -> list[tuple[Segment, ...]]:
    """The segments of every demonstration of an archive; its images are added to `vision`."""
    rows = []
    for trajectory in archive.trajectories():
        shown = [
            trajectory.image,
            *(i for turn in trajectory.turns if turn.observation for i in turn.observation.images),
        ]
        vision.add([archive.image(image) for image in shown])
        rows.append(segments(trajectory, processor, vision))
    return rows
