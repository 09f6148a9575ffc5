"""LoRA adapters of the policy: saved ones that later stages build on, a fresh one to train, the reference without it.

Saved adapters are merged into float32 weights. Into weights of lower precision, or in 4 bits, they must not be: an update
of RL is smaller than the gap between two bfloat16 numbers, and most of it would be rounded away. There they stay beside
the weights, joined into one frozen adapter; the trained one is a float32 parameter beside it, and neither is rounded away
in the forward pass (`lora_linear`).

PEFT only warns about saved weights that have no place in the model, and leaves them without effect: an adapter of
another base model would be evaluated as if it were none. So a saved adapter is checked against the model first, by
the names and shapes in its file.
"""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper
from peft.tuners.tuners_utils import check_target_module_exists
from safetensors.torch import load_file

from gog import adapters, tensors
from gog.errors import UserError
from gog.spec import LoraSettings
from gog_recipes.models import (
    experts,  # its forward takes the place of PEFT's
    lora_linear,
    nf4,
    peft_compat,  # noqa: F401  (before peft applies an adapter)
    policy_model,
)

FILES = (adapters.WEIGHTS, adapters.CONFIG)
"""An adapter on disk, as PEFT saves it."""
TRAINED, FROZEN = "default", "frozen"
"""Names of the adapter that a stage trains, and of those it builds on where they are not merged."""


def with_saved(model: torch.nn.Module, folders: Sequence[Path]) -> torch.nn.Module:
    """The frozen policy of a base model and saved adapters.

    Args:
        model: without adapters
        folders: the adapters as PEFT saves them, in the order in which they were trained

    Raises:
        UserError: as `check` does.
    """
    for folder in folders:
        check(model, folder)
    if merges(model):
        for folder in folders:
            model = PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
    elif folders:
        with tempfile.TemporaryDirectory() as scratch:
            joined = adapters.join(folders, Path(scratch) / "joined")
            with experts.findable(model):
                model = PeftModel.from_pretrained(model, str(joined), adapter_name=FROZEN)
        lora_linear.install(model)
    return model.requires_grad_(False).eval()


def beside(model: torch.nn.Module, folders: Mapping[str, Path]) -> torch.nn.Module:
    """The frozen base model with saved adapters beside its weights of any precision, for several policies of one base.

    Args:
        model: without adapters
        folders: the adapters as PEFT saves them, by name; none of them takes part until `activate` says so

    Raises:
        UserError: as `check` does.
    """
    for folder in folders.values():
        check(model, folder)
    with experts.findable(model):
        for name, folder in folders.items():
            if isinstance(model, PeftModel):
                model.load_adapter(str(folder), name)
            else:
                model = PeftModel.from_pretrained(model, str(folder), adapter_name=name)
    lora_linear.install(model)
    activate(model, ())
    return model.requires_grad_(False).eval()


def activate(model: torch.nn.Module, names: Sequence[str]) -> None:
    """Lets saved adapters take part, and no others.

    Args:
        model: as `beside` returns it
        names: of the adapters, in the order in which they were trained; none for the base model
    """
    if not isinstance(model, PeftModel):
        assert not names, names
        return
    if names:
        model.base_model.enable_adapter_layers()
        model.base_model.set_adapter(list(names), inference_mode=True)
    else:
        model.base_model.disable_adapter_layers()


def merges(model: torch.nn.Module) -> bool:
    """Whether saved adapters are merged into the weights of a model, which hold the sums without loss."""
    return next(model.parameters()).dtype == torch.float32 and not nf4.count(model)


def add(model: torch.nn.Module, settings: LoraSettings) -> PeftModel:
    """The model with a fresh trainable adapter, which changes nothing until it is trained.

    Args:
        model: without adapters, or as `with_saved` returns it
        settings: of the adapter

    Raises:
        UserError: dropout for a model with experts.
    """
    family = policy_model.family_of(model)
    if family.lora_parameters and settings.dropout:
        raise UserError(
            f"{settings.dropout} for a model with experts, whose adapters have no dropout",
            where="lora.dropout",
            remedy="set it to 0",
        )
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=family.lora_targets,
        target_parameters=list(family.lora_parameters) or None,
    )
    if not isinstance(model, PeftModel):
        with experts.findable(model):
            fresh = get_peft_model(model, config, TRAINED)
        lora_linear.install(fresh)
        return fresh
    with experts.findable(model):
        model.add_adapter(TRAINED, config)
    lora_linear.install(model)
    model.base_model.set_adapter([FROZEN, TRAINED])
    for name, parameter in model.named_parameters():  # set_adapter makes every adapter trainable that it activates
        parameter.requires_grad_(f".{TRAINED}." in name)
    return model


@contextlib.contextmanager
def reference(model: PeftModel) -> Iterator[torch.nn.Module]:
    """The policy before RL: the model without the adapter that is trained, and without gradients."""
    if FROZEN not in model.peft_config:
        with model.disable_adapter(), torch.no_grad():
            yield model
        return
    with torch.no_grad(), _without(model, (TRAINED,)):
        yield model


class Removal:
    """Takes all adapters away from a policy for a while, the saved ones too, which may be merged into its weights.

    What was merged is computed beside the linears again, and subtracted. That leaves float32 rounding, and no copy of the
    base weights is needed. What was merged into experts stays.

    Args:
        model: as `add` returns it
        saved: adapters beneath the trained one, as PEFT saves them

    Attributes:
        changes: whether the saved adapters change anything
    """

    def __init__(self, model: PeftModel, saved: Sequence[Path]) -> None:
        self._model = model
        read = [adapters.read(each / adapters.CONFIG, each / adapters.WEIGHTS, where=str(each)) for each in saved]
        self.changes = any(bool(pair[1].any()) for each in read for pair in each.pairs.values())
        merged = [] if FROZEN in model.peft_config else read
        device = policy_model.device_of(model)  # shards may be kept on another one
        self._updates: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}
        for each in merged:
            for module, (a, b) in each.pairs.items():
                if adapters.experts_parameter(module):
                    continue
                pair = (torch.from_numpy(a).to(device), torch.from_numpy(b * each.scaling).to(device))
                self._updates.setdefault(module.removeprefix(adapters.PREFIX), []).append(pair)

    @contextlib.contextmanager
    def removed(self) -> Iterator[None]:
        """The base model, without gradients."""
        places = dict(policy_model.core(self._model).named_modules())
        hooks = [places[name].register_forward_hook(_subtract(each)) for name, each in self._updates.items()]
        try:
            with torch.no_grad(), _without(self._model, (TRAINED, FROZEN)):
                yield
        finally:
            for hook in hooks:
                hook.remove()


def _subtract(updates: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> Callable[..., torch.Tensor]:
    def hook(_module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        for a, b in updates:
            output = output - (inputs[0] @ a.T) @ b.T
        return output

    return hook


@contextlib.contextmanager
def multiplied(model: torch.nn.Module, factor: Callable[[str], float]) -> Iterator[None]:
    """The model with the updates of all its adapters multiplied.

    Args:
        model: with adapters
        factor: of a module's updates, by the module's name
    """
    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer)]
    before = [dict(layer.scaling) for _, layer in layers]
    try:
        for name, layer in layers:
            layer.scaling.update({each: factor(name) * value for each, value in layer.scaling.items()})
        yield
    finally:
        for (_, layer), scaling in zip(layers, before, strict=True):
            layer.scaling.update(scaling)


@contextlib.contextmanager
def _without(model: PeftModel, names: Sequence[str]) -> Iterator[None]:
    """The model without these adapters, which stay in place."""
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    before = [dict(layer.scaling) for layer in layers]
    try:
        for layer in layers:
            layer.scaling.update({name: 0.0 for name in names if name in layer.scaling})
        yield
    finally:
        for layer, scaling in zip(layers, before, strict=True):
            layer.scaling.update(scaling)


def check(model: torch.nn.Module, folder: Path) -> None:
    """Whether a saved adapter belongs to a model, and is whole.

    Args:
        model: with or without adapters applied
        folder: the adapter as PEFT saves it

    Raises:
        UserError: for files that are missing or torn, another kind of adapter, weights without a place in the model or of
            another shape or rank, modules that the family does not adapt, targeted modules without weights, and weights
            that are not finite.
    """
    for name in FILES:
        if not (folder / name).is_file():
            raise UserError(f"{name} is missing", where=str(folder), remedy="save adapters with peft, as safetensors")
    _check_kind(folder)
    shapes = {name: entry.shape for name, entry in tensors.header(folder / adapters.WEIGHTS).items()}
    places = linears(model)
    changed = adapters.check_places(shapes, places, where=str(folder))
    _check_adapted(model, changed, folder)
    config = LoraConfig.from_pretrained(str(folder))
    if not config.rank_pattern:
        adapters.check_rank(shapes, config.r, where=str(folder))
    targeted = {name for name in places if check_target_module_exists(config, name)}
    targeted |= {name for name in places if config.target_parameters and adapters.experts_parameter(name)}
    if without := targeted - changed:
        raise UserError(
            f"{len(without)} of {len(targeted)} modules that it targets have no weights in it, such as {min(without)}",
            where=str(folder),
            remedy="save the whole adapter",
        )
    for name, values in load_file(folder / adapters.WEIGHTS).items():
        if not bool(values.isfinite().all()):
            raise UserError(f"{name} is not finite", where=str(folder), remedy="use an earlier checkpoint")


def _check_adapted(model: torch.nn.Module, changed: set[str], folder: Path) -> None:
    """Raises UserError for modules that the family does not adapt: decoder and learner would ignore their weights."""
    family = policy_model.family_of(model)
    others = {name for name in changed if not re.fullmatch(family.lora_targets, name)}
    others -= {name for name in others if adapters.experts_parameter(name).endswith(family.lora_parameters)}
    if others:
        raise UserError(
            f"{len(others)} of {len(changed)} modules that it changes are not adapted here, such as {min(others)}",
            where=str(folder),
            remedy="train an adapter of the language model's linears only",
        )


def _check_kind(folder: Path) -> None:
    path = folder / adapters.CONFIG
    try:
        config = json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f"not JSON: {error}", where=str(path)) from None
    if not isinstance(config, dict) or config.get("peft_type") != "LORA" or config.get("modules_to_save"):
        raise UserError("only LoRA adapters without modules_to_save are supported", where=str(folder))


def linears(model: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """Shape (out, in) of the weight of each linear by module name, without the parts of applied adapters.

    Experts count as two linears, under the names that their adapters have.
    """
    found: dict[str, tuple[int, ...]] = {}
    for name, module in policy_model.core(model).named_modules():
        if isinstance(module, ParamWrapper):
            found[name] = tuple(module.get_param().shape[1:])
        elif name.endswith(".experts") and hasattr(module, "gate_up_proj"):
            found[name], found[f"{name}.base_layer"] = (
                tuple(module.down_proj.shape[1:]),
                tuple(module.gate_up_proj.shape[1:]),
            )
        elif isinstance(module, LoraLayer):
            found[name] = tuple(nf4.weight_of(module.get_base_layer()).shape)
        elif isinstance(module, torch.nn.Linear) and ".lora_" not in name and not name.endswith(".base_layer"):
            found[name] = tuple(nf4.weight_of(module).shape)
    return found
