"""Trains the photo world's own tools in some minutes on a core: a detector, and an encoder for image search.

Both see training cut-outs and training photographs only. The encoder is written in Hugging Face form, so that
`gog index build` and the back end `embeddings` take it like any other.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import transformers
from PIL import Image as PILImage
from safetensors.torch import save_file
from torch.nn import functional

from gog.images import Image
from gog_recipes.photos import detector, generate, scenes
from gog_recipes.photos.cutouts import Cutout

DETECTOR_STEPS, DETECTOR_BATCH, DETECTOR_RATE = 1200, 8, 3e-3
ENCODER_STEPS, ENCODER_BATCH, ENCODER_RATE = 500, 40, 1e-3
SIDE = 64
"""Of what the encoder reads, in pixels."""
TEMPERATURE = 0.1
"""Of the contrastive loss."""
SHIFT = 0.12
"""By how much of a side a view's box differs from the thing's, at most: a detector's boxes are not exact."""
GAINS, SHIFTS = (0.5, 1.4), (-40, 60)
"""Of a photograph's channels, in training: factor of each, and what is added to all."""
EVERY = 100
"""Steps between two lines of the log."""

Log = Callable[[str], None]


def detector_on(
    own: Sequence[Cutout], behind: scenes.Photographs, paths: Sequence[Path], out: Path, *, steps: int, log: Log
) -> None:
    """Trains the detector and writes its weights to a folder.

    Args:
        own: cut-outs.
        behind: photographs.
        paths: those of them that are used.
        out: the folder.
        steps: of training.
        log: takes a line now and then.
    """
    torch.manual_seed(0)
    rng, network = random.Random(0), detector.Divider()
    optimizer, schedule = _optimizer(network, DETECTOR_RATE, steps)
    for step in range(1, steps + 1):
        drawn = [
            generate.draw(rng, own, varied(rng, behind.crop(rng, rng.choice(paths)))) for _ in range(DETECTOR_BATCH)
        ]
        pixels = torch.stack([detector.prepare(each.image) for each in drawn])
        loss = functional.cross_entropy(network(pixels), torch.stack([_target(each) for each in drawn]))
        _step(loss, optimizer, schedule)
        if step % EVERY == 0:
            log(f"detector: step {step} of {steps}, loss {loss.item():.3f}")
    out.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), out / detector.WEIGHTS)


def varied(rng: random.Random, photograph: PILImage.Image) -> PILImage.Image:
    """A photograph in other colours, perhaps mirrored: the few that there are must not be learned by heart."""
    pixels = np.asarray(photograph)[..., rng.sample(range(3), 3)]
    other = pixels * [rng.uniform(*GAINS) for _ in range(3)] + rng.uniform(*SHIFTS)
    made = PILImage.fromarray(other.clip(0, 255).astype(np.uint8))
    turns = (PILImage.Transpose.FLIP_LEFT_RIGHT, PILImage.Transpose.FLIP_TOP_BOTTOM)
    for turn in turns:
        made = made.transpose(turn) if rng.random() < 0.5 else made
    return made


def _target(scene: scenes.Scene) -> torch.Tensor:
    """The class of each cell, 0 for the background."""
    numbers = [0, *(1 + detector.KINDS.index(each.cutout.kind) for each in scene.things)]
    size = (detector.WIDTH // detector.STRIDE, detector.HEIGHT // detector.STRIDE)
    small = PILImage.fromarray(scene.mask).resize(size, PILImage.Resampling.NEAREST)
    return torch.tensor(numbers)[torch.from_numpy(np.array(small)).long()]


def encoder_on(
    own: Sequence[Cutout], behind: scenes.Photographs, paths: Sequence[Path], out: Path, *, steps: int, log: Log
) -> None:
    """Trains the encoder and writes it to a folder in Hugging Face form. Arguments as of `detector_on`.

    The indexed image of a cut-out and its view in a picture are to be more alike than views of different ones.
    """
    torch.manual_seed(0)
    rng = random.Random(0)
    model = transformers.ResNetModel(
        transformers.ResNetConfig(
            embedding_size=32, hidden_sizes=[32, 64, 128, 192], depths=[1, 1, 1, 1], layer_type="basic"
        )
    )
    references = {each.name: generate.reference(each) for each in own}
    optimizer, schedule = _optimizer(model, ENCODER_RATE, steps)
    for step in range(1, steps + 1):
        chosen = rng.sample(list(own), min(len(own), ENCODER_BATCH))
        views = [_view(rng, each, behind, paths) for each in chosen]
        pixels = torch.stack(
            [detector.resized(each, SIDE, SIDE) for each in (*(references[c.name] for c in chosen), *views)]
        )
        vectors = functional.normalize(model(pixels).pooler_output.flatten(1), dim=-1)
        alike = vectors[: len(chosen)] @ vectors[len(chosen) :].T / TEMPERATURE
        right = torch.arange(len(chosen))
        loss = functional.cross_entropy(alike, right) + functional.cross_entropy(alike.T, right)
        _step(loss, optimizer, schedule)
        if step % EVERY == 0:
            log(f"encoder: step {step} of {steps}, loss {loss.item():.3f}")
    model.eval().save_pretrained(out)
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": SIDE, "width": SIDE},
        "resample": int(PILImage.Resampling.BILINEAR),
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    (out / "preprocessor_config.json").write_text(json.dumps(processor) + "\n")


def _view(rng: random.Random, cutout: Cutout, behind: scenes.Photographs, paths: Sequence[Path]) -> Image:
    """A cut-out as a crop of a picture shows it."""
    scene = scenes.compose(rng, varied(rng, behind.crop(rng, rng.choice(paths))), [cutout])
    x0, y0, x1, y1 = scene.things[0].box
    across, down = SHIFT * (x1 - x0), SHIFT * (y1 - y0)
    left, top = max(0, round(x0 + rng.uniform(-across, across))), max(0, round(y0 + rng.uniform(-down, down)))
    right, bottom = round(x1 + rng.uniform(-across, across)), round(y1 + rng.uniform(-down, down))
    return Image(np.ascontiguousarray(scene.image.pixels[top : max(top + 8, bottom), left : max(left + 8, right)]))


def _optimizer(
    model: torch.nn.Module, rate: float, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=1e-4)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)


def _step(loss: torch.Tensor, optimizer: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LRScheduler) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
