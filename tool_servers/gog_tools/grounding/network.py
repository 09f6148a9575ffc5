"""What the detectors of transformers have in common: loading, batches of equal shape, boxes in pixels of the image.

Only images that the processor brings to one shape share a forward pass. A batch of several shapes would have to be padded,
and padding changes the boxes (the vision backbone attends to it): the answer to a request would depend on which other
requests arrived with it, and a recorded answer could not be repeated. The samples of a group look at one image, and
photographs have few shapes, so batches form all the same; OWLv2 brings every image to one square. An image that several
requests of a pass show is prepared and encoded once (`gog_tools.grounding.sharing`).

The processors of transformers do the resizing and turn the outputs into boxes, for each image alone, so that an answer is
the one that transformers gives to a single image. Boxes are in pixels of the image that was sent. The agent decodes an
image once, orientation included (gog.pixels), and sends those pixels; nothing here rotates an image.
"""

from __future__ import annotations

import abc
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torchvision
import transformers
from pydantic import Field

from gog import tool_api, wording
from gog.errors import UserError
from gog.images import Image
from gog_tools.grounding import phrases, sharing, weights
from gog_tools.serving import devices

Share = Annotated[float, Field(ge=0, le=1)]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
SHAPES = 4
"""Forward passes for which the server collects images at once, so that each shape among them fills its pass."""
THIN = 100
"""Longer side of an image, as a multiple of its shorter one, from which a failure to resize it is the image's fault."""
PROBE = Image(np.full((96, 128, 3), 127, np.uint8))
"""An image on which a detector is tried before it serves."""


class Network(abc.ABC):
    """A Detector around a model and a processor of transformers."""

    model_type: str
    """Of the config.json of its weights."""
    model_class: type[Any]
    """Class of the model."""
    vision: str
    """Name of the model's module that encodes images, and depends on nothing else."""

    def __init__(
        self, folder: Path, *, threshold: float, overlap: float, limit: int, batch: int, device: str, dtype: Dtype
    ) -> None:
        """Loads and tries the network.

        Args:
            folder: of its weights, in Hugging Face form
            threshold: lowest score of a box
            overlap: of two boxes that overlap by more (intersection over union), the better one is kept
            limit: most boxes of an answer
            batch: most images of a forward pass
            device: torch device; auto: cuda if there is one, else cpu
            dtype: type of the weights; auto: float32 on a CPU, else as they are stored

        Raises:
            UserError: for a folder, device or dtype that cannot be used.
        """
        weights.check(folder, self.model_type)
        self.threshold, self.overlap, self.limit, self.batch = threshold, overlap, limit, batch
        self.max_batch = SHAPES * batch
        self.device = devices.find(device)
        self.dtype = _dtype(dtype, self.device)
        self.processor, self.model = self._load(folder)
        self._shared = sharing.SharedVision(self.model.get_submodule(self.vision))
        try:
            self.detect([PROBE], ["a thing"])
        except (RuntimeError, NotImplementedError, ValueError, TypeError, KeyError, IndexError) as error:
            raise UserError(
                f"the model fails on {self.device} in {self.dtype}: {type(error).__name__}: {_line(error)}",
                where=weights.WHERE,
                remedy="choose another device or dtype, or fetch weights, tokenizer and image processor of one version",
            ) from None

    def detect(self, images: Sequence[Image], expressions: Sequence[str]) -> list[list[tool_api.Detection]]:
        """The boxes of each expression in its image; see gog_tools.grounding.backend.Detector."""
        found: list[list[tool_api.Detection]] = [[] for _ in images]
        queries = [phrases.split(expression) for expression in expressions]
        groups: dict[tuple[Any, ...], list[tuple[int, dict[str, torch.Tensor]]]] = defaultdict(list)
        prepared: dict[int, dict[str, torch.Tensor]] = {}
        for index, (image, query) in enumerate(zip(images, queries, strict=True)):
            if query:
                features = prepared.get(id(image)) or prepared.setdefault(id(image), self._features(image))
                shape = tuple(features["pixel_values"].shape)
                groups[shape, self.text_shape(query)].append((index, features))
        order = {key: place for place, key in enumerate(prepared)}
        for members in groups.values():
            members.sort(key=lambda member: order[id(images[member[0]])])  # expressions of one image share a pass
            for start in range(0, len(members), self.batch):
                part = members[start : start + self.batch]
                sizes = [(images[index].height, images[index].width) for index, _ in part]
                answers = self._batch([each for _, each in part], [queries[index] for index, _ in part], sizes)
                for (index, _), answer in zip(part, answers, strict=True):
                    found[index] = answer
        return found

    @abc.abstractmethod
    def text_shape(self, query: Sequence[str]) -> object:
        """What must be equal for two queries to share a forward pass."""

    @abc.abstractmethod
    def tokens(self, queries: Sequence[Sequence[str]]) -> dict[str, torch.Tensor]:
        """Inputs of the text encoder for queries of one `text_shape`; the model's inputs only."""

    @abc.abstractmethod
    def boxes(
        self,
        outputs: Any,
        tokens: dict[str, torch.Tensor],
        queries: Sequence[Sequence[str]],
        sizes: Sequence[tuple[int, int]],
    ) -> list[tuple[torch.Tensor, torch.Tensor, list[str]]]:
        """Of each image the boxes [n, 4] in pixels, their scores [n] and labels, in any order.

        Args:
            outputs: of the model
            tokens: as `tokens` made them
            queries: phrases, by image
            sizes: height and width in pixels, by image
        """

    def _features(self, image: Image) -> dict[str, torch.Tensor]:
        """Inputs of the vision encoder for one image, each with a batch dimension of 1. Raises UserError for a thin one."""
        # Named, because the processor would guess that a strip of 3 pixels is an image of 3 channels.
        form = "channels_last"
        try:
            return dict(
                self.processor.image_processor(images=[image.pixels], input_data_format=form, return_tensors="pt")
            )
        except (ValueError, ZeroDivisionError) as error:  # its longer side fits, then its shorter one has no pixel left
            if max(image.width, image.height) < THIN * min(image.width, image.height):
                raise
            raise UserError(
                f"the detector cannot resize {image.width} x {image.height} pixels: {_line(error)}",
                where="image",
                remedy="send an image that is less thin",
            ) from None

    @torch.inference_mode()
    def _batch(
        self,
        features: Sequence[dict[str, torch.Tensor]],
        queries: Sequence[Sequence[str]],
        sizes: Sequence[tuple[int, int]],
    ) -> list[list[tool_api.Detection]]:
        """One forward pass. Features of equal images are the same object."""
        tokens = self.tokens(queries)
        joined = {name: torch.cat([each[name] for each in features]) for name in features[0]}
        inputs = {name: self._moved(tensor) for name, tensor in (joined | tokens).items()}
        with self._shared.of([id(each) for each in features]):
            outputs = self.model(**inputs)
        for name in ("logits", "pred_boxes"):
            outputs[name] = outputs[name].float().cpu()
        return [self._best(*each) for each in self.boxes(outputs, tokens, queries, sizes)]

    def _moved(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self.device, self.dtype if tensor.is_floating_point() else None)

    def _best(self, boxes: torch.Tensor, scores: torch.Tensor, labels: Sequence[str]) -> list[tool_api.Detection]:
        """The best boxes after non-maximum suppression, across all phrases."""
        if not torch.isfinite(scores).all() or not torch.isfinite(boxes).all():
            raise ValueError(f"the model's outputs are not finite in {self.dtype}")
        kept = torchvision.ops.nms(boxes, scores, self.overlap)[: self.limit].tolist()
        return [
            tool_api.Detection(box=tuple(boxes[each].tolist()), score=float(scores[each]), label=labels[each])
            for each in kept
        ]

    def _load(self, folder: Path) -> tuple[Any, Any]:
        """Processor and model. Raises UserError for what does not fit together."""
        try:
            processor = transformers.AutoProcessor.from_pretrained(folder, local_files_only=True)
            model, report = self.model_class.from_pretrained(
                folder,
                dtype=self.dtype or "auto",
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
        except Exception as error:  # noqa: BLE001  of many classes, for a folder that transformers cannot read
            raise UserError(
                f"cannot be loaded: {type(error).__name__}: {_line(error)}",
                where=str(folder),
                remedy="fetch configuration, tokenizer and weights of one version",
            ) from None
        absent = sorted({*report["missing_keys"], *(str(each[0]) for each in report["mismatched_keys"])})
        if absent:
            raise UserError(
                f"{absent[0]} is missing or of another shape ({wording.plural(len(absent), 'weight')} in all)",
                where=str(folder),
                remedy="fetch configuration and weights of one version",
            )
        self.dtype = model.dtype
        return processor, model.eval().to(self.device)


def _dtype(name: Dtype, device: torch.device) -> torch.dtype | None:
    """None: as the weights are stored."""
    if name == "auto":
        return torch.float32 if device.type == "cpu" else None
    return DTYPES[name]


def _line(error: BaseException) -> str:
    """The first line of an error, of at most 200 characters."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else ""


Fetch = Callable[[str], Path]
"""Finds the folder of a model by its name: a folder, `file://`, `s3://` or `hf://org/name[@revision]`."""
