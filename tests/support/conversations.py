"""Conversations with photographs, as the agent has them, in the tokens of a real base model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image as PILImage

from gog import prompts
from gog.images import Image
from gog.trajectory import Segment

Rows = list[tuple[Segment, ...]]
SIZES = ((320, 213), (117, 301), (333, 57), (28, 28), (209, 311), (250, 250))
"""Width and height of `images`: wide, tall, thin, smaller than one patch of some processors."""


def images(photographs: Sequence) -> list[Image]:
    """A photograph at each of SIZES."""
    opened = [PILImage.open(path).convert("RGB") for path in photographs]
    resized = [opened[number % len(opened)].resize(size) for number, size in enumerate(SIZES)]
    return [Image(np.asarray(image)) for image in resized]


def rows(processor, vision, shown: Sequence[Image]) -> Rows:
    """Three conversations: gaze with three images in four segments of text and results, glance, a direct answer."""

    def segment(source, text, own=()):
        tokens = processor.encode(text, [vision.tokens(image.hash) for image in own])
        return Segment(source=source, tokens=tuple(tokens), images=tuple(image.hash for image in own))

    def prompt(question, image):
        return segment("prompt", prompts.prompt(question, style="full"), [image])

    def result(body, own=()):
        return segment("observation", prompts.observation(body), own)

    vision.add(shown)
    offered = (
        f"#1 {prompts.IMAGE} box 1, 2, 3, 4 score 0.52\n#2 {prompts.IMAGE} box 5, 6, 7, 8 score 0.41\n"
        f"#3 {prompts.IMAGE} box 5, 6, 7, 8 score 0.22"
    )
    gaze = (
        prompt("Which temple is this?", shown[0]),
        segment("model", "<think>The roof may tell.</think><img_search>red roof</img_search>"),
        result(offered, shown[1:4]),
        segment("model", "<think>The first one.</think><img_search>#1</img_search>"),
        result("Candidate #1 looks like:\n1. 天坛, Temple of Heaven"),
        segment("model", "<think>Found it.</think><answer>Temple of Heaven</answer>"),
    )
    glance = (
        prompt("What is shown?", shown[4]),
        segment("model", "<think>?</think><img_search><img></img_search>"),
        result("The image looks like:\n1. a cat"),
        segment("model", "<think>ok</think><answer>a cat</answer>"),
    )
    direct = (prompt("Is it red?", shown[5]), segment("model", "<answer>no</answer>"))
    return [gaze, glance, direct]


def learned(row: tuple[Segment, ...]) -> torch.Tensor:
    """[n - 1] bool: which tokens behind the first one the model wrote."""
    return torch.tensor([value for segment in row for value in segment.loss_mask()])[1:]


def reference(
    model, processor, row: tuple[Segment, ...], by_hash: dict[str, Image]
) -> tuple[torch.Tensor, torch.Tensor]:
    """What transformers' own forward gives for one conversation, from pixels on: logits [k, v] and tokens [k]."""
    ids = torch.tensor([[token for segment in row for token in segment.tokens]])
    patches = [processor.patches(by_hash[image]) for segment in row for image in segment.images]
    logits = model(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        pixel_values=torch.from_numpy(np.concatenate([item.rows for item in patches])),
        image_grid_thw=torch.tensor([item.grid for item in patches]),
        mm_token_type_ids=(ids == processor.image_pad).int(),
        use_cache=False,
        logits_to_keep=torch.nonzero(learned(row))[:, 0],
    ).logits[0]
    return logits, ids[0, 1:][learned(row)]
