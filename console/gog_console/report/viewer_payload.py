"""Trajectories and their images in the form that the viewer reads. Pure: records and bytes in, JSON values out.

The viewer inserts everything as text, never as markup. Images are data URIs: small ones unchanged, photographs scaled
down. Boxes remain in pixels of the original, whose size is included. The total size is bounded; the most informative
trajectories come first.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from gog import behaviour, images, regions, trajectory_zip
from gog.errors import UserError
from gog.spec import STAGES
from gog.trajectory import Observation, Segment, Trajectory, Turn
from gog_console import formatting
from gog_console.report.model import Sample, policy_order

BUDGET = 5_000_000
"""Bytes of trajectories and images together, as encoded in the page."""
ENOUGH = 50
"""Images are scaled down further before fewer trajectories than this are shown."""
SIDES = (768, 448, 256)
"""Longest sides of photographs that are tried in turn, in pixels."""
AS_IT_IS = 256
"""Images up to this longest side are embedded unchanged, in pixels."""
LONGEST_TEXT = 6_000
"""Characters after which a text is cut."""
MOST_TOKENS = 400
"""Log-probabilities shown per turn."""

Json = dict[str, Any]


def viewer(samples: Sequence[Sample], pngs: Mapping[str, bytes]) -> Json:
    """{"trajectories": […], "images": {hash: {src, w, h}}} within the budget. samples: most informative first."""
    for side in SIDES:
        kept, embedded = _fit(samples, pngs, side)
        if len(kept) >= min(ENOUGH, len(samples)):
            break
    entries = [entry for _, entry in sorted(kept, key=lambda pair: _place(pair[0]))]
    return {"trajectories": _unique(entries), "images": embedded}


def _fit(samples: Sequence[Sample], pngs: Mapping[str, bytes], side: int) -> tuple[list[tuple[Sample, Json]], Json]:
    room, kept, embedded = BUDGET, [], {}
    for sample in samples:
        record = entry(sample)
        fresh = {
            image: embed(pngs[image], side)
            for image in sorted(trajectory_zip.shown(sample.trajectory) & set(pngs))
            if image not in embedded
        }
        room -= len(repr(record)) + sum(len(found["src"]) for found in fresh.values())
        if room < 0:
            break
        kept.append((sample, record))
        embedded.update(fresh)
    return kept, embedded


def embed(png: bytes, side: int = SIDES[0]) -> Json:
    """An image as a data URI with its original size; an image that cannot be decoded has an empty source."""
    try:
        kind, data, (width, height) = shrunk(png, side)
    except UserError:
        return {"src": "", "w": 0, "h": 0}
    return {"src": f"data:image/{kind};base64,{base64.b64encode(data).decode()}", "w": width, "h": height}


def shrunk(png: bytes, side: int, *, as_it_is: int = AS_IT_IS) -> tuple[str, bytes, tuple[int, int]]:
    """Scales an image down.

    Args:
        png: encoded image.
        side: longest side of the result in pixels.
        as_it_is: images up to this side are returned unchanged.

    Returns:
        (format, encoded bytes, (width, height) of the original in pixels).

    Raises:
        UserError: the image cannot be decoded.
    """
    found = images.decode(png)
    size = found.width, found.height
    if max(size) <= as_it_is:
        return "png", png, size
    small = Image.fromarray(found.pixels)
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    small.save(stream, "WEBP", quality=82)
    return "webp", stream.getvalue(), size


def entry(sample: Sample) -> Json:
    """One trajectory as the viewer shows it; empty fields are left out."""
    item = sample.trajectory
    return _without_empty(
        {
            "id": identifier(sample),
            "stage": formatting.stage(sample.kind, sample.arm),
            "key": sample.key,
            "policy": sample.policy,
            "policyName": formatting.policy(sample.policy),
            "step": step(sample),
            "sample": item.sample,
            "question": item.question,
            "questionId": item.question_id,
            "answers": list(item.answers),
            "kind": item.kind,
            "level": item.level,
            "image": item.image,
            "region": _box(item.region),
            "turns": _turns(item),
            "stop": item.stop,
            "answer": item.answer,
            "outcome": sample.outcome,
            "behaviour": sample.behaviour,
            "choseRight": behaviour.chose_right(item),
            "failures": len(item.failures),
            "errors": sum(not turn.well_formed for turn in item.turns),
            "excluded": item.excluded,
            "treatment": item.treatment,
            "reward": item.reward.model_dump() if item.reward else None,
            "advantage": None if item.advantage is None else round(item.advantage, 4),
            "seconds": round(item.seconds, 3),
            "toolCalls": item.tool_calls,
        }
    )


def step(sample: Sample) -> int:
    """Training step in which the trajectory was sampled; 0 outside training."""
    return sample.trajectory.step or (sample.step if sample.kind == "grpo" else 0)


def identifier(sample: Sample) -> str:
    """Identifier of a trajectory in links; the same in every report of the run."""
    item = sample.trajectory
    plain = f"{sample.key}-{sample.step}-{sample.policy}-{item.question_id}-{item.sample}"
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", plain)[:120]


def _turns(item: Trajectory) -> list[Json]:
    """Turns with the log-probability of each sampled token, if recorded."""
    written = [segment for segment in item.segments if segment.source == "model"]
    return [
        _turn(item, turn, written[place] if place < len(written) else None) for place, turn in enumerate(item.turns)
    ]


def _turn(item: Trajectory, turn: Turn, written: Segment | None) -> Json:
    return _without_empty(
        {
            "action": turn.action,
            "argument": _cut(turn.argument),
            "within": turn.within,
            "selected": list(turn.selected),
            "reasoning": _cut(turn.reasoning or ""),
            "raw": _cut(turn.text),
            "wellFormed": turn.well_formed,
            "error": turn.error,
            "seconds": turn.seconds,
            "tokens": len(written.tokens) if written else 0,
            "logprobs": [round(value, 2) for value in written.logprobs[:MOST_TOKENS]] if written else [],
            "version": written.version if written else 0,
            "seen": _observation(item, turn.observation) if turn.observation else None,
        }
    )


def _observation(item: Trajectory, seen: Observation) -> Json:
    own = [c for c in seen.candidates if not c.image]
    right = regions.containing([c.box for c in own], item.region) if item.region else None
    return _without_empty(
        {
            "tool": seen.tool,
            "text": _cut(seen.text),
            "note": seen.note,
            "seconds": seen.seconds,
            "attempts": seen.attempts,
            "cached": seen.cached,
            "right": None if right is None else own[right].number,
            "candidates": [
                {"n": c.number, "box": _box(c.box), "score": c.score, "label": c.label, "crop": c.crop}
                | ({"elsewhere": True} if c.image else {})
                for c in seen.candidates
            ],
            "results": [
                {"title": r.title, "url": r.url, "text": _cut(r.text, 600)}
                | ({"thumbnail": r.thumbnail} if r.thumbnail else {})
                for r in seen.results
            ],
            "failures": [failure.model_dump() for failure in seen.failures],
        }
    )


def _place(sample: Sample) -> tuple[object, ...]:
    """Sort key: by stage and step; an evaluation is sorted by question."""
    item = sample.trajectory
    stage = (sample.arm, STAGES.index(sample.kind) if sample.kind in STAGES else len(STAGES))
    if sample.kind == "evaluate":
        return (*stage, 0, item.question_id, *policy_order(sample.policy), item.sample)
    return (*stage, sample.step, item.question_id, 0, "", item.sample)


def _unique(entries: Sequence[Json]) -> list[Json]:
    """Entries with unique ids, whatever the records contain."""
    seen: dict[str, int] = {}
    for item in entries:
        seen[item["id"]] = seen.get(item["id"], 0) + 1
        if seen[item["id"]] > 1:
            item["id"] = f"{item['id']}.{seen[item['id']]}"
    return list(entries)


def _box(box: Sequence[float] | None) -> list[float] | None:
    return None if box is None else [round(side, 2) for side in box]


def _cut(text: str, limit: int = LONGEST_TEXT) -> str:
    return text if len(text) <= limit else f"{text[:limit]} … ({len(text) - limit:,} more characters)"


def _without_empty(record: Json) -> Json:
    return {name: value for name, value in record.items() if value is not None and value != "" and value != []}
