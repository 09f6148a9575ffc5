"""Model families: found by the model_type of the base model, ours and those that an installed package brings."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import transformers

from gog import base_model, families, store
from gog.errors import UserError
from gog.spec import ModelSpec, SFTConfig
from gog_recipes import models, world
from gog_recipes.models import policy_model
from gog_recipes.runtime import config
from gog_recipes.sft import SFTRecipe

QWEN2_VL = '''
"""Qwen2-VL for gog, as a package of its own: another vision tower, the same processor."""

import dataclasses

import transformers

from gog_recipes.models.qwen2_5_vl import FAMILY as QWEN2_5_VL


def load(folder, device, dtype):
    model = transformers.Qwen2VLForConditionalGeneration.from_pretrained(folder, dtype=dtype, local_files_only=True)
    return model.requires_grad_(False).eval().to(device)


FAMILY = dataclasses.replace(QWEN2_5_VL, load=load, lora_targets=r".*language_model.*\\.(q_proj|v_proj)")
'''


@pytest.fixture
def qwen2_vl(tmp_path, monkeypatch):
    """Installs a package that brings the family qwen2_vl."""
    site = tmp_path / "site"
    metadata = site / "gog_qwen2_vl-1.0.dist-info"
    metadata.mkdir(parents=True)
    (site / "gog_qwen2_vl.py").write_text(QWEN2_VL)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: gog-qwen2-vl\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[gog.model_families]\nqwen2_vl = gog_qwen2_vl:FAMILY\n")
    monkeypatch.syspath_prepend(str(site))


@pytest.fixture
def base(tmp_path):
    """A random Qwen2-VL model of the tiny model's size, with the tiny model's tokenizer."""
    torch.manual_seed(0)
    folder = tmp_path / "base"
    tiny = json.loads((world.TINY / "config.json").read_text())
    vision = {"depth": 1, "embed_dim": 32, "hidden_size": 96, "num_heads": 2, "mlp_ratio": 2}
    special = {name: value for name, value in tiny.items() if name.endswith("_token_id")}
    text = tiny["text_config"] | {"model_type": "qwen2_vl_text"}
    shape = transformers.Qwen2VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True, **special)
    transformers.Qwen2VLForConditionalGeneration(shape).save_pretrained(folder)
    for path in world.TINY.iterdir():
        if not (folder / path.name).exists():
            shutil.copy(path, folder)
    return folder


def test_a_family_of_another_package_trains_an_sft_step(tmp_path, qwen2_vl, base):
    values = {
        "model": {"base": str(base), "family": "tiny"},
        "data": {"path": str(tmp_path)},
        "store": {"uri": f"file://{tmp_path}/store"},
        "demonstrations": "sample",
        "batch_size": 4,
        "max_steps": 1,
        "warmup_steps": 0,
    }
    recipe = SFTRecipe(config.typed(SFTConfig, values))
    recipe.setup()
    recipe.train()
    assert recipe.model.base_model.model.config.model_type == "qwen2_vl"
    assert {name.split(".")[-4] for name, p in recipe.model.named_parameters() if p.requires_grad} <= {
        "q_proj",
        "v_proj",
    }
    assert any(bool(p.any()) for name, p in recipe.model.named_parameters() if "lora_B" in name)
    assert store.Store(tmp_path / "store").latest("sft").meta["complete"]


def test_without_that_package_its_base_models_are_refused_before_the_start(base):
    with pytest.raises(UserError, match=r"model type 'qwen2_vl' of .* is not supported \(.*qwen2_5_vl.*\)"):
        base_model.check(base)
    with pytest.raises(UserError, match="'qwen2_vl' is not supported"):
        models.family("qwen2_vl")


@pytest.mark.parametrize("model_type", families.MODEL_TYPES)
def test_every_supported_model_type_has_a_folder(model_type):
    family = models.family(model_type)
    assert callable(family.load)


def test_the_family_of_a_loaded_model_is_that_of_its_folder():
    model = policy_model.load_base(ModelSpec(base="tiny"), torch.device("cpu"))
    assert policy_model.family_of(model) is models.family(base_model.model_type(world.TINY))
