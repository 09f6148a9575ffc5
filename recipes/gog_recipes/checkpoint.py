"""A training stage's checkpoint: everything needed to go on as if nothing had happened.

    adapter_model.safetensors, adapter_config.json    the adapter, in PEFT's own form
    optimizer.safetensors                             the optimizer's tensors by parameter name
    metrics.jsonl                                     one line per step so far
    state.json                                        steps done

No random state is saved: every draw (order, noise, initialisation) follows from the seed and the step.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from gog import store
from gog_recipes.model import ADAPTER_FILES
from gog_recipes.stage import Stage


def trainable(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def save(
    stage: Stage,
    step: int,
    model: PeftModel,
    optimizer: torch.optim.Optimizer,
    *,
    meta: Mapping[str, Any],
    parents: Sequence[store.Manifest],
    extra: Mapping[str, Path] | None = None,
) -> store.Manifest:
    """Commits the adapter, the optimizer and the log of metrics as checkpoint `step` of the stage's meta["total"]."""
    folder = stage.workdir / "checkpoint"
    folder.mkdir(exist_ok=True)
    model.save_pretrained(str(folder), safe_serialization=True)
    save_file(_optimizer_tensors(model, optimizer), folder / "optimizer.safetensors")
    (folder / "state.json").write_text(json.dumps({"step": step}))
    names = (*ADAPTER_FILES, "optimizer.safetensors", "state.json")
    files = {name: folder / name for name in names} | {"metrics.jsonl": stage.log.path} | dict(extra or {})
    complete = step >= int(meta["total"])
    return stage.publish(step, files, meta=meta, parents=list(parents), complete=complete)


def resume(stage: Stage, model: PeftModel, optimizer: torch.optim.Optimizer) -> int:
    """Loads the stage's newest checkpoint into model, optimizer and log; the steps done, 0 without one."""
    manifest = stage.store.latest(stage.key)
    if manifest is None:
        return 0
    own = trainable(model)
    saved = load_file(stage.store.open(manifest, ADAPTER_FILES[0]))
    for name, parameter in own.items():
        parameter.data.copy_(saved[name.replace(".default.", ".")])
    _load_optimizer(model, optimizer, load_file(stage.store.open(manifest, "optimizer.safetensors")))
    stage.log.resume(stage.store.open(manifest, "metrics.jsonl"))
    print(f"{stage.key}: resumes from step {manifest.step}", flush=True)
    return manifest.step


def _optimizer_tensors(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    names = {id(parameter): name for name, parameter in trainable(model).items()}
    return {
        f"{names[id(parameter)]}|{key}": value.detach().clone()
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
        if isinstance(value, torch.Tensor)
    }


def _load_optimizer(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]
) -> None:
    parameters = trainable(model)
    for key, tensor in tensors.items():
        name, _, entry = key.partition("|")
        optimizer.state[parameters[name]][entry] = tensor.clone()
