"""The decoder's linears: an adapter's update counts, whatever the precision of the weights it belongs to."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model

from gog_recipes.models import (
    decoder_weights,
    peft_compat,  # noqa: F401  (before peft applies an adapter)
)

UPDATE = 2e-5
"""Size of an element of B after ten steps of RL at a learning rate of 2e-6."""


def adapted(dtype: torch.dtype, *, bias: bool = False, update: float = UPDATE) -> torch.nn.Module:
    """Two linears of 64 inputs with adapters: `first` with 32 outputs, `second` with 48."""
    torch.manual_seed(0)
    model = torch.nn.Module()
    model.first = torch.nn.Linear(64, 32, bias=bias, dtype=dtype)
    model.second = torch.nn.Linear(64, 48, bias=bias, dtype=dtype)
    model.forward = lambda x: x
    config = LoraConfig(r=8, lora_alpha=16, target_modules=["first", "second"])
    model = get_peft_model(model, config).base_model.model
    for linear in (model.first, model.second):
        torch.nn.init.normal_(linear.lora_B["default"].weight, std=update)
    return model


def fused(*linears: torch.nn.Module):
    return decoder_weights.fuse(*linears)


def beside(*linears: torch.nn.Module):
    """As of large models: no weight is copied."""
    return decoder_weights.SideBySide(tuple(decoder_weights.linear(each) for each in linears))


FORMS = pytest.mark.parametrize("form", [fused, beside])


@torch.no_grad()
def outputs(model: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What the training forward computes."""
    return torch.cat((model.first(x), model.second(x)), -1)


@FORMS
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_linears_equal_those_of_the_training_forward(form, dtype: torch.dtype, bias: bool) -> None:
    model, x = adapted(dtype, bias=bias, update=0.1), torch.randn(20, 64).to(dtype)
    found = form(model.first, model.second)(x)
    assert found.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 0.02
    assert torch.allclose(found.float(), outputs(model, x).float(), atol=tolerance, rtol=tolerance)


@FORMS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_update_smaller_than_the_weights_precision_counts_in_full(form, dtype: torch.dtype) -> None:
    model, x = adapted(dtype), torch.randn(4000, 64).to(dtype)
    with torch.no_grad():
        delta = torch.cat([each.get_delta_weight("default").float() for each in (model.first, model.second)])
        expected = x.float() @ delta.T
        found = form(model.first, model.second)(x).float()
        model.first.enable_adapters(False)
        model.second.enable_adapters(False)
        found -= form(model.first, model.second)(x).float()
    # Rounding of the outputs is noise, so the whole is compared: how much of the update is found in the difference.
    assert float((found * expected).sum() / (expected * expected).sum()) == pytest.approx(1.0, abs=0.1)


@FORMS
def test_a_linear_without_an_adapter_may_be_beside_one_that_has_one(form) -> None:
    model, x = adapted(torch.bfloat16, update=0.1), torch.randn(5, 64).to(torch.bfloat16)
    plain = model.second.get_base_layer()
    found = form(model.first, plain)(x)
    assert torch.allclose(found[:, :32].float(), model.first(x).float(), atol=0.02, rtol=0.02)
    assert torch.equal(found[:, 32:], plain(x))


def test_an_adapted_linear_reads_the_trainers_own_weights() -> None:
    model = adapted(torch.bfloat16)
    found = decoder_weights.linear(model.first)
    assert found.weight.data_ptr() == model.first.get_base_layer().weight.data_ptr()
    (adapter,) = found.adapters
    assert adapter.b.data_ptr() == model.first.lora_B["default"].weight.data_ptr()
    assert adapter.b.dtype == torch.float32


def test_a_module_that_is_no_plain_linear_is_called_as_it_is() -> None:
    class Quantized(torch.nn.Linear):
        """A linear with weights of another form."""

    module = Quantized(64, 32)
    assert decoder_weights.linear(module) is module
