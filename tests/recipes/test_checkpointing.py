"""Activation checkpointing changes memory and nothing else."""

from __future__ import annotations

import pytest
import torch
from support import learning

from gog.spec import ModelSpec
from gog_recipes.models import checkpointing, lora, packing, policy_model

LENGTHS = (30, 50)


def policy():
    return learning.adapted(ModelSpec(base="tiny"))


def hidden(model):
    ids = torch.arange(20, 20 + sum(LENGTHS))[None]
    positions = torch.cat([torch.arange(length) for length in LENGTHS]).expand(3, 1, -1)
    return policy_model.family_of(model).hidden_states(
        policy_model.core(model), ids, positions, None, packing.apart(LENGTHS)
    )


def kept(model):
    """Bytes that autograd keeps of a forward pass, and its output."""
    storages = {}
    weights = {each.untyped_storage().data_ptr() for each in model.parameters()}

    def keep(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = hidden(model)
    return sum(each.nbytes() for place, each in storages.items() if place not in weights), out


def test_hidden_states_and_gradients_stay_bit_identical_in_evaluation_mode():
    plain, saving = policy(), policy()
    assert checkpointing.apply(saving, "on", 1)
    one, other = hidden(plain), hidden(saving)
    one.pow(2).sum().backward()
    other.pow(2).sum().backward()
    assert torch.equal(one, other)
    expected, found = learning.gradients_of(plain), learning.gradients_of(saving)
    assert expected and all(torch.equal(found[name], value) for name, value in expected.items())


def test_parameters_keep_their_names():
    plain, saving = policy(), policy()
    checkpointing.apply(saving, "on", 1)
    assert [name for name, _ in saving.named_parameters()] == [name for name, _ in plain.named_parameters()]
    assert saving.state_dict().keys() == plain.state_dict().keys()


def test_a_layer_keeps_its_input_only():
    plain, saving = policy(), policy()
    checkpointing.apply(saving, "on", 1)
    assert kept(saving)[0] < 0.25 * kept(plain)[0]


def test_a_backward_pass_after_the_reference_computes_the_policy_again_and_not_the_reference():
    plain, saving = policy(), policy()
    checkpointing.apply(saving, "on", 1)
    results = []
    for model in (plain, saving):
        out = hidden(model)
        with lora.reference(model):
            base = hidden(model)
        (out - base).pow(2).sum().backward()
        results.append(learning.gradients_of(model))
    assert all(torch.equal(results[1][name], value) for name, value in results[0].items())


def test_auto_follows_the_bytes_of_a_pass():
    assert not checkpointing.apply(policy(), "auto", 16_384)
    assert checkpointing.apply(policy(), "auto", 200_000)
    assert not checkpointing.apply(policy(), "off", 10**9)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_estimate_of_what_is_kept_is_near_what_autograd_keeps(dtype):
    model = learning.adapted(ModelSpec(base="tiny", dtype=dtype))
    measured = kept(model)[0] / sum(LENGTHS)
    assert checkpointing.kept_bytes(model) == pytest.approx(measured, rel=0.35)
