"""Adapters of experts: trained, saved, checked, joined, and beside the weights in low precision."""

from __future__ import annotations

import pytest
import torch
from peft import PeftModel

from gog import adapters, tensors
from gog.errors import UserError
from gog.spec import LoraSettings, ModelSpec
from gog_recipes.models import experts, lora, policy_model

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(real_base):
    return real_base("qwen3_vl_moe", layers=2)


def spec(folder, dtype="float32"):
    return ModelSpec(base=str(folder), dtype=dtype)


def drawn(model, seed, std=0.05):
    """The model with every adapter's B drawn, which is zero at first."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if ".lora_B.default." in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * std)
    return model


def hidden(model, ids=tuple(range(100, 160))):
    family, core = policy_model.family_of(model), policy_model.core(model)
    positions = torch.arange(len(ids)).expand(3, 1, -1)
    return family.hidden_states(core, torch.tensor([ids]), positions, None)


@pytest.fixture(scope="module")
def saved(folder, tmp_path_factory):
    """Two adapters, saved by PEFT."""
    made = []
    for seed in (1, 2):
        model = drawn(lora.add(policy_model.load_base(spec(folder), CPU), LoraSettings(rank=4, alpha=8 * seed)), seed)
        made.append(tmp_path_factory.mktemp("adapter"))
        model.save_pretrained(str(made[-1]))
    return made


def test_experts_are_trained_and_saved_under_the_names_that_vllm_reads(folder, saved):
    header = tensors.header(saved[0] / adapters.WEIGHTS)
    names = {name.split(".mlp.")[1]: entry.shape for name, entry in header.items() if "layers.0.mlp." in name}
    assert names == {
        "experts.base_layer.lora_A.weight": (4 * 4, 256),
        "experts.base_layer.lora_B.weight": (2 * 192, 4 * 4),
        "experts.lora_A.weight": (4 * 4, 192),
        "experts.lora_B.weight": (256, 4 * 4),
    }
    model = drawn(lora.add(policy_model.load_base(spec(folder), CPU), LoraSettings(rank=4)), 1)
    hidden(model).square().sum().backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert not without


def test_the_update_equals_the_one_that_peft_adds_to_the_weights(folder, saved):
    with torch.no_grad():
        model = PeftModel.from_pretrained(policy_model.load_base(spec(folder), CPU), str(saved[0]))
        beside, merged = hidden(model), None
        with model.disable_adapter():
            base = hidden(model)
        merged = hidden(model.merge_and_unload())
    assert float((merged - base).abs().max()) > 0.1
    torch.testing.assert_close(beside, merged, rtol=0, atol=2e-5)


def test_a_small_update_survives_bfloat16(folder):
    """An update of RL is smaller than the gap between two bfloat16 numbers; folded into the weights it would vanish."""
    model = drawn(lora.add(policy_model.load_base(spec(folder, "bfloat16"), CPU), LoraSettings(rank=4)), 1, std=1e-4)
    wrapper = policy_model.language_model(model).layers[0].mlp.experts
    assert {p.dtype for n, p in model.named_parameters() if ".lora_" in n} == {torch.float32}
    x = torch.randn(64, 192, generator=torch.Generator().manual_seed(0)).bfloat16()
    delta = wrapper.get_delta_weight("default")[0]
    kept = ((wrapper.get_param()[0] + delta) != wrapper.get_param()[0]).float().mean()
    assert kept < 0.2  # what folding would keep
    a = wrapper.lora_A["default"].weight.view(4, -1, 192)[0]
    b = wrapper.lora_B["default"].weight.view(256, -1, 4)[:, :, 0]
    exact = x.float() @ (b @ a).T * 4  # alpha / rank
    zero = torch.zeros_like(wrapper.get_param())
    torch.testing.assert_close(experts._linear(zero, wrapper, 0, x).float(), exact, rtol=1e-2, atol=1e-6)


def test_joined_adapters_equal_both_one_after_the_other(folder, saved, tmp_path):
    joined = adapters.join(saved, tmp_path / "joined")
    with torch.no_grad():
        both = hidden(lora.with_saved(policy_model.load_base(spec(folder), CPU), saved))
        one = hidden(lora.with_saved(policy_model.load_base(spec(folder), CPU), [joined]))
        base = hidden(policy_model.load_base(spec(folder), CPU))
    assert float((both - base).abs().max()) > 0.1
    torch.testing.assert_close(one, both, rtol=0, atol=5e-5)


def test_an_adapter_without_its_experts_is_refused(folder, saved, tmp_path):
    weights = tensors.read(saved[0] / adapters.WEIGHTS)
    tensors.write(
        tmp_path / adapters.WEIGHTS, {name: value for name, value in weights.items() if ".experts." not in name}
    )
    (tmp_path / adapters.CONFIG).write_bytes((saved[0] / adapters.CONFIG).read_bytes())
    with pytest.raises(UserError, match=r"have no weights in it, such as .*experts"):
        lora.check(policy_model.load_base(spec(folder), CPU), tmp_path)


def test_dropout_of_experts_is_refused(folder):
    with pytest.raises(UserError, match=r"lora\.dropout"):
        lora.add(policy_model.load_base(spec(folder), CPU), LoraSettings(dropout=0.1))
