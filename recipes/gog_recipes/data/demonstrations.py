"""Demonstrations as tokens: a curated trajectory is text and images; here it gets its segments.

Prompts, frames and processor are those of rollouts, so the model is trained on exactly the tokens that it will meet.
"""

from __future__ import annotations

import array
import functools
import hashlib
import itertools
import json
from dataclasses import dataclass

from gog import catalog, judging, prompts, reviews
from gog.errors import UserError
from gog.trajectory import Segment, Trajectory
from gog.trajectory_zip import Archive
from gog_recipes.models.family import Processor
from gog_recipes.models.vision import Vision


def segments(trajectory: Trajectory, processor: Processor, vision: Vision) -> tuple[Segment, ...]:
    """The segments of a trajectory, made from its text unless it has those of this model.

    Args:
        trajectory: a demonstration.
        processor: tokenizes the text.
        vision: knows the images of the trajectory.

    Raises:
        ValueError: the text holds image placeholders of its own, or a turn a token that the agent never writes.
    """
    if _has_own_tokens(trajectory, processor, vision):
        return trajectory.segments
    called = {turn.observation.tool for turn in trajectory.turns if turn.observation is not None}
    allowed = catalog.offered(called)  # its own optional tools: a demonstration does not know which its run has
    question = prompts.prompt(trajectory.question, style=processor.style, tools=allowed, gaze=trajectory.gaze)
    out = [_given("prompt", question, (trajectory.image,), processor, vision)]
    for turn in trajectory.turns:
        out.append(_written(turn.text, processor))
        if turn.observation is not None:
            body = prompts.observation(turn.observation.text, turn.observation.note)
            out.append(_given("observation", body, turn.observation.images, processor, vision))
    return tuple(out)


def _has_own_tokens(trajectory: Trajectory, processor: Processor, vision: Vision) -> bool:
    """Whether the recorded tokens are this model's: they read as the turns do, and its images have as many.

    Those of another tokenizer, or of images of another size, would be learned as other text, or not fit at all.
    """
    known = range(len(processor.tokenizer))
    if trajectory.images() != _shown(trajectory) or any(token not in known for token in trajectory.tokens()):
        return False
    written = [processor.turn_text(each.tokens)[0] for each in trajectory.segments if each.source == "model"]
    return written == [turn.text for turn in trajectory.turns] and all(
        each.tokens.count(processor.image_pad) == sum(map(vision.tokens, each.images)) for each in trajectory.segments
    )


def _shown(trajectory: Trajectory) -> list[str]:
    """Content hashes of the images that the model sees, in order."""
    seen = (turn.observation.images for turn in trajectory.turns if turn.observation is not None)
    return [trajectory.image, *itertools.chain.from_iterable(seen)]


def _written(text: str, processor: Processor) -> Segment:
    """A turn. Raises ValueError for a token in it that rollouts never sample, as a frame of another chat format."""
    tokens = processor.encode(text, [])
    never = set(tokens).intersection(processor.suppress_tokens)
    if never:
        raise ValueError(f"a turn holds {processor.decode([min(never)])}, which the agent never writes")
    return Segment(source="model", tokens=tuple(tokens))


def _given(source: str, text: str, images: tuple[str, ...], processor: Processor, vision: Vision) -> Segment:
    tokens = processor.encode(text, [vision.tokens(image) for image in images])
    return Segment(source=source, tokens=tuple(tokens), images=images)


@dataclass(frozen=True)
class Demonstrations:
    """The demonstrations of an archive, as far as they can be learned from."""

    rows: list[tuple[Segment, ...]]
    """Segments of each."""
    ids: list[str]
    """Its trajectory id, for messages."""
    questions: list[str]
    """What its question is known by: equal for demonstrations of the same question about the same image."""
    skipped: dict[str, str]
    """Why others are left out, by their id."""


def unverified(trajectory: Trajectory) -> str:
    """Why a demonstration is not known to be right; empty if it is.

    The judge's verdict decides. Without one, the answer must equal an accepted one after normalisation.
    """
    if not trajectory.well_formed:
        return "unverified: it ends without an answer, or a turn is malformed"
    accuracy = trajectory.reward.accuracy if trajectory.reward is not None else None
    if accuracy is not None:
        return "" if accuracy == 1.0 else "unverified: the judge found its answer wrong"
    accepted = {judging.normalise(answer) for answer in trajectory.answers}
    if judging.normalise(trajectory.answer or "") in accepted - {""}:
        return ""
    return "unverified: it has no verdict, and its answer equals no accepted one"


def digest(found: Demonstrations) -> str:
    """Of everything that is learned, in its order: a stage that resumes with something else would repeat and omit some."""
    made = hashlib.blake2b(digest_size=16)
    for name, row in zip(found.ids, found.rows, strict=True):
        made.update(json.dumps([name, [(each.source, len(each.tokens), each.images) for each in row]]).encode())
        for each in row:
            made.update(array.array("q", each.tokens))
    return made.hexdigest()


def read(
    archive: Archive,
    processor: Processor,
    vision: Vision,
    *,
    limit: int,
    keep_unverified: bool = False,
    decisions: reviews.Decisions | None = None,
) -> Demonstrations:
    """Reads and tokenizes an archive; the images of what is learned are noted in `vision`, which reads them when they are needed.

    Args:
        archive: trajectories with their images
        processor: of the base model
        vision: cache of image features
        limit: tokens of a demonstration, images included; a longer one is skipped, because cutting it would teach the
            model to stop without an answer
        keep_unverified: whether to learn from demonstrations that are not known to be right, too
        decisions: of reviewers

    Returns:
        What can be learned, and what is skipped: what reviewers refuse, an answer that is not known to be right, an image
        that cannot be read or that the model cannot take, a text with image placeholders of its own, a turn with a token
        that the agent never writes, more tokens than the limit.
    """
    rows, ids, questions, skipped = [], [], [], {}
    for trajectory in archive.trajectories():
        if decisions is not None and (reason := decisions.refusal(trajectory)):
            skipped[trajectory.id] = reason
            continue
        if not keep_unverified and (reason := unverified(trajectory)):
            skipped[trajectory.id] = reason
            continue
        try:
            for image in _shown(trajectory):  # decoded now, because a damaged one is skipped, and again when needed
                vision.expect(archive.image(image), functools.partial(archive.image, image))
            row = segments(trajectory, processor, vision)
        except (UserError, ValueError) as error:
            skipped[trajectory.id] = str(error)
            continue
        tokens = sum(len(segment.tokens) for segment in row)
        if tokens > limit:
            skipped[trajectory.id] = f"{tokens} tokens, the limit is {limit} (max_tokens)"
            continue
        rows.append(row)
        ids.append(trajectory.id)
        questions.append(f"{trajectory.image} {judging.normalise(trajectory.question)}")
    return Demonstrations(rows, ids, questions, skipped)
