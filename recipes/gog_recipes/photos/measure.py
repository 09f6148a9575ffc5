"""How good the photo world's tools are on its held-out questions, whose things they have never seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import transformers

from gog import dataset, images, regions
from gog.images import Image
from gog_recipes.photos import detector

GOOD = 0.5
"""Intersection over union from which on a box is right."""


@dataclass(frozen=True)
class Found:
    """Shares of the held-out questions that are about a thing."""

    questions: int
    """Number of them."""
    boxes: float
    """Whose thing is among the candidates of its class."""
    candidates: float
    """Mean number of candidates."""
    names: float
    """Where the right crop's nearest indexed image is of the same thing."""
    first_names: float
    """Where the nearest image of the first candidate's crop is."""


def on(data: Path, tools: Path) -> Found:
    """Measures detector and encoder. tools: the folder of both."""
    asked = [each for each in dataset.read_questions(data, "test") if each.evidence.region is not None]
    finder = detector.PhotoDetector(weights=str(tools / "detector"))
    index = list(dataset.read_lines(data / dataset.INDEX, dataset.IndexedImage))
    vectors = _vectors(tools / "encoder", [images.read(data / each.image) for each in index])
    boxes, counts, right, first = 0, 0, [], []
    for question in asked:
        image, wanted = images.read(data / question.image), question.evidence.region
        assert wanted is not None
        found = finder.detect([image], [question.evidence.expression])[0]
        boxes += any(regions.overlap(each.box, wanted) >= GOOD for each in found)
        counts += len(found)
        right.append(regions.crop(image, wanted, by=0, side=None))
        first.append(regions.crop(image, found[0].box, by=0, side=None) if found else image)
    names = [str((each.evidence.model_extra or {})["entity"]) for each in asked]
    shares = [
        float(
            np.mean([index[row].title == name for row, name in zip((near @ vectors.T).argmax(1), names, strict=True)])
        )
        for near in (_vectors(tools / "encoder", right), _vectors(tools / "encoder", first))
    ]
    total = len(asked)
    return Found(total, boxes / total, counts / total, *shares)


def sentence(found: Found) -> str:
    """What was measured."""
    return (
        f"held-out questions about a thing: {found.questions}; its box is among the candidates {found.boxes:.1%} "
        f"({found.candidates:.1f} candidates); its crop is recognised {found.names:.1%}, that of the first candidate is its "
        f"{found.first_names:.1%}"
    )


@torch.inference_mode()
def _vectors(folder: Path, pictures: Sequence[Image]) -> np.ndarray:
    """Of length 1, [n, d]."""
    processor = transformers.AutoImageProcessor.from_pretrained(folder, local_files_only=True)
    model = transformers.AutoModel.from_pretrained(folder, local_files_only=True).eval()
    pixels = processor(images=[np.array(each.pixels) for each in pictures], return_tensors="pt")
    found = model(**pixels).pooler_output.flatten(1)
    return np.asarray(torch.nn.functional.normalize(found, dim=-1))
