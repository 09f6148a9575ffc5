"""A vision encoder that encodes each image of a batch once, however many expressions are searched in it.

What the vision encoders of the detectors compute depends on the image alone, the rest on the expression too. The samples of
a group look at one image, so most of a batch's rows are copies. Hooks take the copies out before the encoder and repeat its
outputs after it; the model around it is that of transformers, unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch


class SharedVision:
    """The vision encoder of a model, whose batches may name rows that show the same image. Used by one thread."""

    def __init__(self, encoder: torch.nn.Module) -> None:
        """encoder: its arguments and outputs have the batch as first dimension of each tensor."""
        self._first: torch.Tensor | None = None
        self._rows: torch.Tensor | None = None
        encoder.register_forward_pre_hook(self._reduce, with_kwargs=True)
        encoder.register_forward_hook(self._repeat)

    @contextmanager
    def of(self, images: Sequence[int]) -> Iterator[None]:
        """Within it the encoder's batches have these images: for each row [b] a number, equal for equal images."""
        numbers = {image: number for number, image in enumerate(dict.fromkeys(images))}
        if len(numbers) < len(images):
            self._rows = torch.tensor([numbers[image] for image in images])
            self._first = torch.tensor([images.index(image) for image in numbers])
        try:
            yield
        finally:
            self._rows = self._first = None

    def _reduce(self, module: torch.nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        return None if self._first is None else (_selected(args, self._first), _selected(kwargs, self._first))

    def _repeat(self, module: torch.nn.Module, args: Any, output: Any) -> Any:
        return None if self._rows is None else _selected(output, self._rows)


def _selected(value: Any, rows: torch.Tensor) -> Any:
    """A value whose tensors have these rows of their first dimension; of the same structure."""
    if isinstance(value, torch.Tensor):
        return value[rows.to(value.device)]
    if isinstance(value, Mapping):  # outputs of transformers are mappings too
        return type(value)(**{name: _selected(each, rows) for name, each in value.items()})
    if isinstance(value, list | tuple):
        return type(value)(_selected(each, rows) for each in value)
    return value
