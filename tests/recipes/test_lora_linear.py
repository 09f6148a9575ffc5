"""LoRA beside weights of low precision: an update of RL is not rounded away, in training as in the engine."""

from __future__ import annotations

import copy

import pytest
import torch
from peft.tuners import lora as peft_lora
from support import learning
from torch.utils._python_dispatch import TorchDispatchMode

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
    torch.manual_seed(3)  # of the adapter's A, too: what rounding leaves of the update differs by a tenth
    model, processor = adapted(), policy_model.load_processor(SPEC)
    vision = policy_model.vision_of(model, processor)
    rows = [item.segments for item in learning.trajectories(processor, vision, [6] * 12)]
    batch = policy_model.collate(rows, processor, vision, learning.CPU)
    exact = copy.deepcopy(model).float()
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
    assert learning.difference(*found) < (3e-6 if dtype == "float32" else 0.05), (
        "sums are in an order of the processor's"
    )


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
    for each in (own, plain):  # which differ in single last digits: products are added in an order of the processor's
        assert (each - exact).abs().mean() < 1.001 * rounded


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


@pytest.fixture(scope="module", params=[torch.float64, torch.float32, torch.bfloat16], ids=str)
def same_input(request):
    """x [40, 64] and three linears of it: with a bias, with two adapters, and without adapters."""
    torch.manual_seed(2)
    dtype, make = request.param, lambda *shape: torch.randn(*shape, dtype=torch.float64) / 8
    side = torch.float32 if dtype == torch.bfloat16 else dtype
    adapter = lambda out, rank, factor: lora_linear.Adapter(  # noqa: E731
        make(rank, 64).to(side).requires_grad_(), make(out, rank).to(side).requires_grad_(), factor
    )
    own = [(adapter(48, 8, 2.0),), (adapter(32, 4, 0.3), adapter(32, 8, 1.5)), ()]
    biases = [make(48).to(dtype), None, None]
    weights = [make(out, 64).to(dtype) for out in (48, 32, 16)]
    targets = [lora_linear.Target(*each) for each in zip(weights, biases, own, strict=True)]
    return make(40, 64).to(dtype).requires_grad_(), targets


def test_linears_of_the_same_input_equal_each_by_itself_in_outputs_and_gradients(same_input):
    x, targets = same_input
    trained = [each for target in targets for adapter in target.adapters for each in (adapter.a, adapter.b)]

    def results(function):
        outs = function()
        loss = sum((out.double() * torch.linspace(-1, 1, out.numel()).view_as(out)).sum() for out in outs)
        return [*(out.detach() for out in outs), *torch.autograd.grad(loss, [x, *trained])]

    def exact(target):
        made = x.double() @ target.weight.double().t() + (0 if target.bias is None else target.bias.double())
        updates = (x.double() @ each.a.double().t() @ each.b.double().t() * each.scaling for each in target.adapters)
        return made + sum(updates)

    bound = {torch.float64: 1e-14, torch.float32: 1e-6, torch.bfloat16: 5e-3}[x.dtype]
    together = results(lambda: lora_linear.linears(x, targets))
    expected = results(lambda: [exact(target) for target in targets])
    for found, wanted in zip(together, expected, strict=True):
        assert float((found.double() - wanted.double()).norm()) < bound * float(wanted.double().norm())


def test_a_layer_computes_linears_of_the_same_input_together(monkeypatch):
    model, joined = adapted(ModelSpec(base="tiny")), []
    usual = lora_linear.linears
    monkeypatch.setattr(lora_linear, "linears", lambda x, targets: joined.append(len(targets)) or usual(x, targets))
    layer = policy_model.language_model(model).layers
    hidden = policy_model.family_of(model).hidden_states
    hidden(policy_model.core(model), torch.arange(9)[None], torch.arange(9).expand(3, 1, 9), None)
    assert joined == [3, 1, 2, 1] * len(layer)


def first_attention(spec):
    attention = policy_model.language_model(adapted(spec)).layers[0].self_attn
    for name in lora_linear.SAME_INPUT[0]:
        torch.nn.init.normal_(getattr(attention, name).lora_B[lora.TRAINED].weight)
    return attention


def test_a_linear_that_gets_another_input_than_its_siblings_computes_its_own():
    attention = first_attention(ModelSpec(base="tiny"))
    one, other = torch.randn(2, 5, attention.q_proj.in_features)
    expected = peft_lora.Linear.forward(attention.k_proj, other)
    attention.q_proj(one)
    assert torch.allclose(attention.k_proj(other), expected, atol=1e-5)
    assert torch.allclose(attention.k_proj(one), peft_lora.Linear.forward(attention.k_proj, one), atol=1e-5)


def test_a_changed_adapter_is_not_answered_from_before():
    attention = first_attention(ModelSpec(base="tiny"))
    x = torch.randn(5, attention.q_proj.in_features)
    attention.q_proj(x)
    before = attention.k_proj(x)
    with torch.no_grad():
        attention.k_proj.lora_B[lora.TRAINED].weight.zero_()
    attention.q_proj(x)
    assert not torch.allclose(attention.k_proj(x), before)


def test_a_fresh_adapter_changes_no_bit_of_the_float32_policy():
    model = adapted(ModelSpec(base="tiny"))
    ids, positions = torch.arange(24)[None], torch.arange(24).expand(3, 1, 24)
    hidden = lambda: policy_model.family_of(model).hidden_states(policy_model.core(model), ids, positions, None)  # noqa: E731
    with torch.no_grad(), lora.reference(model):
        reference = hidden()
    assert torch.equal(hidden(), reference)


def test_an_update_makes_no_pass_over_the_output_but_its_product():
    passes = []

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.numel() >= 256 * 384:
                passes.append(func.overloadpacket.__name__)
            return out

    adapter = lora_linear.Adapter(torch.randn(8, 512), torch.randn(384, 8), 2.0)
    with Recorder():
        lora_linear.linear(torch.randn(256, 512).detach(), torch.randn(384, 512), None, [adapter])
    assert sorted(each for each in passes if each not in ("randn", "detach", "t", "view")) == ["addmm_", "mm"]
