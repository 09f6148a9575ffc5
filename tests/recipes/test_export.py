"""Export: base and adapters as one float32 model, whose log-probs are those of the adapters beside the base."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from support import learning

from gog import base_model, store
from gog.errors import UserError
from gog.spec import LoraSettings, ModelSpec
from gog_console import cli
from gog_recipes import world
from gog_recipes.models import export, lora, policy_model


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The tiny model as a folder that stores bfloat16."""
    folder = shutil.copytree(world.TINY, tmp_path_factory.mktemp("base") / "tiny-bf16")
    weights = load_file(folder / "model.safetensors")
    save_file({name: each.bfloat16() for name, each in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def adapters(base, tmp_path_factory):
    """An SFT adapter, and one of RL whose update is a ten-thousandth of it."""
    folders = []
    torch.manual_seed(0)
    for size in (5e-2, 5e-6):
        model = lora.add(policy_model.load_folder(base, learning.CPU, torch.float32), LoraSettings())
        for name, each in model.named_parameters():
            if ".lora_B." in name:
                torch.nn.init.normal_(each, std=size)
        folders.append(tmp_path_factory.mktemp("adapter"))
        model.save_pretrained(str(folders[-1]))
    return folders


def logprobs(model, folder):
    processor = policy_model.folder_processor(folder, "tiny")
    vision = policy_model.vision_of(model, processor)
    rows = [item.segments for item in learning.trajectories(processor, vision, [2, 3])]
    batch = policy_model.collate(rows, processor, vision, learning.CPU)
    with torch.no_grad():
        return policy_model.token_logprobs(model, batch, policy_model.features(batch, vision))


def test_log_probs_of_the_exported_model_are_those_of_the_adapters_beside_the_base(base, adapters, tmp_path):
    target = export.export(base, adapters, tmp_path / "exported")
    plain = policy_model.load_folder(base, learning.CPU, torch.float32)
    beside = lora.add(lora.with_saved(plain, adapters[:1]), LoraSettings())
    rl = load_file(adapters[1] / "adapter_model.safetensors")
    for name, each in beside.named_parameters():
        if each.requires_grad:
            each.data.copy_(rl[name.replace(".default.", ".")])
    found = logprobs(policy_model.load_folder(target, learning.CPU, torch.float32), target)
    wanted = logprobs(beside.eval(), base)
    assert float((found - wanted).abs().max()) < 1e-5
    assert (
        float((found - logprobs(policy_model.load_folder(base, learning.CPU, torch.float32), base)).abs().max()) > 0.1
    )


def test_the_folder_is_a_complete_base_model_in_float32(base, adapters, tmp_path):
    target = export.export(base, adapters, tmp_path / "exported")
    base_model.check(target)
    assert base_model.stored_dtype(target) == "float32" and base_model.stored_dtype(base) == "bfloat16"
    config = json.loads((target / "config.json").read_text())
    assert config["torch_dtype"] == "float32" and "bfloat16" not in json.dumps(config)
    assert {path.name for path in base.iterdir()} <= {path.name for path in target.iterdir()}


def test_an_existing_folder_is_not_overwritten(base, adapters, tmp_path):
    with pytest.raises(UserError, match="exists already"):
        export.export(base, adapters, tmp_path)


@pytest.fixture
def checkpoints(adapters, base, tmp_path):
    """A store with a checkpoint of GRPO that lies on one of SFT."""
    opened = store.open_store(f"file://{tmp_path}/store")
    record = {base_model.RECORD: base_model.Identity("mine", base_model.fingerprint(base)).document()}
    parents = []
    for stage, folder in zip(("sft", "grpo"), adapters, strict=True):
        files = {name: folder / name for name in lora.FILES}
        parents = [opened.publish(stage, 10, files, meta=record, parents=[each.ref for each in parents])]
    return tmp_path / "store"


def test_the_command_exports_a_checkpoint_with_those_beneath_it(base, adapters, checkpoints, tmp_path, capsys):
    out = tmp_path / "out"
    line = ["export", "grpo", "--store", str(checkpoints), "--base", str(base), "--out", str(out)]
    assert cli.main(line) == cli.COMPLETE and str(out) in capsys.readouterr().out
    whole = export.export(base, adapters, tmp_path / "whole")
    exported, expected = (load_file(folder / "model.safetensors") for folder in (out, whole))
    assert all(torch.equal(each, exported[name]) for name, each in expected.items())


def test_an_adapter_of_another_base_is_refused(checkpoints, tmp_path, capsys):
    line = ["export", "grpo", "--store", str(checkpoints), "--base", "tiny", "--out", str(tmp_path / "out")]
    assert cli.main(line) == cli.INVALID
    assert "its adapter was trained on the base model mine" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_served_policy_of_any_type_keeps_an_rl_sized_update(base, adapters, dtype):
    from peft.tuners.lora import LoraLayer

    from gog_recipes.models import lora_linear
    from gog_recipes.models.completion import PolicyModel

    served = PolicyModel(base, dtype=dtype)
    served.load_adapter("rl", adapters[1])
    layers = [each for each in served.model.modules() if isinstance(each, LoraLayer)]
    assert {type(each) for each in layers} == {lora_linear.Linear}
    kept = {each.dtype for name, each in served.model.named_parameters() if ".lora_" in name}
    assert kept == {torch.float32} and ModelSpec(base="tiny", dtype=dtype).dtype == dtype
