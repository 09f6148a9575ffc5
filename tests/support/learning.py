"""Trajectories and policies for tests of training: random tokens with real images, log-probs as an engine records them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from gog.images import Image
from gog.spec import LoraSettings, ModelSpec
from gog.trajectory import Segment, Trajectory
from gog_recipes.models import lora, policy_model
from gog_recipes.models.vision import Vision
from support import builders

CPU = torch.device("cpu")


def adapted(spec: ModelSpec, quantization: str = "none") -> torch.nn.Module:
    """The policy with an adapter that changes what it computes; in evaluation mode."""
    torch.manual_seed(0)
    model = lora.add(policy_model.load_base(spec, CPU, quantization), LoraSettings())
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return model.eval()


def trajectories(processor, vision: Vision, turns: Sequence[int], *, seed: int = 0) -> list[Trajectory]:
    """Random trajectories: an image and a prompt, then turns with an observation, every other one with an image.

    Args:
        processor: of the base model
        vision: gets the images
        turns: how many turns each trajectory has
        seed: of tokens, images, log-probs and advantages
    """
    rng = np.random.default_rng(seed)
    return [_trajectory(number, count, rng, processor, vision) for number, count in enumerate(turns)]


def group(processor, vision: Vision, turns: Sequence[int], *, seed: int = 0, name: str = "q") -> list[Trajectory]:
    """Random trajectories that begin with the same prompt and image. Arguments as of `trajectories`; name: of the question."""
    items = trajectories(processor, vision, turns, seed=seed)
    prompt = items[0].segments[0]
    return [
        item.model_copy(update={"id": f"{name}/{number}", "segments": (prompt, *item.segments[1:])})
        for number, item in enumerate(items)
    ]


def recorded(item: Trajectory, logprobs: Sequence[float]) -> Trajectory:
    """A trajectory as an engine would record it that found its learned tokens so probable."""
    values = iter(logprobs)
    segments = [
        each.model_copy(update={"logprobs": tuple(next(values) for _ in each.tokens)})
        if each.source == "model"
        else each
        for each in item.segments
    ]
    return item.model_copy(update={"segments": tuple(segments)})


def _trajectory(number: int, turns: int, rng, processor, vision: Vision) -> Trajectory:
    segments = [_given("prompt", rng, 10 + 3 * number, processor, vision, side=56)]
    for turn in range(turns):
        tokens = _words(rng, int(rng.integers(2, 9)), processor)
        logprobs = tuple(float(value) for value in -5 - rng.random(len(tokens)))
        segments.append(Segment(source="model", tokens=tokens, logprobs=logprobs))
        if turn + 1 < turns:
            segments.append(_given("observation", rng, 7, processor, vision, side=28 * (turn % 2)))
    fields = {"id": f"q/{number}", "segments": tuple(segments), "advantage": float(rng.normal())}
    return builders.make_trajectory(**fields)


def _given(source, rng, count, processor, vision, *, side) -> Segment:
    words = _words(rng, count, processor)
    if not side:
        return Segment(source=source, tokens=words)
    image = Image(rng.integers(0, 255, (side, side + 28, 3), dtype=np.uint8))
    vision.add([image])
    pads = (processor.image_pad,) * vision.tokens(image.hash)
    return Segment(source=source, tokens=words[:2] + pads + words[2:], images=(image.hash,))


def _words(rng, count, processor) -> tuple[int, ...]:
    """Ids of ordinary words."""
    allowed = sorted(set(range(20, min(len(processor.tokenizer), 5000))) - set(processor.suppress_tokens))
    return tuple(int(token) for token in rng.choice(allowed, count))


def gradients_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of the gradients of the trained parameters."""
    return {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}


def difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Norm of the difference of two gradients, relative to the norm of the second."""
    assert one.keys() == other.keys() and one
    change = sum(float((one[name] - other[name]).pow(2).sum()) for name in one)
    return (change / sum(float(value.pow(2).sum()) for value in other.values())) ** 0.5
