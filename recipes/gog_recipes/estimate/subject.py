"""The policy of a stage on fake tensors, one rank of several: built from config.json, adapted and sharded by the recipes' code."""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.distributed
import transformers
from peft import LoraConfig, PeftModel

from gog.errors import UserError
from gog.spec import EvaluateConfig, GRPOConfig, Offload, SFTConfig, StageConfig
from gog_recipes import models
from gog_recipes.estimate.meter import Item, Meter, Moments
from gog_recipes.estimate.shapes import Shapes
from gog_recipes.models import checkpointing, experts, loading, lora, lora_linear, nf4, policy_model
from gog_recipes.runtime import parallel
from gog_recipes.runtime.ranks import Ranks

T = TypeVar("T")
DEPTHS = (2, 3)
"""Decoder layers of the models that are traced: where one is sharded, two have their weights gathered at a time."""
ROUNDS = 3
"""Rounds that are traced of a loop over equal slices of rows; a further one allocates what the third does."""
TRACED_WHOLE = 8
"""Layers up to which a model is traced as it is."""


@dataclass(frozen=True)
class OneOfMany(Ranks):
    """The first of several ranks, which are all alike and do not exist."""

    def gather(self, item: T) -> list[T]:
        """Every rank's item."""
        return [item] * self.size


@dataclass(frozen=True)
class Subject:
    """A policy on fake tensors."""

    model: torch.nn.Module
    """With adapters, sharded where there are several ranks."""
    config: Any
    """Its configuration (transformers)."""
    layers: int
    """Decoder layers that it has."""
    of: int
    """Decoder layers of the model that it stands for."""
    meter: Meter
    """Counts its memory."""
    shapes: Shapes
    """Makes its tensors."""
    ranks: Ranks
    """Among which it is sharded."""
    loading: dict[str, Moments]
    """Peaks while it was loaded and sharded."""
    tower: parallel.Tower | None
    """Shards of its vision tower; None for one rank."""
    kept: list[Any] = field(default_factory=list)
    """What must live as long as the policy does: its optimizer."""

    @contextlib.contextmanager
    def traced(self) -> Iterator[Meter]:
        """A context in which code runs on fake tensors and is measured, its peaks from here on."""
        self.meter.restart()
        with self.shapes, self.meter, _few_rounds():
            yield self.meter

    def gather_tower(self) -> None:
        """Makes the vision tower whole, as for encoding images."""
        if self.tower is not None:
            with self.meter.label(Item.GATHERED):
                self.tower.gather()

    def release_tower(self) -> None:
        """Divides the vision tower again."""
        if self.tower is not None:
            self.tower.release()


@contextlib.contextmanager
def _few_rounds() -> Iterator[None]:
    """Ends the loops of adapted linears, which are most operations of a pass, after ROUNDS rounds."""
    every = lora_linear._rows
    lora_linear._rows = lambda widest, n: itertools.islice(every(widest, n), ROUNDS)
    try:
        yield
    finally:
        lora_linear._rows = every


def depths(config: Mapping[str, Any]) -> tuple[int, ...]:
    """Decoder layers of the models to trace for a config.json."""
    layers = _layers(config)
    return (layers,) if layers <= TRACED_WHOLE else DEPTHS


def build(config: Mapping[str, Any], cfg: StageConfig, layers: int, *, frozen: int, ranks: int) -> Subject:
    """The policy of a stage.

    Args:
        config: config.json of the base model
        cfg: of the stage
        layers: decoder layers to build
        frozen: rank of the saved adapters beneath the policy, all together; 0 for none
        ranks: processes among which a policy that is trained is sharded

    Raises:
        UserError: transformers does not build a model from this configuration.
    """
    of = _layers(config)
    shapes, group = Shapes(), OneOfMany(0, ranks if isinstance(cfg, (SFTConfig, GRPOConfig)) else 1)
    with torch.device("meta"):
        base = _model(config, layers, getattr(torch, cfg.model.dtype))
        if getattr(cfg, "base_quantization", "none") != "none":
            policy_model.quantize(base, torch.device("meta"))
        model = _adapted(base, cfg, frozen)
    inner = policy_model.core(model)
    text = inner.config.get_text_config()
    offload: Offload = getattr(cfg, "offload", "none")
    meter = Meter(text.vocab_size, offloaded=offload == "cpu" and group.size > 1)
    with shapes, meter:
        _materialize(model, shapes)
        meter.hold_model(model)
        if isinstance(cfg, (SFTConfig, GRPOConfig)):
            text.num_hidden_layers = of  # by which `auto` is decided
            checkpointing.apply(model, cfg.activation_checkpointing, cfg.micro_batch_tokens)
            text.num_hidden_layers = layers
        loading, tower = meter.now(), None
        if group.size > 1:
            _join(ranks)
            tower = parallel.shard(model, group, offload, meter.begin)
            meter.hold_model(model)
    moments = {"whole": loading} | meter.peaks
    return Subject(model, inner.config, layers, of, meter, shapes, group, {"loading": moments}, tower)


def _adapted(model: torch.nn.Module, cfg: StageConfig, frozen: int) -> torch.nn.Module:
    """The model with the adapters of a stage."""
    if frozen and (not lora.merges(model) or isinstance(cfg, EvaluateConfig)):
        family = policy_model.family_of(model)
        parts = list(family.lora_parameters) or None
        below = LoraConfig(r=frozen, lora_alpha=frozen, target_modules=family.lora_targets, target_parameters=parts)
        with experts.findable(model):
            model = PeftModel(model, below, adapter_name=lora.FROZEN).requires_grad_(False).eval()
        lora_linear.install(model)
    return lora.add(model, cfg.lora) if isinstance(cfg, (SFTConfig, GRPOConfig)) else model


def _text(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The language model's part of config.json, which older files have at the root."""
    nested = config.get("text_config")
    return nested if isinstance(nested, Mapping) else config


def _layers(config: Mapping[str, Any]) -> int:
    """Decoder layers of a config.json."""
    found = _text(config).get("num_hidden_layers")
    if type(found) is not int or found < 1:
        raise UserError(f"num_hidden_layers is {found!r}", where="config.json", remedy="use the base model's own file")
    return found


def _model(config: Mapping[str, Any], layers: int, dtype: torch.dtype) -> torch.nn.Module:
    changed = copy.deepcopy(dict(config))
    text = changed.get("text_config") if isinstance(changed.get("text_config"), dict) else changed
    text["num_hidden_layers"] = layers  # type: ignore[index]
    text.pop("layer_types", None)  # type: ignore[union-attr]
    models.family(str(changed.get("model_type")))  # of another one nothing is known
    try:
        settings = transformers.AutoConfig.for_model(**changed)
        architecture = getattr(transformers, changed["architectures"][0])
        model = architecture._from_config(settings, dtype=dtype, attn_implementation="sdpa")
    except Exception as error:  # noqa: BLE001 (of many types, because each field is checked by other code)
        what = f"transformers builds no model from it: {type(error).__name__}: {loading.brief(error)}"
        raise UserError(what, where="config.json", remedy="use the base model's own file") from None
    found: torch.nn.Module = model.requires_grad_(False).eval()
    return found


def _materialize(model: torch.nn.Module, shapes: Shapes) -> None:
    """Replaces the parameters and buffers of a model on the meta device by fake ones on the CPU; tied ones stay tied."""
    made: dict[int, torch.Tensor] = {}
    for module in model.modules():
        for name, each in (*module._parameters.items(), *module._buffers.items()):
            if each is None:
                continue
            if id(each) not in made:
                with shapes.fake if each.dtype is torch.uint8 else contextlib.nullcontext():  # packed weights
                    fresh = torch.empty(each.shape, dtype=each.dtype)
                is_weight = isinstance(each, torch.nn.Parameter)
                made[id(each)] = torch.nn.Parameter(fresh, each.requires_grad) if is_weight else fresh
            (module._parameters if name in module._parameters else module._buffers)[name] = made[id(each)]


def _join(ranks: int) -> None:
    """Makes this process the first of a group whose other members do not exist: collectives return at once."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    if torch.distributed.is_initialized():  # of another stage
        torch.distributed.destroy_process_group()
    torch.distributed.init_process_group("fake", rank=0, world_size=ranks, store=FakeStore())


@dataclass(frozen=True)
class Parameters:
    """Counts of a base model."""

    total: int
    """All parameters."""
    active: int
    """Those of the language model that take part in a token: of the experts only the chosen ones."""
    quantizable: int
    """Those that a quantized base packs; 0 where one of its weights does not divide into blocks."""
    token_elements: int
    """Elements of the key-value cache per token."""


def _quantizable(layers: torch.nn.Module) -> int:
    """Weights of decoder layers that can be packed: all that `quantize_layers` packs, or none."""
    packed = copy.deepcopy(layers)
    try:
        policy_model.quantize_layers(packed, torch.device("meta"))
    except UserError:  # as a stage would stop with, if the base were quantized
        return 0
    return nf4.count(packed)


def parameters(config: Mapping[str, Any]) -> Parameters:
    """Counts of the base model of a config.json. Raises UserError as `build` does."""
    depth = _layers(config)
    with torch.device("meta"):
        model = _model(config, 1, torch.float32)
    text = policy_model.core(model).config.get_text_config()
    language = policy_model.language_model(model)
    layer = sum(each.numel() for each in language.layers.parameters())
    experts = sum(each.numel() for name, each in language.layers.named_parameters() if ".experts." in name)
    chosen = experts * text.num_experts_per_tok // text.num_experts if experts else 0
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return Parameters(
        total=sum(each.numel() for each in model.parameters()) + (depth - 1) * layer,
        quantizable=depth * _quantizable(language.layers),
        active=depth * (layer - experts + chosen) + text.vocab_size * text.hidden_size,
        token_elements=2 * depth * text.num_key_value_heads * size,
    )
