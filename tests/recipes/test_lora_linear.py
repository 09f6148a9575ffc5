"""LoRA beside weights of low precision: an update of RL is not rounded away, in training as in the engine."""

from __future__ import annotations

import copy

import pytest
import torch
from peft.tuners import lora as peft_lora
from support import learning

from gog.spec import LoraSettings, ModelSpec
from gog_recipes.models import lora, lora_linear, policy_model

SPEC = ModelSpec(base="tiny", dtype="bfloat16")


@pytest.fixture(scope="module")
def inputs():
    """x [256, 512], weight [384, 512] and bias [384] in bfloat16, outputs of about 1."""
    torch.manual_seed(0)
    weight = (torch.randn(384, 512) * 512**-0.5).bfloat16()
    return torch.randn(256, 512).bfloat16(), weight, torch.randn(384).bfloat16()


def passed(output, plain, update):
    """The share of an update that is left in an output, on average."""
    return float(((output.float() - plain.float()) * update).sum() / update.pow(2).sum())


@pytest.mark.parametrize("size", [1e-2, 1e-3, 1e-4])
@pytest.mark.parametrize("biased", [False, True])
def test_an_update_of_any_size_passes_whole_on_average(inputs, size, biased):
    x, weight, bias = inputs
    bias = bias if biased else None
    update = torch.randn(256, 384) * size
    plain = lora_linear.adapted(x, weight, bias, torch.zeros_like(update))
    assert passed(lora_linear.adapted(x, weight, bias, update), plain, update) == pytest.approx(1.0, abs=0.05)


def test_rounding_the_base_product_first_removes_what_is_smaller_than_the_gap_between_two_numbers(inputs):
    x, weight, _ = inputs
    plain, update = torch.nn.functional.linear(x, weight), torch.randn(256, 384) * 1e-4
    assert passed((plain + update).bfloat16(), plain, update) < 0.1


def test_without_an_update_the_product_is_the_plain_one(inputs):
    x, weight, _ = inputs
    plain = torch.nn.functional.linear(x, weight)
    assert torch.equal(lora_linear.adapted(x, weight, None, torch.zeros_like(plain)), plain)


def adapted(spec=SPEC):
    return lora.add(policy_model.load_base(spec, learning.CPU), LoraSettings()).eval()


def test_trained_adapters_are_float32_and_every_linear_rounds_once():
    model = adapted()
    assert {each.dtype for each in model.parameters() if each.requires_grad} == {torch.float32}
    layers = [type(each) for each in model.modules() if isinstance(each, peft_lora.LoraLayer)]
    assert layers and set(layers) == {lora_linear.Linear}


def logprobs(model, batch, vision):
    with torch.no_grad():
        return policy_model.token_logprobs(model, batch, policy_model.features(batch, vision))


def test_an_rl_sized_update_changes_log_probs_of_bfloat16_training_like_those_of_float32():
    model, processor = adapted(), policy_model.load_processor(SPEC)
    vision = policy_model.vision_of(model, processor)
    rows = [item.segments for item in learning.trajectories(processor, vision, [6] * 12)]
    batch = policy_model.collate(rows, processor, vision, learning.CPU)
    exact = copy.deepcopy(model).float()
    torch.manual_seed(3)
    before = logprobs(model, batch, vision), logprobs(exact, batch, vision)
    twins = zip(model.named_parameters(), exact.parameters(), strict=True)
    with torch.no_grad():
        for (name, own), other in twins:
            if ".lora_B." in name:
                own.add_(torch.randn_like(own).sign() * 1e-3)  # Adam's first steps at a rate of 1e-3
                other.copy_(own)
    change, wanted = logprobs(model, batch, vision) - before[0], logprobs(exact, batch, vision) - before[1]
    noise = float((before[0] - before[1]).pow(2).mean().sqrt())
    assert float((change - wanted).pow(2).mean().sqrt()) < 2 * noise
    assert passed(change, torch.zeros_like(change), wanted) == pytest.approx(1.0, abs=0.25)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gradients_of_the_adapter_are_those_of_the_plain_formula(dtype):
    spec = ModelSpec(base="tiny", dtype=dtype)
    own, plain = adapted(spec), adapted(spec)
    for model in (own, plain):
        torch.manual_seed(0)
        for name, each in model.named_parameters():
            if ".lora_" in name:
                torch.nn.init.normal_(each, std=0.05)
    for each in plain.modules():
        if type(each) is lora_linear.Linear:
            each.__class__ = peft_lora.Linear
    ids, positions = torch.arange(24)[None], torch.arange(24).expand(3, 1, 24)
    found = []
    for model in (own, plain):
        hidden = policy_model.family_of(model).hidden_states(policy_model.core(model), ids, positions, None)
        hidden.float().pow(2).mean().backward()
        found.append(learning.gradients_of(model))
    assert all(each.dtype == torch.float32 for each in found[0].values())
    assert learning.difference(*found) < (1e-6 if dtype == "float32" else 0.05)


@pytest.fixture(scope="module")
def two_adapters():
    """A frozen adapter of rank 4 and a trained one of rank 8, for the weight of `inputs`."""
    torch.manual_seed(1)
    pairs = [(torch.randn(rank, 512) * 0.05, torch.randn(384, rank) * 0.05) for rank in (4, 8)]
    for each in pairs[1]:
        each.requires_grad_()
    return [lora_linear.Adapter(a, b, factor) for (a, b), factor in zip(pairs, (2.0, 0.5), strict=True)]


def results(function, x, trained):
    """Output, and gradients of the input and of the trained adapter, of one call."""
    own = x.clone().requires_grad_()
    out = function(own)
    gradients = torch.autograd.grad(out, (own, trained.a, trained.b), torch.linspace(-1, 1, out.numel()).view_as(out))
    return [out.detach(), *gradients]


def test_a_bias_is_added_before_the_sum_is_rounded(inputs, two_adapters):
    x, weight, bias = inputs
    exact = x.double() @ weight.double().t() + bias.double() + sum(each(x).double() for each in two_adapters)
    own = lora_linear.linear(x, weight, bias, two_adapters)
    plain = lora_linear.adapted(x, weight, bias, sum(each(x) for each in two_adapters))
    rounded = (exact.bfloat16() - exact).abs().mean()
    assert (own - exact).abs().mean() < 1.001 * rounded
    assert torch.equal(own, plain)


@pytest.mark.parametrize("rows", [7, 1000])
def test_gradients_equal_those_of_autograd_whatever_rows_are_cast_at_a_time(inputs, two_adapters, monkeypatch, rows):
    x, weight, bias = inputs
    monkeypatch.setattr(lora_linear, "CAST_BYTES", rows * 512 * 4)
    own = results(lambda x: lora_linear.linear(x, weight, bias, two_adapters), x, two_adapters[1])
    plain = results(
        lambda x: lora_linear.adapted(x, weight, bias, sum(each(x) for each in two_adapters)), x, two_adapters[1]
    )
    assert [each.dtype for each in own] == [each.dtype for each in plain]
    for one, other, bound in zip(own, plain, (1e-3, 2e-2, 1e-5, 1e-5), strict=True):  # only autograd rounds x's twice
        assert (one.float() - other.float()).norm() < bound * other.float().norm()


def test_gradients_of_the_input_are_rounded_once_too(inputs, two_adapters):
    x, weight, _ = inputs
    exact = results(
        lambda x: lora_linear.adapted(x, weight.float(), None, sum(each(x) for each in two_adapters)),
        x.float(),
        two_adapters[1],
    )[1]
    own = results(lambda x: lora_linear.linear(x, weight, None, two_adapters), x, two_adapters[1])[1]
    assert (own.float() - exact).norm() < 4e-3 * exact.norm()  # the grid of bfloat16, and of the gradient above


def test_autograd_keeps_the_input_in_its_own_type_and_nothing_else_per_token(inputs, two_adapters):
    x, weight, bias = inputs
    shared = x.clone().requires_grad_()
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        for _ in range(2):
            lora_linear.linear(shared, weight, bias, two_adapters)
    rows = [tensor for tensor in kept.values() if len(tensor) == len(x)]
    assert len(rows) == 1 and rows[0].data_ptr() == shared.data_ptr()


def test_dropout_acts_on_the_adapters_input_in_training_only():
    model = lora.add(policy_model.load_base(SPEC, learning.CPU), LoraSettings(dropout=0.5))
    layer = next(each for each in model.modules() if type(each) is lora_linear.Linear)
    torch.manual_seed(0)
    torch.nn.init.normal_(layer.lora_B[lora.TRAINED].weight)
    x = torch.randn(4, layer.in_features).bfloat16()
    layer.eval()
    assert torch.equal(layer(x), layer(x))
    layer.train()
    assert not torch.equal(layer(x), layer(x))
