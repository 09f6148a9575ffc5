"""Adapters joined into one that a server of the plain base model can apply.

A GRPO checkpoint's adapter was trained on base + SFT adapter *merged*, so by itself it is half of the policy: a server
that holds the base needs one adapter equal to both. Low-rank updates are summed by concatenation: the As by rows, the Bs
by columns, each B times its own scaling; the scaling of the result is 1. That is exact up to the rounding of that one
product. Ranks are padded with zeros to the next one that vLLM accepts.

What cannot be joined exactly (whole modules saved, DoRA, ranks that differ by module, weights folded into the base at
initialisation) is refused, never approximated. Nothing here needs torch.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gog import base_model, store, tensors
from gog.errors import UserError, unwritable

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM accepts as --max-lora-rank."""
PREFIX, A, B = "base_model.model.", ".lora_A.weight", ".lora_B.weight"
WITHOUT_EFFECT = {
    "task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    "r", "lora_alpha", "use_rslora", "lora_dropout", "target_modules", "exclude_modules", "layers_to_transform",
    "layers_pattern", "megatron_core", "qalora_group_size", "target_parameters",
}  # fmt: skip
"""Settings that describe how an adapter was made, or that are read here; any other one changes what it computes."""
PLAIN: dict[str, tuple[Any, ...]] = {"bias": ("none",), "init_lora_weights": (True, False, "gaussian")}


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter; the update of a module's weight is scaling · B A."""

    rank: int
    """Rows of every A, columns of every B."""
    scaling: float
    """Factor of every update."""
    dtype: str
    """Type of the weights as saved: `BF16`."""
    pairs: dict[str, tuple[np.ndarray, np.ndarray]]
    """A [rank, in] and B [out, rank] by module, both float32; of experts A [experts · rank, in], those of an expert
    together, and B [out, rank · experts], those of a rank together, as PEFT and vLLM have them."""


EXPERTS = {".experts.base_layer": "gate_up_proj", ".experts": "down_proj"}
"""Parameters of a layer of experts by the ends of the names that PEFT saves their adapters under."""


def experts_parameter(module: str) -> str:
    """The full name of the parameter of experts that the adapter of this name changes; empty for a linear's."""
    for end, parameter in EXPERTS.items():
        if module.endswith(end):
            return f"{module.removesuffix('.base_layer')}.{parameter}"
    return ""


def fetch_servable(
    checkpoints: store.Store, ref: str, folder: Path, *, base: base_model.Identity | None = None
) -> Path:
    """A checkpoint's policy as one adapter on the plain base.

    Args:
        checkpoints: where it is
        ref: `stage/step`, or a stage for its newest
        folder: where the adapter goes; it appears whole or not at all
        base: the base model that it will be applied to; None if that is not known

    Raises:
        UserError: the checkpoint is missing, corrupt or holds no adapter, or was trained on another base model; the
            folder exists already.
    """
    if folder.exists():
        raise UserError("exists already", where=str(folder), remedy="fetch into a new folder")
    chain = lineage(checkpoints, ref)
    if base is not None:
        for each in chain:
            base_model.compare(each.meta.get(base_model.RECORD), base, ref=each.ref)
    layers = [read(checkpoints.open(each, CONFIG), checkpoints.open(each, WEIGHTS), where=each.ref) for each in chain]
    return _write(_joined(layers), folder)


def lineage(checkpoints: store.Store, ref: str) -> list[store.Manifest]:
    """The checkpoints whose adapters make up a policy, the one merged first at the front.

    A stage merges the adapters of the checkpoints that it starts from into its weights, so the parents of a checkpoint
    that hold an adapter come before it.
    """
    manifest = checkpoints.resolve(ref)
    if WEIGHTS not in manifest.files:
        raise UserError(
            f"checkpoint {manifest.ref} holds no adapter", where="version", remedy="name one of sft or grpo"
        )
    chain = [manifest]
    while True:
        parents = [checkpoints.resolve(parent) for parent in chain[0].parents]
        beneath = [parent for parent in parents if WEIGHTS in parent.files]
        if not beneath:
            return chain
        if len(beneath) > 1 or beneath[0] in chain:
            raise UserError(f"{chain[0].ref} lies on several adapters, whose order is not known", where="version")
        chain.insert(0, beneath[0])


def join(folders: Sequence[Path], target: Path) -> Path:
    """One adapter equal to several.

    Args:
        folders: as PEFT saves them, in the order in which they were merged into the base
        target: where the result goes; it appears whole or not at all

    Returns:
        The target. Its scaling is 1, its rank one of RANKS, its type theirs, or float32 where they differ.

    Raises:
        UserError: for what cannot be joined exactly.
    """
    layers = [read(folder / CONFIG, folder / WEIGHTS, where=str(folder)) for folder in folders]
    return _write(_joined(layers), target)


def read(config: Path, weights: Path, *, where: str) -> Adapter:
    """An adapter as PEFT saves it.

    Args:
        config: its adapter_config.json
        weights: its adapter_model.safetensors
        where: the adapter, for messages

    Raises:
        UserError: naming what is not plain LoRA of linears.
    """
    try:
        settings = json.loads(config.read_bytes())
        rank, alpha = int(settings["r"]), float(settings["lora_alpha"])
        saved = tensors.read(weights)
    except OSError as error:
        raise UserError(f"{Path(error.filename or '').name}: {error.strerror}", where=where) from None
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{CONFIG} is not that of a LoRA adapter: {error!r}", where=where) from None
    _check_settings(settings, where)
    pairs = {module: _pair(module, saved, rank, where) for module in _modules(saved, where)}
    types = {dtype for dtype, _ in saved.values()}
    scaling = alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)
    return Adapter(rank, scaling, types.pop() if len(types) == 1 else "F32", pairs)


def check_places(
    saved: Mapping[str, tuple[int, ...]], linears: Mapping[str, tuple[int, ...]], *, where: str
) -> set[str]:
    """Whether every weight of an adapter has a place in a model.

    Args:
        saved: shape of each tensor by its name in the adapter's file
        linears: shape (out, in) of the weight of each linear by its name in the model
        where: the adapter, for messages

    Returns:
        The linears that the adapter changes.

    Raises:
        UserError: with an example of a name without a place, or of a shape that does not fit. PEFT itself only warns, and
            leaves what has no place without effect.
    """
    modules = {name: name.removeprefix(PREFIX).removesuffix(A).removesuffix(B) for name in saved}
    stray = [name for name, module in modules.items() if module not in linears or not _is_lora_weight(name)]
    if stray or not saved:
        raise UserError(
            f"{len(stray)} of {len(saved)} weights have no place in the base model: the adapter has {min(stray)!r}, "
            f"the model {_example(linears, modules[min(stray)])!r}"
            if stray
            else "holds no weights",
            where=where,
            remedy="name the base model that the adapter was trained on",
        )
    for name, shape in saved.items():
        high, wide = linears[modules[name]]
        fits = shape[1:] == (wide,) if name.endswith(A) else shape[:1] == (high,)
        if len(shape) != 2 or not fits:
            raise UserError(
                f"{name} is {list(shape)}, the model's linear {[high, wide]}",
                where=where,
                remedy="name the base model that the adapter was trained on",
            )
    return set(modules.values())


def _is_lora_weight(name: str) -> bool:
    return name.startswith(PREFIX) and name.endswith((A, B))


def _example(linears: Mapping[str, tuple[int, ...]], stray: str) -> str:
    """The name that a weight would have in an adapter of this model, if possible of a module like one without a place."""
    alike = [name for name in linears if name.rpartition(".")[2] == stray.rpartition(".")[2]]
    return PREFIX + min(alike or linears, default="") + A


def check_rank(saved: Mapping[str, tuple[int, ...]], rank: int, *, where: str) -> None:
    """Raises UserError for a weight of another rank than the adapter's configuration names.

    Args:
        saved: shape of each tensor by its name in the adapter's file
        rank: of the configuration
        where: the adapter, for messages
    """
    for name, shape in saved.items():
        found = shape[0 if name.endswith(A) else 1]
        experts = experts_parameter(name.removesuffix(A).removesuffix(B))
        if found % rank if experts else found != rank:
            raise UserError(
                f"{name} is {list(shape)}, not of rank {rank}",
                where=where,
                remedy=f"keep {CONFIG} and {WEIGHTS} of one adapter together",
            )


def _check_settings(settings: dict[str, Any], where: str) -> None:
    if settings.get("peft_type") != "LORA":
        raise UserError(f"peft_type {settings.get('peft_type')!r} is not LORA", where=where)
    for name, value in settings.items():
        plain = value in PLAIN[name] if name in PLAIN else name in WITHOUT_EFFECT or not value
        if not plain:
            raise UserError(f"{name} {value!r} cannot be joined exactly", where=where, remedy="train plain LoRA")


def _modules(saved: dict[str, tuple[str, np.ndarray]], where: str) -> list[str]:
    odd = [name for name in saved if not _is_lora_weight(name)]
    if odd or not saved:
        raise UserError(f"{odd[0]!r} is no LoRA weight of a linear" if odd else "holds no weights", where=where)
    return sorted({name.removesuffix(A).removesuffix(B) for name in saved})


def _pair(
    module: str, saved: dict[str, tuple[str, np.ndarray]], rank: int, where: str
) -> tuple[np.ndarray, np.ndarray]:
    if module + A not in saved or module + B not in saved:
        raise UserError(f"{module} has only one of A and B", where=where)
    a, b = saved[module + A][1], saved[module + B][1]
    rows = a.shape[0] if experts_parameter(module) and a.ndim == 2 and a.shape[0] % rank == 0 else rank
    if a.ndim != 2 or b.ndim != 2 or a.shape[0] != rows or b.shape[1] != rows:
        raise UserError(f"{module}: shapes {a.shape} and {b.shape} are not of rank {rank}", where=where)
    return a, b


def _joined(layers: Sequence[Adapter]) -> Adapter:
    needed = sum(layer.rank for layer in layers)
    rank = next((rank for rank in RANKS if rank >= needed), 0)
    if not layers or not rank:
        raise UserError(f"a joined rank of {needed}", where="adapters", remedy=f"1 to {RANKS[-1]} can be served")
    types = {layer.dtype for layer in layers}
    modules = sorted({module for layer in layers for module in layer.pairs})
    pairs = {module: _stacked(module, layers, rank) for module in modules}
    return Adapter(rank, 1.0, types.pop() if len(types) == 1 else "F32", pairs)


def _stacked(module: str, layers: Sequence[Adapter], rank: int) -> tuple[np.ndarray, np.ndarray]:
    """A [rank, in] and B [out, rank] of a module; an adapter without the module leaves its part zero."""
    wide = {layer.pairs[module][0].shape[1] for layer in layers if module in layer.pairs}
    high = {layer.pairs[module][1].shape[0] for layer in layers if module in layer.pairs}
    if len(wide) > 1 or len(high) > 1:
        raise UserError(
            f"{module}: adapter shapes differ", where="adapters", remedy="were they trained from the same base model?"
        )
    experts = {layer.pairs[module][0].shape[0] // layer.rank for layer in layers if module in layer.pairs}
    if len(experts) > 1:
        raise UserError(f"{module}: adapters of {sorted(experts)} experts", where="adapters")
    count, inputs, outputs = experts.pop(), wide.pop(), high.pop()
    a, b = np.zeros((count, rank, inputs), np.float32), np.zeros((outputs, rank, count), np.float32)
    start = 0
    for layer in layers:
        if module in layer.pairs:
            rows, columns = layer.pairs[module]
            a[:, start : start + layer.rank] = rows.reshape(count, layer.rank, inputs)
            b[:, start : start + layer.rank] = layer.scaling * columns.reshape(outputs, layer.rank, count)
        start += layer.rank
    return a.reshape(-1, inputs), b.reshape(outputs, -1)


def _write(adapter: Adapter, folder: Path) -> Path:
    weights: dict[str, tuple[str, np.ndarray]] = {}
    for module, (a, b) in adapter.pairs.items():
        weights |= {module + A: (adapter.dtype, a), module + B: (adapter.dtype, b)}
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".joining-") as temporary:
            made = Path(temporary) / "adapter"
            made.mkdir()
            tensors.write(made / WEIGHTS, weights)
            (made / CONFIG).write_text(json.dumps(_config(adapter), indent=1), encoding="utf-8")
            os.rename(made, folder)
    except OSError as error:
        raise unwritable(error, folder) from error
    return folder


def _config(adapter: Adapter) -> dict[str, Any]:
    """Targets are names of whole modules, because a pattern could match a module that none of the adapters changes."""
    names = [module.removeprefix(PREFIX) for module in sorted(adapter.pairs)]
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": adapter.rank,
        "lora_alpha": adapter.rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "use_rslora": False,
        "target_modules": [name for name in names if not experts_parameter(name)],
        "target_parameters": [parameter for name in names if (parameter := experts_parameter(name))] or None,
    }
