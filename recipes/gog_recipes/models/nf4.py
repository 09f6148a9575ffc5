"""Frozen weights in 4 bits (NF4), unpacked at each use, so that a base takes 0.28 of its bytes in bfloat16.

A block of 64 weights keeps its largest magnitude in float32, and of each weight the nearest of 16 fractions of it, which
are the quantiles of a normal distribution: 4.5 bits per weight. Only linears and experts of the decoder layers are
quantized. Norms, biases, routers, embeddings, head and vision tower stay as they are, and adapters are float32 beside
them (QLoRA). No product is made in 4 bits: a weight is unpacked into the type of the base, used, and freed.

torchao's NF4 tensor is not used: it needs weights of a multiple of 16,384 elements in two dimensions (experts have three),
rounds the fractions to four digits, and unpacks through 8-byte indices of all weights at once.

Codes and scales are buffers, so FSDP2 leaves them whole on every rank, and sampling needs no gathered copy of them.

Source:
    Dettmers et al., "QLoRA: Efficient Finetuning of Quantized LLMs", 2023, appendix E; without its quantized scales.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from gog.errors import UserError

BLOCK = 64
"""Weights that share a scale."""
VALUES = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
"""What the 16 codes stand for, as shares of a block's scale."""
CHUNK_BYTES = 64 * 2**20
"""Bytes of float32 values that are packed or unpacked at a time."""


@dataclass(frozen=True)
class Packed:
    """A weight in 4 bits, or several of one shape."""

    codes: torch.Tensor
    """[..., n / 2] uint8: two codes each, the first one in the higher bits."""
    scales: torch.Tensor
    """[..., n / 64] float32: largest magnitude of each block."""
    pairs: torch.Tensor
    """[256, 2] float32: the two values of each byte."""
    shape: torch.Size
    """Of the whole: [..., out, in], with n = out · in."""
    dtype: torch.dtype
    """Of the unpacked weight."""

    @property
    def device(self) -> torch.device:
        """Where it is kept."""
        return self.codes.device

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int) -> Packed:
        """One of several weights."""
        return Packed(self.codes[index], self.scales[index], self.pairs, self.shape[1:], self.dtype)

    @torch.no_grad()
    def unpack(self) -> torch.Tensor:
        """The weight, in a tensor of its own."""
        codes, scales = self.codes.view(-1, BLOCK // 2), self.scales.view(-1, 1)
        out = torch.empty(len(scales), BLOCK, dtype=self.dtype, device=codes.device)
        for part in _chunks(len(scales)):
            values = self.pairs.index_select(0, codes[part].int().flatten()).view(-1, BLOCK)
            out[part] = values.mul_(scales[part])
        return out.view(self.shape)


def whole(weight: torch.Tensor | Packed) -> torch.Tensor:
    """A weight, unpacked if it is packed."""
    return weight.unpack() if isinstance(weight, Packed) else weight


def weight_of(module: torch.nn.Module) -> torch.Tensor | Packed:
    """The weight of a linear as it is kept."""
    return module.packed if isinstance(module, Linear) else module.weight


@torch.no_grad()
def pack(weight: torch.Tensor) -> Packed:
    """Quantizes a weight [..., out, in] of which each [out, in] has a multiple of 64 elements."""
    outer, device = weight.shape[:-2], weight.device
    blocks = weight.reshape(-1, BLOCK)
    scales = blocks.abs().amax(1, keepdim=True).float()
    values = torch.tensor(VALUES, device=device)
    between = (values[1:] + values[:-1]) / 2
    codes = torch.empty(len(blocks), BLOCK // 2, dtype=torch.uint8, device=device)
    for part in _chunks(len(blocks)):
        shares = blocks[part].float() / scales[part].clamp(min=torch.finfo(torch.float32).tiny)
        nearest = torch.bucketize(shares, between, out_int32=True)
        codes[part] = nearest[:, ::2] * 16 + nearest[:, 1::2]
    pairs = torch.tensor(list(itertools.product(VALUES, VALUES)), device=device)
    return Packed(codes.view(*outer, -1), scales.view(*outer, -1), pairs, weight.shape, weight.dtype)


def _chunks(blocks: int) -> Iterator[slice]:
    step = CHUNK_BYTES // (4 * BLOCK)
    return (slice(start, start + step) for start in range(0, blocks, step))


class Linear(torch.nn.Linear):
    """A linear whose weight is packed; made from one in place by `quantize`."""

    dtype: torch.dtype
    """Of the unpacked weight."""
    codes: torch.Tensor
    """See Packed."""
    scales: torch.Tensor
    """See Packed."""
    pairs: torch.Tensor
    """See Packed."""

    @property
    def packed(self) -> Packed:
        """The weight as it is kept."""
        shape = torch.Size((self.out_features, self.in_features))
        return Packed(self.codes, self.scales, self.pairs, shape, self.dtype)

    @property
    def weight(self) -> torch.Tensor:
        """[out, in] unpacked, in a tensor of its own."""
        return self.packed.unpack()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] -> [..., out]. Autograd keeps the unpacked weight; `lora_linear` does not."""
        return F.linear(x, self.weight, self.bias)


def quantize(layers: torch.nn.Module, device: torch.device) -> None:
    """Packs the weight of every linear of some layers, in place, on a device that need not hold them unpacked.

    Raises:
        UserError: for a weight that does not divide into blocks.
    """
    for name, module in layers.named_modules():
        if type(module) is not torch.nn.Linear:
            continue
        packed = replace(module, "weight", device, f"{name}.weight")
        module.__class__ = Linear
        module.dtype = packed.dtype
        for part in ("codes", "scales", "pairs"):
            module.register_buffer(part, getattr(packed, part))


def replace(module: torch.nn.Module, parameter: str, device: torch.device, name: str) -> Packed:
    """Removes a parameter from a module and returns it packed, on a device. Raises UserError as `quantize` does."""
    weight: torch.Tensor = getattr(module, parameter)
    if weight.shape[-2:].numel() % BLOCK:
        raise UserError(
            f"{name} has {weight.shape[-2:].numel()} weights, which do not divide into blocks of {BLOCK}",
            where="base_quantization",
            remedy="set it to none",
        )
    del module._parameters[parameter]
    return pack(weight.to(device))


def count(model: torch.nn.Module) -> int:
    """How many weights of a model are packed; 0 for one that is not quantized."""
    codes = (each for name, each in model.named_buffers() if name.endswith("codes"))
    return sum(2 * each.numel() for each in codes if each.dtype is torch.uint8)
