"""Every shipped configuration is valid for its recipe, and everything that recipes read is shipped."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path

import pytest
import yaml

from gog import families, spec
from gog.errors import UserError
from gog_recipes.runtime import config

ROOT = Path(__file__).parents[2]
CONFIGS = Path(str(resources.files("gog_recipes") / "configs"))
STAGE_FILES = [path for path in sorted(CONFIGS.rglob("*.yaml")) if path.stem in spec.CONFIGS]


@pytest.mark.parametrize("path", STAGE_FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_shipped_configuration_is_valid(path):
    read = config.from_command_line(spec.CONFIGS[path.stem], ["--config", str(path)])
    assert read.model.preset == path.parent.name


@pytest.mark.parametrize("family", families.PRESETS)
def test_every_family_has_a_preset_for_every_stage(family):
    assert {path.stem for path in STAGE_FILES if path.parent.name == family} == set(spec.STAGES)


def test_the_full_size_presets_have_the_papers_figures():
    sft, grpo = (yaml.safe_load((CONFIGS / "qwen2.5-vl" / f"{stage}.yaml").read_text()) for stage in ("sft", "grpo"))
    assert (sft["epochs"], sft["learning_rate"], sft["batch_size"], sft["lora"]["rank"]) == (3, 1e-4, 8, 8)
    assert (grpo["learning_rate"], grpo["kl_coef"], grpo["group_size"], grpo["max_tokens"]) == (2e-6, 0.001, 5, 8192)


def test_an_override_of_the_command_line_wins_over_the_file():
    path = str(CONFIGS / "tiny" / "grpo.yaml")
    read = config.from_command_line(spec.GRPOConfig, ["--config", path, "steps=7", "lora.rank=4"])
    assert (read.steps, read.lora.rank, read.lora.alpha) == (7, 4, 16)


def test_a_setting_that_contradicts_another_is_refused_in_words_of_gog():
    with pytest.raises(UserError) as caught:
        config.from_command_line(
            spec.StratifyConfig, ["--config", str(CONFIGS / "tiny" / "stratify.yaml"), "level1=[0.6,0.5]"]
        )
    assert str(caught.value).endswith("stratify.yaml: level1 is [lowest, highest], not [0.6, 0.5]: swap the two")


def test_everything_that_a_recipe_reads_is_shipped():
    """By the patterns in pyproject.toml, because an editable install would hide a missing file."""
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["gog_recipes"]
    package = CONFIGS.parent
    shipped = {path for pattern in patterns for path in package.glob(pattern)}
    data = {path for path in package.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert data == shipped
