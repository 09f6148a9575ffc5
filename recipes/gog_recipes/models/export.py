"""Export of a policy as one model: base and adapters merged in float32, as a folder in Hugging Face form.

Adapters are never merged into weights of low precision, which would round an update of RL away; merged in float32 they
are exact. The folder takes twice the bytes of a bfloat16 base. Whatever is done with it later (casting, quantizing) may
lose updates again, so compare before serving it.

The base must be the one that the adapters were trained on; its fingerprint is compared.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from gog import adapters, base_model, base_source, store
from gog.errors import UserError
from gog.spec import StoreSpec
from gog_recipes import world
from gog_recipes.models import lora, policy_model

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
"""Ends of the names of weights, which are written anew."""
SHARD = "4GB"
"""Largest file of weights."""


def export(base: Path, saved: Sequence[Path], target: Path) -> Path:
    """Writes base and adapters as one float32 model.

    Args:
        base: folder of the base model
        saved: adapters as PEFT saves them, in the order in which they were trained
        target: a new folder; it appears whole or not at all

    Returns:
        The target.

    Raises:
        UserError: the folder exists, or an adapter does not belong to the base.
    """
    if target.exists():
        raise UserError("exists already", where=str(target), remedy="name a new folder")
    base_model.check(base)
    policy = lora.with_saved(policy_model.load_folder(base, torch.device("cpu"), torch.float32), saved)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
        fresh = Path(scratch) / "model"
        policy.save_pretrained(str(fresh), safe_serialization=True, max_shard_size=SHARD)
        for path in base.iterdir():
            if path.is_file() and not path.name.endswith((*WEIGHTS, ".index.json")):
                shutil.copy(path, fresh / path.name)
        _declare_float32(fresh / "config.json")
        fresh.replace(target)
    return target


def _declare_float32(path: Path) -> None:
    """Sets the type of the weights in a configuration, in its parts too."""
    config = json.loads(path.read_text())
    for part in (config, *(each for each in config.values() if isinstance(each, dict))):
        part.update({name: "float32" for name in ("torch_dtype", "dtype") if name in part})
    config.setdefault("torch_dtype", "float32")
    path.write_text(json.dumps(config, indent=2) + "\n")


def from_store(base: str, checkpoints: store.Store, ref: str, options: StoreSpec, target: Path) -> Path:
    """Exports a checkpoint with all adapters beneath it.

    Args:
        base: of the run, as its manifest names it
        checkpoints: the run's store
        ref: `grpo/120`, or a stage for its newest
        options: of the store, for an `s3://` base
        target: a new folder

    Raises:
        UserError: the checkpoint holds no adapter or was trained on another base, the folder exists.
    """
    lineage = adapters.lineage(checkpoints, ref)
    with tempfile.TemporaryDirectory() as scratch:
        found = base_source.Located(world.TINY, base)
        if base != "tiny":
            name = base_source.recorded(base, lineage)
            found = base_source.fetch(name, options=options, target=Path(scratch) / "base")
        own = base_model.Identity(found.name, base_model.fingerprint(found.folder))
        saved = []
        for manifest in lineage:
            base_model.compare(manifest.meta.get(base_model.RECORD), own, ref=manifest.ref)
            folder = Path(scratch) / manifest.ref.replace("/", "-")
            folder.mkdir()
            for file in lora.FILES:
                shutil.copy(checkpoints.open(manifest, file), folder / file)
            saved.append(folder)
        return export(found.folder, saved, target)


def main(given: argparse.Namespace) -> int:
    """`gog export`. Returns the exit code."""
    uri = given.store if "://" in given.store else Path(given.store).absolute().as_uri()
    options = StoreSpec.model_validate({"uri": uri})
    written = from_store(given.base, store.open_store(options), given.checkpoint, options, Path(given.out))
    print(f"{given.checkpoint} is in {written}, as float32")
    return 0
