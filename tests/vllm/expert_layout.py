"""Arranges an adapter of experts as vLLM does for its GPU kernels. Runs in vLLM's own environment, without a GPU.

python expert_layout.py ADAPTER EXPERTS TARGET.npz
"""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import torch
from vllm.lora.lora_model import LoRAModel
from vllm.lora.model_manager import LoRAModelManager
from vllm.lora.peft_helper import PEFTHelper
from vllm.model_executor.models.qwen3_vl_moe import Qwen3VLMoeForConditionalGeneration

folder, experts, target = sys.argv[1], int(sys.argv[2]), sys.argv[3]
adapter = LoRAModel.from_local_checkpoint(
    folder,
    {"experts", "q_proj", "k_proj", "v_proj", "o_proj"},
    PEFTHelper.from_local_dir(folder, 4096),
    device="cpu",
    dtype=torch.float32,
    weights_mapper=Qwen3VLMoeForConditionalGeneration.hf_to_vllm_mapper.get_rename_mapper(),
)
# What the function reads of the manager and of a layer of experts, of which vLLM builds neither without a GPU.
manager = SimpleNamespace(_is_3d_moe_model=True, _get_lora_layer_weights=lambda model, name: model.loras.get(name))
layer = SimpleNamespace(w13_lora_a_stacked=[torch.empty(1, experts)], global_num_experts=experts, ep_rank=0)
updates = {}
for name in [name for name in adapter.loras if name.endswith(".experts")]:
    LoRAModelManager._stack_moe_lora_weights(manager, adapter, layer, name)
    lora = adapter.loras[name]
    for part, a, b in zip(("gate_up_proj", "down_proj"), lora.lora_a, lora.lora_b, strict=True):
        updates[f"{name}.{part}"] = (lora.scaling * (b @ a)).numpy()
np.savez(target, **updates)
