"""config.json of published base models, for planning before they are downloaded.

Only the fields that decide sizes, as in the config.json of the repository of each name at huggingface.co/Qwen. A test
compares the parameters that transformers builds from each with the number that its repository reports.

Source:
    alibaba/Pai-Megatron-Patch at a098ca5, which converts the published weights of all six: the language models in
    toolkits/distributed_checkpoints_convertor/scripts/qwen2_5_vl/run_8xH20.sh and qwen3_vl/run_8xH20.sh, the vision
    towers in megatron_patch/model/qwen2_5_vl/transformer_config.py (whose inner size differs for 32B) and
    qwen3_vl/transformer_config.py. InternLM/xtuner at b934f46 has the same Qwen3-VL-8B and -30B-A3B
    (xtuner/v1/model/compose/qwen3_vl/qwen3_vl_config.py).
"""

from __future__ import annotations

from typing import Any

_QWEN2_5_VISION = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "in_channels": 3,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
    "hidden_act": "silu",
}
_QWEN3_VISION = {
    "depth": 27,
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_heads": 16,
    "patch_size": 16,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "in_channels": 3,
    "num_position_embeddings": 2304,
    "deepstack_visual_indexes": [8, 16, 24],
    "hidden_act": "gelu_pytorch_tanh",
}


def _qwen2_5(
    hidden: int, inner: int, layers: int, heads: int, kv_heads: int, *, tied: bool = False, vision_inner: int = 3420
) -> dict[str, Any]:
    return {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        "image_token_id": 151655,
        "tie_word_embeddings": tied,
        "text_config": {
            "model_type": "qwen2_5_vl_text",
            "hidden_size": hidden,
            "intermediate_size": inner,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "vocab_size": 151936 if tied else 152064,
            "max_position_embeddings": 128000,
            "rms_norm_eps": 1e-6,
            "rope_theta": 1e6,
            "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
            "tie_word_embeddings": tied,
        },
        "vision_config": _QWEN2_5_VISION | {"out_hidden_size": hidden, "intermediate_size": vision_inner},
    }


def _qwen3(hidden: int, inner: int, layers: int, heads: int, kv_heads: int, **experts: Any) -> dict[str, Any]:
    kind = "qwen3_vl_moe" if experts else "qwen3_vl"
    return {
        "architectures": [f"Qwen3VL{'Moe' if experts else ''}ForConditionalGeneration"],
        "model_type": kind,
        "image_token_id": 151655,
        "tie_word_embeddings": False,
        "text_config": {
            "model_type": f"{kind}_text",
            "hidden_size": hidden,
            "intermediate_size": inner,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "head_dim": 128,
            "vocab_size": 151936,
            "max_position_embeddings": 262144,
            "rms_norm_eps": 1e-6,
            "rope_theta": 5e6,
            "rope_scaling": {"rope_type": "default", "mrope_interleaved": True, "mrope_section": [24, 20, 20]},
            "tie_word_embeddings": False,
            **experts,
        },
        "vision_config": _QWEN3_VISION | {"model_type": kind, "out_hidden_size": hidden},
    }


CONFIGS: dict[str, dict[str, Any]] = {
    "Qwen2.5-VL-3B": _qwen2_5(2048, 11008, 36, 16, 2, tied=True),
    "Qwen2.5-VL-7B": _qwen2_5(3584, 18944, 28, 28, 4),
    "Qwen2.5-VL-32B": _qwen2_5(5120, 27648, 64, 40, 8, vision_inner=3456),
    "Qwen3-VL-8B": _qwen3(4096, 12288, 36, 32, 8),
    "Qwen3-VL-30B-A3B": _qwen3(
        2048, 6144, 48, 32, 4,
        num_experts=128, num_experts_per_tok=8, moe_intermediate_size=768, norm_topk_prob=True,
        decoder_sparse_step=1, mlp_only_layers=[],
    ),
    "Qwen3-VL-32B": _qwen3(5120, 25600, 64, 64, 8),
}  # fmt: skip
"""config.json by name."""


def name_of(base: str) -> str | None:
    """The published model that a base is named after: `Qwen3-VL-8B`, `hf://Qwen/Qwen3-VL-8B-Instruct`, a path ending so.

    Args:
        base: as a manifest names it
    """
    last = base.rstrip("/").rpartition("/")[2].partition("@")[0].lower()
    fitting = [name for name in CONFIGS if last.startswith(name.lower())]
    return max(fitting, key=len, default=None)
