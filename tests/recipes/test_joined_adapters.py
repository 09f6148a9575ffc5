"""A joined adapter on the plain base equals what GRPO trains: base, SFT's adapter merged, a fresh one on top."""

from __future__ import annotations

import torch
from peft import LoraConfig, PeftModel, get_peft_model

from gog import adapters
from gog_recipes.models import peft_compat  # noqa: F401  (before peft applies an adapter)


class Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.up_proj = torch.nn.Linear(12, 20), torch.nn.Linear(20, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.up_proj(torch.tanh(self.q_proj(x)))


def base() -> Block:
    torch.manual_seed(0)
    return Block().eval()


def with_adapter(model: torch.nn.Module, targets: str, *, rank: int, alpha: int) -> PeftModel:
    """The model with an adapter whose weights are not zero."""
    adapted = get_peft_model(model, LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets))
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter)
    return adapted


def test_the_joined_adapter_on_the_base_is_the_policy_that_rl_trained(tmp_path):
    x = torch.randn(5, 12)
    sft = with_adapter(base(), r".*q_proj", rank=3, alpha=6)
    sft.save_pretrained(tmp_path / "sft")
    grpo = with_adapter(sft.merge_and_unload(), r".*(q_proj|up_proj)", rank=8, alpha=4)
    grpo.save_pretrained(tmp_path / "grpo")
    joined = adapters.join([tmp_path / "sft", tmp_path / "grpo"], tmp_path / "joined")
    served = PeftModel.from_pretrained(base(), str(joined))
    assert served.peft_config["default"].r == 16
    with torch.no_grad():
        torch.testing.assert_close(served(x), grpo(x), rtol=1e-4, atol=1e-4)
        assert not torch.allclose(served(x), base()(x), atol=1e-2)
