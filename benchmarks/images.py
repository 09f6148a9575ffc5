"""Does a photograph of 12 megapixels delay sockets and deadlines, and how many tokens has it? Against the goals.

    python benchmarks/images.py [--rounds 4] [--max-pixels 1003520]

A photograph of 4000 x 3000 pixels goes through everything that a stage does with one, on the paths that stages use: a
dataset's file is decoded and hashed; the in-process engine resizes it, cuts patches and encodes them; the agent has it
grounded, crops it, and searches by it, which makes a PNG and base64 of it for requests over HTTP to the servers that
`gog run` starts; the vLLM engine's request is made of it. All that time a timer measures how late the loop is on which
sockets and deadlines are (`gog.io_loop`). Every round has photographs of its own, so nothing is in a cache.

Photographs are drawn (smooth shapes, grain of a sensor), because grain is what makes a PNG large. The model is the tiny
one; sizes are computed as for Qwen3-VL's patches (16 pixels, merged 2 x 2) as well.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import outcome

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from PIL import Image as PILImage
from rollout import measure_lag, servers

from gog import prompts, stats
from gog.dataset import Question
from gog.engine import Limits
from gog.spec import ModelSpec, PixelBounds, ToolsSpec, WorldSpec
from gog.tool_client import Toolbox
from gog_recipes.models import policy_model
from gog_recipes.models.qwen_processor import MAX_PIXELS
from gog_recipes.rollout import vllm_request
from gog_recipes.rollout.engine import Parts
from gog_recipes.rollout.question_pool import QuestionPool
from gog_recipes.rollout.transformers import TransformersEngine
from gog_recipes.rollout.vllm_images import SentImages
from gog_recipes.world import generate

GOAL_MS = 50
"""Lag of the I/O loop, 99th percentile, at most."""
WIDTH, HEIGHT = 4000, 3000
ROW = "image preprocessing, PNG, base64 of a 12-megapixel photo: never on the event loop; obeys max_pixels"


@dataclass
class Measured:
    """Figures of all rounds."""

    lags: dict[str, list[float]] = field(default_factory=dict)
    """Lags of the I/O loop in seconds, by what was under way."""
    seconds: dict[str, list[float]] = field(default_factory=dict)
    """How long it took."""
    tokens: int = 0
    """Image tokens of a photograph."""
    failures: int = 0
    """Tool calls that failed."""

    @asynccontextmanager
    async def part(self, toolbox: Toolbox, name: str) -> AsyncIterator[None]:
        """Measures the I/O loop's lag while the body runs."""
        measuring = asyncio.ensure_future(toolbox.io.run(measure_lag(self.lags.setdefault(name, []))))
        begun = time.monotonic()
        try:
            yield
        finally:
            self.seconds.setdefault(name, []).append(time.monotonic() - begun)
            await asyncio.sleep(0.02)  # a lag is seen when the timer fires
            measuring.cancel()


def write_photograph(folder: Path, number: int) -> Question:
    """A JPEG as cameras write it, and a question about it."""
    rng = np.random.default_rng(number)
    small = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    smooth = np.asarray(PILImage.fromarray(small).resize((WIDTH, HEIGHT), PILImage.Resampling.BICUBIC))
    grain = rng.integers(-6, 7, smooth.shape, dtype=np.int16)
    pixels = (smooth.astype(np.int16) + grain).clip(0, 255).astype(np.uint8)
    name = f"{number}.jpg"
    PILImage.fromarray(pixels).save(folder / name, quality=92)
    return Question(id=str(number), image=name, question="what is it ?", answers=("n1",))


def make_engine(bounds: PixelBounds, turn_tokens: int = 2) -> TransformersEngine:
    """The in-process engine of the tiny model, with images of any size up to the bounds."""
    spec = ModelSpec(base="tiny", max_pixels=bounds.max_pixels)
    model = policy_model.load_base(spec, torch.device("cpu"))
    processor = policy_model.load_processor(spec)
    vision = policy_model.vision_of(model, processor)
    return TransformersEngine(Parts(model, processor, vision, Limits(8192, turn_tokens, 1.0), 1))


async def play(folder: Path, toolbox: Toolbox, engine: TransformersEngine, measured: Measured, rounds: int) -> None:
    """Every round takes one photograph through all parts."""
    pool = QuestionPool(folder, [write_photograph(folder, number) for number in range(rounds)])
    for number, question in enumerate(pool.questions):
        async with measured.part(toolbox, "decode, hash"):
            image = await pool.image(question)
        async with measured.part(toolbox, "resize, patches, vision tower"):
            text = prompts.prompt(question.question, style=engine.style)
            [session] = await engine.open(text, [image], [(number,)])
            await session.generate()
            session.close()
        async with measured.part(toolbox, "ground: PNG, base64, HTTP, crops"):
            grounded = await toolbox.ground(image, "the red ring")
        async with measured.part(toolbox, "search: base64, HTTP"):
            searched = await toolbox.search_image(image)
        async with measured.part(toolbox, "request to vLLM"):
            [sent] = await SentImages(engine.processor, engine.vision).get([image])
            prompt = vllm_request.Prompt()
            prompt.append(session.segments()[0], engine.processor.image_pad, lambda _: sent.tokens)  # noqa: B023
            await asyncio.to_thread(vllm_request.body, "m", prompt, [sent.uri], {})
        measured.tokens = max(measured.tokens, engine.vision.tokens(image.hash))
        measured.failures += sum(reply.failure is not None for reply in (grounded, searched))


async def measure(folder: Path, endpoints: dict[str, str], bounds: PixelBounds, rounds: int) -> Measured:
    measured = Measured()
    engine = make_engine(bounds)
    async with Toolbox(endpoints, ToolsSpec(attempts=1, deadline_seconds=60, crop_side=28)) as toolbox:
        await play(folder, toolbox, engine, measured, rounds)
    await engine.close()
    return measured


def report(measured: Measured, most_tokens: int) -> tuple[dict[str, object], dict[str, bool]]:
    """Figures, and which goals are reached."""
    lags = [lag for part in measured.lags.values() for lag in part]
    worst = max(stats.percentile(part, 0.99) for part in measured.lags.values())
    found: dict[str, object] = {
        "io_lag_p50_ms": round(1e3 * stats.percentile(lags, 0.5), 2),
        "io_lag_p99_ms": round(1e3 * stats.percentile(lags, 0.99), 2),
        "io_lag_max_ms": round(1e3 * max(lags), 2),
        "tokens": measured.tokens,
        "most_tokens": most_tokens,
        "failed_calls": measured.failures,
    }
    for name, part in measured.lags.items():
        found[f"{name}: p99 ms"] = round(1e3 * stats.percentile(part, 0.99), 2)
        found[f"{name}: s"] = round(stats.percentile(measured.seconds[name], 0.5), 2)
    goals = {
        f"lag of the I/O loop in every part, p99 <= {GOAL_MS} ms": worst <= 1e-3 * GOAL_MS,
        "tokens <= max_pixels": measured.tokens <= most_tokens,
        "no call failed": measured.failures == 0,
    }
    return found, goals


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--max-pixels", type=int, default=MAX_PIXELS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    bounds = PixelBounds(max_pixels=given.max_pixels)
    with tempfile.TemporaryDirectory() as scratch:
        data, photographs = Path(scratch) / "data", Path(scratch) / "photographs"
        photographs.mkdir()
        generate.write(data, WorldSpec(train=8, test=8))
        with servers(data, 0.0) as endpoints:
            measured = asyncio.run(measure(photographs, endpoints, bounds, given.rounds))
    processor = policy_model.load_processor(ModelSpec(base="tiny"))
    found, goals = report(measured, given.max_pixels // (processor.patch * processor.merge) ** 2)
    width = max(map(len, found))
    for key, value in found.items():
        print(f"{key:{width}} {value:>12}")
    print(f"{ROW}: p99 {found['io_lag_p99_ms']} ms of the I/O loop, {measured.tokens} tokens of {found['most_tokens']}")
    return outcome.finish("images", {"row": ROW, **found}, goals)


if __name__ == "__main__":
    sys.exit(main())
