"""The weights that a folder must hold are those of the model that transformers builds from the same config.json."""

from __future__ import annotations

import json

import pytest
import torch
import transformers

from gog.base_model import architectures
from gog_recipes import world

CLASSES = {"qwen2_5_vl": "Qwen2_5_VL", "qwen3_vl": "Qwen3VL", "qwen3_vl_moe": "Qwen3VLMoe"}
TEXT = {
    "vocab_size": 160, "hidden_size": 96, "intermediate_size": 224, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip
VISION = {"depth": 3, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 96}
OWN: dict[str, list[dict]] = {
    "qwen2_5_vl": [{}, {"tie_word_embeddings": True}],
    "qwen3_vl": [
        {},
        {"tie_word_embeddings": True, "text_config": {"attention_bias": True, "head_dim": 16}},
        {"vision_config": {"deepstack_visual_indexes": [1], "num_position_embeddings": 64}},
    ],
    "qwen3_vl_moe": [
        {"text_config": {"num_experts": 4, "moe_intermediate_size": 16}},
        {"text_config": {"num_experts": 4, "mlp_only_layers": [1], "decoder_sparse_step": 1}},
        {"text_config": {"num_experts": 4, "decoder_sparse_step": 2}},
    ],
}
CASES = [(kind, changes) for kind, all_changes in OWN.items() for changes in all_changes]


def of_transformers(kind: str, config: dict) -> dict[str, tuple[int, ...]]:
    shape = getattr(transformers, f"{CLASSES[kind]}Config")(**config)
    with torch.device("meta"):
        model = getattr(transformers, f"{CLASSES[kind]}ForConditionalGeneration")(shape)
    return {name: tuple(p.shape) for name, p in model.named_parameters()}


def test_every_architecture_is_compared():
    assert set(CLASSES) == set(architectures.BY_MODEL_TYPE)


@pytest.mark.parametrize(("kind", "changes"), CASES)
def test_expected_weights_are_those_that_transformers_builds(kind, changes):
    config = {
        **changes,
        "text_config": TEXT | changes.get("text_config", {}),
        "vision_config": VISION | changes.get("vision_config", {}),
    }
    assert architectures.BY_MODEL_TYPE[kind].weights(config) == of_transformers(kind, config)


@pytest.mark.parametrize("kind", CLASSES)
def test_fields_that_a_configuration_leaves_out_have_the_same_defaults(kind):
    config = {"text_config": {"num_hidden_layers": 2}, "vision_config": {"depth": 2}}
    assert architectures.BY_MODEL_TYPE[kind].weights(config) == of_transformers(kind, config)
    read = getattr(transformers, f"{CLASSES[kind]}Config")()
    for field, (_, default) in architectures.BY_MODEL_TYPE[kind].tokens.items():
        assert getattr(read, field) == default
    assert read.vision_config.patch_size == architectures.BY_MODEL_TYPE[kind].patch


def test_a_configuration_with_the_language_model_at_its_root_is_read_alike():
    nested = json.loads((world.TINY / "config.json").read_text())
    flat = {key: value for key, value in nested.items() if key != "text_config"} | nested["text_config"]
    weights = architectures.BY_MODEL_TYPE["qwen2_5_vl"].weights
    assert weights(nested) == weights(flat)
