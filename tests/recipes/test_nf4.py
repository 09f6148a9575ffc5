"""A base in 4 bits: what is kept of its weights, and that every path computes the same policy with it."""

from __future__ import annotations

import pytest
import torch
from support import learning
from support.real_structures import real_base  # noqa: F401 (a fixture)

from gog.errors import UserError
from gog.spec import LoraSettings, ModelSpec
from gog_recipes.models import decoder_weights, experts, lora, lora_linear, nf4, policy_model

TINY = {dtype: ModelSpec(base="tiny", dtype=dtype) for dtype in ("float32", "bfloat16")}


def test_every_weight_becomes_the_nearest_of_sixteen_fractions_of_its_blocks_largest():
    torch.manual_seed(0)
    weight = torch.randn(48, 96)
    blocks = weight.view(-1, nf4.BLOCK)
    scales = blocks.abs().amax(1, keepdim=True)
    choices = scales[..., None] * torch.tensor(nf4.VALUES)
    nearest = (blocks[..., None] - choices).abs().amin(-1)
    unpacked = nf4.pack(weight).unpack()
    torch.testing.assert_close((unpacked.view_as(blocks) - blocks).abs(), nearest, rtol=0, atol=1e-6)
    assert torch.equal(nf4.pack(unpacked).unpack(), unpacked)


def test_a_block_of_zeros_stays_zeros():
    assert not nf4.pack(torch.zeros(2, nf4.BLOCK)).unpack().any()


def test_chunks_change_no_bit(monkeypatch):
    weight = torch.randn(60, 64).bfloat16()
    whole = nf4.pack(weight)
    monkeypatch.setattr(nf4, "CHUNK_BYTES", 4 * nf4.BLOCK * 7)
    parts = nf4.pack(weight)
    assert torch.equal(parts.codes, whole.codes) and torch.equal(parts.unpack(), whole.unpack())


def test_one_of_several_weights_is_that_weight():
    weights = torch.randn(3, 32, 64)
    assert torch.equal(nf4.pack(weights)[1].unpack(), nf4.pack(weights[1]).unpack())


def test_a_weight_that_does_not_divide_into_blocks_is_refused():
    layers = torch.nn.ModuleList([torch.nn.Linear(7, 9)])
    with pytest.raises(UserError, match=r"base_quantization: 0\.weight has 63 weights"):
        nf4.quantize(layers, learning.CPU)


def quantized(dtype):
    """The tiny policy on a base in 4 bits, with an adapter that changes it."""
    torch.manual_seed(0)
    model = lora.add(policy_model.load_base(TINY[dtype], learning.CPU, "nf4"), LoraSettings())
    return drawn(model)


def drawn(model):
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return model.eval()


def plain(dtype):
    """The same policy on a base in full, whose weights are those that the packed ones stand for."""
    base = policy_model.load_base(TINY[dtype], learning.CPU)
    packed = policy_model.load_base(TINY[dtype], learning.CPU, "nf4")
    places = dict(packed.named_modules())
    for name, module in base.named_modules():
        if isinstance(places[name], nf4.Linear):
            module.weight.data.copy_(places[name].weight)
    return drawn(lora.add(base, LoraSettings()))


@pytest.mark.parametrize("dtype", TINY)
def test_only_linears_of_the_decoder_are_packed_and_they_take_four_and_a_half_bits(dtype):
    base = policy_model.load_base(TINY[dtype], learning.CPU)
    packed = policy_model.load_base(TINY[dtype], learning.CPU, "nf4")
    layers = policy_model.language_model(base).layers
    expected = {name for name, each in base.named_modules() if isinstance(each, torch.nn.Linear)}
    expected = {name for name in expected if ".language_model.layers." in name}
    assert {name for name, each in packed.named_modules() if isinstance(each, nf4.Linear)} == expected
    own = [each for each in packed.modules() if isinstance(each, nf4.Linear)]
    weights = sum(each.weight.numel() for each in layers.modules() if isinstance(each, torch.nn.Linear))
    assert sum(8 * (each.codes.nbytes + each.scales.nbytes) for each in own) == 4.5 * weights == 4.5 * nf4.count(packed)
    left, whole = (sum(each.numel() for each in model.parameters()) for model in (packed, base))
    assert left == whole - weights


def gradients(model, processor):
    vision = policy_model.vision_of(model, processor)
    rows = [item.segments for item in learning.trajectories(processor, vision, [2, 3])]
    batch = policy_model.collate(rows, processor, vision, learning.CPU)
    logp = policy_model.token_logprobs(model, batch, policy_model.features(batch, vision))
    logp.sum().backward()
    return logp.detach(), learning.gradients_of(model)


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-5), ("bfloat16", 1e-3)])
def test_log_probs_and_gradients_are_those_of_a_base_with_the_unpacked_weights(dtype, bound):
    processor = policy_model.load_processor(TINY[dtype])
    logp, own = gradients(quantized(dtype), processor)
    expected, others = gradients(plain(dtype), processor)
    assert (logp - expected).abs().max() < bound
    assert learning.difference(own, others) < bound
    with torch.no_grad(), lora.reference(model := quantized(dtype)):
        reference = gradients_free(model, processor)
    assert (reference - expected).abs().max() > 1e-2


def gradients_free(model, processor):
    vision = policy_model.vision_of(model, processor)
    rows = [item.segments for item in learning.trajectories(processor, vision, [2, 3])]
    batch = policy_model.collate(rows, processor, vision, learning.CPU)
    return policy_model.token_logprobs(model, batch, policy_model.features(batch, vision))


def test_autograd_keeps_no_unpacked_weight():
    model = quantized("bfloat16")
    layer = next(each for each in model.modules() if type(each) is lora_linear.Linear)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda each: kept.append(each) or each, lambda each: each):
        layer(torch.randn(5, layer.in_features, dtype=torch.bfloat16, requires_grad=True))
    assert (layer.out_features, layer.in_features) not in {tuple(each.shape) for each in kept}


@pytest.mark.parametrize("dtype", TINY)
def test_saved_adapters_are_not_merged_into_packed_weights(dtype, tmp_path):
    trained = quantized(dtype)
    trained.save_pretrained(str(tmp_path))
    policy = lora.with_saved(policy_model.load_base(TINY[dtype], learning.CPU, "nf4"), [tmp_path])
    processor = policy_model.load_processor(TINY[dtype])
    with torch.no_grad():
        found, expected = gradients_free(policy, processor), gradients_free(trained, processor)
    assert (found - expected).abs().max() < 1e-5


def test_the_engine_reads_the_trainers_packed_weights():
    model = quantized("float32")
    layer = policy_model.language_model(model).layers[0]
    seen = decoder_weights.layer(layer, fused=True)
    parts = [*seen.qkv.parts, seen.out, *seen.mlp.gate_up.parts, seen.mlp.down]
    owners = {each.codes.data_ptr() for each in layer.modules() if isinstance(each, nf4.Linear)}
    assert {part.weight.codes.data_ptr() for part in parts} == owners and len(owners) == 7


def hidden(model):
    family, core = policy_model.family_of(model), policy_model.core(model)
    return family.hidden_states(core, torch.arange(100, 130)[None], torch.arange(30).expand(3, 1, -1), None)


@pytest.mark.parametrize("adapted", [False, True])
def test_packed_experts_compute_what_their_unpacked_weights_would(real_base, adapted):  # noqa: F811
    spec = ModelSpec(base=str(real_base("qwen3_vl_moe", layers=2)))
    whole = policy_model.load_base(spec, learning.CPU)
    packed = policy_model.load_base(spec, learning.CPU, "nf4")
    places = dict(packed.named_modules())
    for name, module in whole.named_modules():
        if isinstance(places[name], nf4.Linear):
            module.weight.data.copy_(places[name].weight)
        elif isinstance(places[name], experts.Packed):
            module.gate_up_proj.data.copy_(places[name].gate_up_proj.unpack())
            module.down_proj.data.copy_(places[name].down_proj.unpack())
    assert nf4.count(packed) == sum(each.numel() for each in whole.parameters()) - sum(
        each.numel() for each in packed.parameters()
    )
    if adapted:
        packed, whole = (drawn(lora.add(each, LoraSettings(rank=4))) for each in (packed, whole))
        assert lora.linears(packed) == lora.linears(whole)
    found, expected = hidden(packed), hidden(whole)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
    if adapted:
        for each in (found, expected):
            each.square().mean().backward()
        assert learning.difference(learning.gradients_of(packed), learning.gradients_of(whole)) < 1e-4
