"""The policy: a Qwen2.5-VL model, its adapters, and the one forward pass that all training uses.

Adapters sit on every linear of the language model; the vision tower is frozen, so that features of an image may be
computed once and kept. RL starts from base + SFT adapter *merged*, with a fresh adapter on top: switching the adapter
off is then exactly the SFT policy, the KL's reference, at no cost in memory.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import Qwen2_5_VLForConditionalGeneration

from gog import base_model, trajectory
from gog.spec import LoraSettings, ModelSpec
from gog_recipes import world
from gog_recipes.models import peft_compat  # noqa: F401  (before peft applies an adapter)
from gog_recipes.models.processor import Processor, Vision

ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json")
LORA_TARGETS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
"""Every linear of the language model and none of the vision tower [paper note: all blocks]."""


def base_folder(spec: ModelSpec) -> Path:
    """The folder of the base model in Hugging Face form. Raises UserError when it is not one that can be used."""
    folder = world.TINY if spec.base == "tiny" else Path(spec.base)
    base_model.check(folder)
    return folder


def load_base(spec: ModelSpec, device: torch.device) -> Qwen2_5_VLForConditionalGeneration:
    """The base model, frozen, in evaluation mode."""
    return load_folder(base_folder(spec), device, getattr(torch, spec.dtype))


def load_folder(folder: Path, device: torch.device, dtype: torch.dtype) -> Qwen2_5_VLForConditionalGeneration:
    """The model of a folder in Hugging Face form, frozen, in evaluation mode. Safetensors only."""
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        folder,
        dtype=dtype,
        local_files_only=True,
        use_safetensors=True,
        attn_implementation="sdpa",
    )
    return model.requires_grad_(False).eval().to(device)


def load_processor(spec: ModelSpec) -> Processor:
    return Processor(base_folder(spec), style=spec.style)


def add_adapter(model: torch.nn.Module, lora: LoraSettings) -> PeftModel:
    """A fresh trainable adapter; it changes nothing until it is trained."""
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=LORA_TARGETS)
    return get_peft_model(model, config)


def load_adapter(model: torch.nn.Module, folder: Path, *, trainable: bool = False) -> PeftModel:
    return PeftModel.from_pretrained(model, str(folder), is_trainable=trainable)


def merge_adapter(model: torch.nn.Module, folder: Path) -> torch.nn.Module:
    """The model with an adapter folded into its weights."""
    merged = load_adapter(model, folder).merge_and_unload()
    return merged.requires_grad_(False).eval()


def core(model: torch.nn.Module) -> Any:
    """The transformers model, whether or not it wears an adapter."""
    return model.base_model.model if isinstance(model, PeftModel) else model


def vision_of(model: torch.nn.Module, processor: Processor) -> Vision:
    return Vision(core(model).model.visual, processor)


@contextlib.contextmanager
def reference(model: PeftModel) -> Iterator[torch.nn.Module]:
    """The policy before RL: the model with its adapter switched off."""
    with model.disable_adapter(), torch.no_grad():
        yield model


@dataclass(frozen=True)
class Batch:
    """Trajectories ready for the forward pass; b rows of n tokens.

    ids [b, n]; learned [b, n] bool, the model's own tokens; positions [3, b, n]; images: content hashes in order.
    """

    ids: torch.Tensor
    learned: torch.Tensor
    positions: torch.Tensor
    images: tuple[str, ...]


def collate(
    rows: Sequence[Sequence[trajectory.Segment]], processor: Processor, vision: Vision, device: torch.device
) -> Batch:
    """Right-padded batch of token segments. The first token can never be learned; padding never is."""
    lengths = [sum(len(segment.tokens) for segment in row) for row in rows]
    shape = (len(rows), max(lengths))
    ids, learned = np.full(shape, processor.pad, dtype=np.int64), np.zeros(shape, dtype=bool)
    positions = np.zeros((3, *shape), dtype=np.int64)
    images: list[str] = []
    for number, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        tokens = [token for segment in row for token in segment.tokens]
        own = [image for segment in row for image in segment.images]
        ids[number, :length] = tokens
        learned[number, :length] = [segment.source == "model" for segment in row for _ in segment.tokens]
        positions[:, number, :length] = processor.positions(tokens, [vision.grid(image) for image in own])[0]
        images += own
    learned[:, 0] = False
    on_device = [torch.from_numpy(array).to(device) for array in (ids, learned, positions)]
    return Batch(on_device[0], on_device[1], on_device[2], tuple(images))


def forward(
    model: torch.nn.Module, batch: Batch, processor: Processor, vision: Vision
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [k, vocabulary] that predict the k learned tokens, and those tokens [k], row by row.

    The language head runs on the learned tokens only; images enter as features made before.
    """
    inner = core(model)
    embedded = inner.model.language_model.embed_tokens(batch.ids)
    if batch.images:
        features = torch.cat([vision[image] for image in batch.images]).to(embedded.dtype)
        embedded = embedded.masked_scatter((batch.ids == processor.image_pad)[..., None], features)
    hidden = inner.model.language_model(
        inputs_embeds=embedded, position_ids=batch.positions, attention_mask=None, use_cache=False
    ).last_hidden_state
    learned = batch.learned[:, 1:]
    return inner.lm_head(hidden[:, :-1][learned]), batch.ids[:, 1:][learned]


def logprobs(logits: torch.Tensor, tokens: torch.Tensor, processor: Processor, temperature: float) -> torch.Tensor:
    """Log-prob [k] of each token under the sampling distribution: never-sampled tokens masked, temperature applied."""
    suppressed = torch.tensor(processor.suppress_tokens, device=logits.device)
    scaled = logits.float().index_fill(1, suppressed, float("-inf")) / temperature
    return scaled.log_softmax(-1).gather(1, tokens[:, None])[:, 0]
