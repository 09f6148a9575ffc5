"""A training stage's checkpoint: everything needed to resume exactly where it ended.

    adapter_model.safetensors, adapter_config.json    the adapter, in PEFT's own form
    optimizer.safetensors                             the optimizer's tensors by parameter name; of several ranks each
                                                      writes its own rows: optimizer-00001-of-00002.safetensors
    metrics.jsonl                                     one line per step so far
    state.json                                        steps done
    last_adapter.safetensors                          the adapter after the last step, where another one is published

Pods share no disk: each rank uploads its own rows to the store, and one manifest makes them a checkpoint. A reader
concatenates them, so a stage may resume with another number of ranks than it began with.

No random state is saved: every draw (order, noise, initialisation) follows from seed and step.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from gog import base_model, store
from gog.spec import Offload
from gog_recipes.models import lora
from gog_recipes.runtime import parallel, resumption
from gog_recipes.runtime.ranks import Ranks
from gog_recipes.runtime.stage import Stage

LAST = "last_adapter.safetensors"
"""The weights to resume from, where they are not those that are published."""
NAMED = 100
"""Skipped items that a checkpoint names; the log names all."""


def skipped(reasons: Mapping[str, str]) -> dict[str, object]:
    """Fields of a checkpoint's meta about what the stage skipped.

    Args:
        reasons: why, by id

    Returns:
        `skipped`, how many; `skipped_ids`, the first of them.
    """
    return {"skipped": len(reasons), "skipped_ids": list(reasons)[:NAMED]}


def trainable(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The trained parameters by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def fingerprint(model: torch.nn.Module) -> str:
    """A digest of the trained parameters, the same for any number of ranks. All ranks at once."""
    digest = hashlib.blake2b(digest_size=16)
    for name, parameter in sorted(trainable(model).items()):
        digest.update(name.encode())
        digest.update(parallel.full(parameter).detach().cpu().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def save(
    stage: Stage,
    step: int,
    model: PeftModel,
    optimizer: torch.optim.Optimizer,
    *,
    meta: Mapping[str, object],
    parents: Sequence[store.Manifest],
    extra: Mapping[str, Path] | None = None,
    published: Path | None = None,
) -> None:
    """Commits adapter, optimizer and metric log as a checkpoint. All ranks at once.

    Args:
        stage: whose checkpoint it is
        step: steps done
        model: with the adapter that is trained
        optimizer: over the trained parameters
        meta: figures for readers; `total` is the last step, whose checkpoint completes the stage
        parents: checkpoints of earlier stages that it was made from
        extra: further files by name
        published: weights from which later stages start in place of the present ones, which the stage still resumes from
    """
    folder = stage.workdir / "checkpoint"
    folder.mkdir(exist_ok=True)
    save_adapter(model, whole_adapter(model), folder)
    rows = folder / optimizer_file(stage.ranks)
    save_file(_optimizer_tensors(model, optimizer), rows)
    (folder / "state.json").write_text(json.dumps({"step": step}))
    files = {name: folder / name for name in (*lora.FILES, "state.json")}
    files |= {"metrics.jsonl": stage.metric_log.path} | dict(extra or {})
    if published is not None:
        (folder / lora.FILES[0]).replace(folder / LAST)
        files |= {LAST: folder / LAST, lora.FILES[0]: published}
    complete = step >= int(str(meta["total"]))
    meta = {**meta, base_model.RECORD: stage.base.identity.document()}
    stage.publish(step, files, meta=meta, parents=list(parents), complete=complete, own={rows.name: rows})


def whole_adapter(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The trained parameters by name, whole on every rank. All ranks at once."""
    return {name: parallel.full(parameter).detach() for name, parameter in trainable(model).items()}


def save_adapter(model: PeftModel, adapter: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Writes the adapter that is trained, in PEFT's own form; adapter: what `whole_adapter` returned."""
    model.save_pretrained(
        str(folder), state_dict=dict(adapter), safe_serialization=True, selected_adapters=[lora.TRAINED]
    )


def write_weights(adapter: Mapping[str, torch.Tensor], path: Path) -> None:
    """Writes the weights of an adapter as `save_adapter` does, without its configuration."""
    named = {_saved_name(name): each.contiguous().cpu() for name, each in adapter.items()}
    save_file(named, path, metadata={"format": "pt"})


def _saved_name(parameter: str) -> str:
    """Name of a trained parameter in PEFT's own files."""
    return parameter.replace(f".{lora.TRAINED}.", ".")


def optimizer_file(ranks: Ranks) -> str:
    """Name of the file with this rank's rows of the optimizer's tensors."""
    return (
        "optimizer.safetensors" if ranks.size == 1 else f"optimizer-{ranks.rank + 1:05}-of-{ranks.size:05}.safetensors"
    )


def resume(
    stage: Stage,
    model: PeftModel,
    optimizer: torch.optim.Optimizer,
    offload: Offload,
    parents: Sequence[store.Manifest],
) -> int:
    """Loads the stage's newest checkpoint into model, optimizer and metric log. All ranks at once.

    Args:
        stage: whose checkpoint it is
        model: with the adapter that is trained
        optimizer: over the trained parameters
        offload: whether the optimizer's state is on the CPU between steps
        parents: checkpoints of earlier stages that the stage starts from

    Returns:
        The steps done; 0 without a checkpoint.

    Raises:
        UserError: its adapter was trained on another base model, or on other checkpoints.
    """
    manifest = stage.ranks.broadcast(stage.store.latest(stage.key))
    if manifest is None:
        return 0
    stage.base.require(manifest, stage.log)
    resumption.require_parents(manifest, parents, stage.config.store.uri)
    saved = load_file(stage.store.open(manifest, LAST if LAST in manifest.files else lora.FILES[0]))
    for name, parameter in trainable(model).items():
        parameter.data.copy_(parallel.like(saved[_saved_name(name)], parameter))
    shards = sorted(name for name in manifest.files if name.startswith("optimizer"))
    _load_optimizer(model, optimizer, [load_file(stage.store.open(manifest, name)) for name in shards], offload)
    stage.metric_log.resume(stage.store.open(manifest, "metrics.jsonl"))
    stage.log(f"resumes from step {manifest.step}")
    return manifest.step


def _optimizer_tensors(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """This rank's rows of the optimizer's tensors by `parameter|entry`; scalars (the step) are on every rank."""
    names = {id(parameter): name for name, parameter in trainable(model).items()}
    return {
        f"{names[id(parameter)]}|{key}": parallel.own(value.detach()).clone()
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
        if isinstance(value, torch.Tensor)
    }


def _load_optimizer(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    shards: Sequence[Mapping[str, torch.Tensor]],
    offload: Offload = "none",
) -> None:
    """Restores the optimizer's state where the optimizer keeps it between steps.

    Args:
        model: gives the parameters by name
        optimizer: over those parameters
        shards: the tensors of every rank that wrote the checkpoint, in rank order
        offload: whether that is the CPU; else it is where each parameter is
    """
    parameters = trainable(model)
    on_device = {id(p) for group in optimizer.param_groups if _steps_on_device(group) for p in group["params"]}
    for key, first in shards[0].items():
        name, _, entry = key.partition("|")
        parameter = parameters[name]
        if not first.dim():  # the step, which torch keeps on the CPU unless the optimizer runs on the device as a whole
            place = parameter.device if id(parameter) in on_device else first.device
            optimizer.state[parameter][entry] = first.clone().to(place)
            continue
        whole = torch.cat([shard[key] for shard in shards])
        stays = offload == "cpu" and not parallel.is_shard(parameter)  # the shards themselves are on the CPU
        optimizer.state[parameter][entry] = whole if stays else parallel.like(whole, parameter)


def _steps_on_device(group: Mapping[str, object]) -> bool:
    return bool(group.get("fused") or group.get("capturable"))
