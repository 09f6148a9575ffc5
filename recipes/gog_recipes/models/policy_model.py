"""The policy: a base model of any family, batches of trajectories, and the one forward pass that all training uses.

The vision tower is frozen, so image features may be computed once and kept. Adapters are in `lora`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel

from gog import base_model, prompts, trajectory
from gog.spec import ModelSpec, PixelBounds, Quantization
from gog_recipes import models, world
from gog_recipes.models import experts, nf4, packing
from gog_recipes.models import logprobs as chunked
from gog_recipes.models.family import Family, Processor
from gog_recipes.models.vision import FEATURE_BYTES, Shards, Vision

ROOT_METHOD = "gog_forward"
"""Of a sharded transformers model: calls the function that it is given while the outermost module's weights are whole."""


def base_folder(spec: ModelSpec) -> Path:
    """The folder of the base model in Hugging Face form.

    Raises:
        UserError: when it cannot be used as one.
    """
    folder = world.TINY if spec.base == "tiny" else Path(spec.base)
    base_model.check(folder)
    return folder


def load_base(spec: ModelSpec, device: torch.device, quantization: Quantization = "none") -> Any:
    """The base model, frozen, in evaluation mode.

    Args:
        spec: of the model
        device: where it is put
        quantization: of the decoder layers. Each weight is packed on the device by itself, which never holds all of
            them unpacked

    Raises:
        UserError: for a folder that cannot be used, or a model that cannot be quantized.
    """
    dtype = getattr(torch, spec.dtype)
    if quantization == "none":
        return load_folder(base_folder(spec), device, dtype)
    model = load_folder(base_folder(spec), torch.device("cpu"), dtype)
    quantize(model, device)
    return model.to(device)


def quantize(model: torch.nn.Module, device: torch.device) -> None:
    """Quantizes linears and experts of the decoder layers to NF4, in place.

    Raises:
        UserError: for a weight that does not divide into blocks.
    """
    quantize_layers(language_model(model).layers, device)


def quantize_layers(layers: torch.nn.Module, device: torch.device) -> None:
    """Quantizes the linears and experts of some decoder layers. See `quantize`."""
    nf4.quantize(layers, device)
    experts.quantize(layers, device)


def load_folder(folder: Path, device: torch.device, dtype: torch.dtype) -> Any:
    """The model of a folder in Hugging Face form, frozen, in evaluation mode."""
    return models.family(base_model.model_type(folder)).load(folder, device, dtype)


def load_processor(spec: ModelSpec) -> Processor:
    """The tokenizer and image processor of the base model. Raises UserError for a folder that cannot be used."""
    return folder_processor(base_folder(spec), spec.style, spec.pixels)


def folder_processor(folder: Path, style: prompts.Style, pixels: PixelBounds | None = None) -> Processor:
    """The tokenizer and image processor of a folder in Hugging Face form; pixels: bounds of an image's size."""
    return models.family(base_model.model_type(folder)).processor(folder, style, pixels or PixelBounds())


def core(model: torch.nn.Module) -> Any:
    """The transformers model, with or without an adapter applied."""
    return model.base_model.model if isinstance(model, PeftModel) else model


def family_of(model: torch.nn.Module) -> Family:
    """The family of a loaded model."""
    return models.family(core(model).config.model_type)


def language_model(model: torch.nn.Module) -> Any:
    """The stack of decoder layers of a model, with or without an adapter applied."""
    return family_of(model).language_model(core(model))


def vision_tower(model: torch.nn.Module) -> torch.nn.Module:
    """What encodes images, of a model with or without an adapter applied."""
    return family_of(model).vision_tower(core(model))


def device_of(model: torch.nn.Module) -> torch.device:
    """The device that computes; parameters may be kept on another."""
    device: torch.device = language_model(model).rotary_emb.inv_freq.device
    return device


def vision_of(
    model: torch.nn.Module, processor: Processor, feature_bytes: int = FEATURE_BYTES, shards: Shards | None = None
) -> Vision:
    """An empty cache of image features over the model's vision tower.

    Args:
        model: with or without an adapter applied
        processor: of the base model
        feature_bytes: bytes of features kept at most
        shards: of the tower, where ranks divide its weights
    """
    encode = functools.partial(family_of(model).encode_images, core(model))
    return Vision(encode, processor, feature_bytes=feature_bytes, shards=shards)


@dataclass(frozen=True)
class Batch:
    """Conversations packed into one row of n tokens, ready for the forward pass."""

    ids: torch.Tensor
    """Token ids [1, n] int64."""
    positions: torch.Tensor
    """Rotary positions [3, 1, n] int64, which begin anew with each tree and continue its prefix in each conversation."""
    images: tuple[str, ...]
    """Content hashes in the order of their image tokens."""
    layout: tuple[packing.Tree, ...]
    """The conversations in the row; their tokens sum to n."""
    targets: torch.Tensor
    """Learned tokens [k] int64 of all conversations, in the order in which these were given."""
    predictors: torch.Tensor
    """Places [k] int64 in the row of the tokens that predict them: each one's predecessor in its conversation."""


def collate(
    rows: Sequence[Sequence[trajectory.Segment]], processor: Processor, vision: Vision, device: torch.device
) -> Batch:
    """Conversations one after the other in a row, those that begin with the same prompt after a single copy of it.

    Args:
        rows: trajectories as segments, each of any length; their images are known to `vision`
        processor: of the base model
        vision: image sizes by content hash
        device: of the batch's tensors

    Returns:
        One row of all tokens. The first token of a conversation is never learned.
    """
    row = _Row(processor, vision)
    layout: list[packing.Tree] = []
    learned: list[tuple[np.ndarray, np.ndarray]] = [_NOTHING] * len(rows)
    for members in packing.groups(rows):
        shared = packing.opening(rows[members[0]]) if len(members) > 1 else ()
        begin = row.length
        after = row.append(shared, 0) if shared else 0
        prefix = row.length - begin
        for index in members:
            learned[index] = row.learned(rows[index][len(shared) :], begin + prefix - 1 if prefix else None)
            row.append(rows[index][len(shared) :], after)
        lengths = tuple(packing.length(rows[index]) - prefix for index in members)
        layout.append(packing.Tree(prefix, lengths))
    targets, predictors = (np.concatenate([pair[part] for pair in learned]) for part in (0, 1))
    arrays = (np.array([row.ids], dtype=np.int64), np.concatenate(row.positions, 1)[:, None], targets, predictors)
    ids, positions, targets_, predictors_ = (torch.from_numpy(array).to(device) for array in arrays)
    return Batch(ids, positions, tuple(row.images), tuple(layout), targets_, predictors_)


_NOTHING = (np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))


class _Row:
    """A row of a batch while it is put together."""

    def __init__(self, processor: Processor, vision: Vision) -> None:
        self._processor, self._vision = processor, vision
        self.ids: list[int] = []
        self.positions: list[np.ndarray] = []
        self.images: list[str] = []

    @property
    def length(self) -> int:
        """Tokens so far."""
        return len(self.ids)

    def append(self, segments: Sequence[trajectory.Segment], start: int) -> int:
        """Adds the tokens of some segments from rotary position `start` on; returns the position after them."""
        tokens = [token for segment in segments for token in segment.tokens]
        images = [image for segment in segments for image in segment.images]
        positions, after = self._processor.positions(tokens, [self._vision.grid(image) for image in images], start)
        self.ids += tokens
        self.images += images
        self.positions.append(positions)
        return after

    def learned(self, segments: Sequence[trajectory.Segment], before: int | None) -> tuple[np.ndarray, np.ndarray]:
        """Learned tokens [k] of segments that are added next, and the places [k] of those that predict them.

        Args:
            segments: with one token at least
            before: place of the token that precedes them; None for the beginning of a conversation
        """
        tokens = np.array([token for segment in segments for token in segment.tokens], dtype=np.int64)
        mask = np.array([each for segment in segments for each in segment.loss_mask()])
        predictors = np.arange(self.length - 1, self.length - 1 + len(tokens))
        if before is None:
            mask[:1] = False
        else:
            predictors[0] = before
        return tokens[mask], predictors[mask]


def features(batch: Batch, vision: Vision) -> torch.Tensor | None:
    """Features [k, …] of a batch's images, in order; None without images. All ranks at once where they share the tower."""
    return vision.features(batch.images)


def token_logprobs(
    model: torch.nn.Module,
    batch: Batch,
    images: torch.Tensor | None,
    *,
    suppressed: Sequence[int] = (),
    temperature: float = 1.0,
) -> torch.Tensor:
    """Log-probabilities of a batch's learned tokens, in order, without their logits all at once.

    Args:
        model: the policy, with or without an adapter applied
        batch: conversations in a row
        images: features of the batch's images, as `features` returns them
        suppressed: token ids that are never sampled
        temperature: of sampling, above 0

    Returns:
        [k] float32.
    """

    def run() -> torch.Tensor:
        hidden, tokens = _predictors(core(model), batch, images)
        ids = torch.tensor(list(suppressed), dtype=torch.int64, device=hidden.device)
        return chunked.of_tokens(hidden, core(model).lm_head.weight, tokens, ids, temperature)

    found: torch.Tensor = _through_root(model, run)
    return found


def _through_root(model: torch.nn.Module, run: Callable[[], Any]) -> Any:
    """Calls a function that uses weights of the outermost module: embeddings, last norm, head.

    FSDP2 gathers those only around a forward method of that module, so a sharded model has one for this purpose.
    """
    entry = getattr(core(model), ROOT_METHOD, None)
    return run() if entry is None else entry(run)


@torch.no_grad()
def token_scores(
    model: torch.nn.Module, batch: Batch, images: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """How well a batch's learned tokens are predicted, in order.

    Returns:
        Log-probabilities [k] float32; [k] bool, whether each token is the most probable one.
    """

    def run() -> tuple[torch.Tensor, torch.Tensor]:
        hidden, tokens = _predictors(core(model), batch, images)
        head = core(model).lm_head.weight
        nothing = torch.empty(0, dtype=torch.int64, device=hidden.device)
        return chunked.of_tokens(hidden, head, tokens, nothing, 1.0), chunked.most_probable(hidden, head) == tokens

    found: tuple[torch.Tensor, torch.Tensor] = _through_root(model, run)
    return found


def _predictors(model: Any, batch: Batch, images: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states [k, h] that predict the learned tokens, and those tokens [k]."""
    hidden = family_of(model).hidden_states(model, batch.ids, batch.positions, images, batch.layout)
    return hidden[0].index_select(0, batch.predictors), batch.targets
