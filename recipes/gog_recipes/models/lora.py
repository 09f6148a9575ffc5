"""LoRA adapters of the policy: a fresh one to train, a saved one applied or merged, the reference without one.

PEFT only warns about saved weights that have no place in the model, and leaves them without effect: an adapter of
another base model would be evaluated as if it were none. So a saved adapter is checked against the model first, by
the names and shapes in its file.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import check_target_module_exists
from safetensors.torch import load_file

from gog import adapters, tensors
from gog.errors import UserError
from gog.spec import LoraSettings
from gog_recipes.models import (
    peft_compat,  # noqa: F401  (before peft applies an adapter)
    policy_model,
)

FILES = (adapters.WEIGHTS, adapters.CONFIG)
"""An adapter on disk, as PEFT saves it."""


def add(model: torch.nn.Module, settings: LoraSettings) -> PeftModel:
    """The model with a fresh trainable adapter, which changes nothing until it is trained."""
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=policy_model.family_of(model).lora_targets,
    )
    return get_peft_model(model, config)


def apply(model: torch.nn.Module, folder: Path) -> PeftModel:
    """The model with a saved adapter on top.

    Args:
        model: without an adapter
        folder: the adapter as PEFT saves it

    Raises:
        UserError: as `check` does.
    """
    check(model, folder)
    return PeftModel.from_pretrained(model, str(folder))


def merge(model: torch.nn.Module, folder: Path) -> torch.nn.Module:
    """The model with a saved adapter folded into its weights. Raises UserError as `check` does."""
    merged = apply(model, folder).merge_and_unload()
    return merged.requires_grad_(False).eval()


@contextlib.contextmanager
def reference(model: PeftModel) -> Iterator[torch.nn.Module]:
    """The policy before RL: the model with its adapter switched off, without gradients."""
    with model.disable_adapter(), torch.no_grad():
        yield model


def check(model: torch.nn.Module, folder: Path) -> None:
    """Whether a saved adapter belongs to a model, and is whole.

    Args:
        model: with or without adapters applied
        folder: the adapter as PEFT saves it

    Raises:
        UserError: for files that are missing or torn, another kind of adapter, weights without a place in the model or of
            another shape, targeted modules without weights, and weights that are not finite.
    """
    for name in FILES:
        if not (folder / name).is_file():
            raise UserError(f"{name} is missing", where=str(folder), remedy="save adapters with peft, as safetensors")
    _check_kind(folder)
    shapes = {name: entry.shape for name, entry in tensors.header(folder / adapters.WEIGHTS).items()}
    places = linears(model)
    changed = adapters.check_places(shapes, places, where=str(folder))
    config = LoraConfig.from_pretrained(str(folder))
    targeted = {name for name in places if check_target_module_exists(config, name)}
    if without := targeted - changed:
        raise UserError(
            f"{len(without)} of {len(targeted)} modules that it targets have no weights in it, such as {min(without)}",
            where=str(folder),
            remedy="save the whole adapter",
        )
    for name, values in load_file(folder / adapters.WEIGHTS).items():
        if not bool(values.isfinite().all()):
            raise UserError(f"{name} is not finite", where=str(folder), remedy="use an earlier checkpoint")


def _check_kind(folder: Path) -> None:
    path = folder / adapters.CONFIG
    try:
        config = json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f"not JSON: {error}", where=str(path)) from None
    if not isinstance(config, dict) or config.get("peft_type") != "LORA" or config.get("modules_to_save"):
        raise UserError("only LoRA adapters without modules_to_save are supported", where=str(folder))


def linears(model: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """Shape (out, in) of the weight of each linear by module name, without the parts of applied adapters."""
    found: dict[str, tuple[int, ...]] = {}
    for name, module in policy_model.core(model).named_modules():
        if isinstance(module, LoraLayer):
            found[name] = tuple(module.get_base_layer().weight.shape)
        elif isinstance(module, torch.nn.Linear) and ".lora_" not in name and not name.endswith(".base_layer"):
            found[name] = tuple(module.weight.shape)
    return found
