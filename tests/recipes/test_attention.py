"""Packed conversations: one row, block-diagonal causal attention, equal to each conversation by itself."""

from __future__ import annotations

import pytest
import torch

from gog.spec import LoraSettings, ModelSpec
from gog_recipes.models import attention, lora, packing, policy_model

CPU = torch.device("cpu")
LENGTHS = (1, 7, 40, 2, 19)


@pytest.fixture
def policy():
    torch.manual_seed(0)
    model = lora.add(policy_model.load_base(ModelSpec(base="tiny"), CPU), LoraSettings())
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return model


def conversations(model):
    generator = torch.Generator().manual_seed(1)
    vocabulary = policy_model.core(model).config.text_config.vocab_size
    return [torch.randint(20, vocabulary, (1, length), generator=generator) for length in LENGTHS]


def hidden(model, ids, lengths=None):
    spans, layout = lengths or (ids.shape[1],), packing.apart(lengths) if lengths else None
    positions = torch.cat([torch.arange(length) for length in spans]).expand(3, 1, -1)
    return policy_model.family_of(model).hidden_states(policy_model.core(model), ids, positions, None, layout)


def test_a_packed_row_equals_its_conversations_one_by_one(policy):
    rows = conversations(policy)
    packed = hidden(policy, torch.cat(rows, dim=1), LENGTHS)
    single = torch.cat([hidden(policy, row) for row in rows], dim=1)
    assert float((packed - single).detach().abs().max()) < 1e-5


def test_gradients_of_a_packed_row_equal_those_of_its_conversations(policy):
    rows = conversations(policy)
    trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    packed = torch.autograd.grad(hidden(policy, torch.cat(rows, dim=1), LENGTHS).pow(2).mean(), trained)
    total = sum(LENGTHS)
    single = sum(hidden(policy, row).pow(2).mean() * row.shape[1] / total for row in rows)
    for one, other in zip(packed, torch.autograd.grad(single, trained), strict=True):
        assert float((one - other).norm()) <= 1e-5 * float(other.norm())


def test_a_conversation_does_not_see_the_ones_packed_before_it(policy):
    rows = conversations(policy)
    changed = [torch.full_like(rows[0], 21), torch.full_like(rows[1], 22), *rows[2:]]
    one, other = (hidden(policy, torch.cat(each, dim=1), LENGTHS) for each in (rows, changed))
    start = sum(LENGTHS[:2])
    assert torch.equal(one[:, start:], other[:, start:])
    assert not torch.equal(one[:, :start], other[:, :start])


def test_lengths_that_do_not_fill_the_row_are_refused(policy):
    with pytest.raises(ValueError, match="lengths sum to 5 in 1 rows of 6 tokens"):
        policy_model.family_of(policy).hidden_states(
            policy_model.core(policy),
            torch.full((1, 6), 30),
            torch.arange(6).expand(3, 1, -1),
            None,
            packing.apart((2, 3)),
        )


def test_an_attention_that_would_ignore_the_lengths_is_refused(policy):
    policy_model.language_model(policy).config._attn_implementation = "eager"
    with pytest.raises(ValueError, match="packing needs sdpa, not eager"):
        hidden(policy, torch.full((1, 5), 30), (2, 3))


def test_attention_without_a_total_by_total_mask(policy):
    """The largest tensor that autograd keeps stays linear in the row's length."""
    sizes = []
    rows = conversations(policy)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        hidden(policy, torch.cat(rows * 8, dim=1), LENGTHS * 8)
    total = 8 * sum(LENGTHS)
    assert max(sizes) < total * total
    assert policy_model.language_model(policy).config._attn_implementation == attention.NAME
