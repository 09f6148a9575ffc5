"""Attention of conversations that share a prefix: exact, and without a copy of the prefix for each."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from gog_recipes.models import packing, shared_attention

LAYOUT = (packing.Tree(0, (9,)), packing.Tree(33, (7, 40, 1)), packing.Tree(0, (1,)), packing.Tree(5, (2, 64)))
TOTAL = sum(tree.tokens for tree in LAYOUT)
HEADS, KEY_HEADS, SIZE = 6, 2, 16


def tensors(dtype):
    generator = torch.Generator().manual_seed(0)
    make = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)  # noqa: E731
    states = [make(1, heads, TOTAL, SIZE).requires_grad_() for heads in (HEADS, KEY_HEADS, KEY_HEADS)]
    return states, make(1, TOTAL, HEADS, SIZE)


def plain(query, key, value, scaling):
    """Attention under a mask of the whole row."""
    mask = torch.zeros(TOTAL, TOTAL, dtype=torch.bool)
    start = 0
    for tree in LAYOUT:
        place = start + tree.prefix
        mask[start:place, start:place] = True
        for length in tree.suffixes:
            mask[place : place + length, start : start + tree.prefix] = True
            mask[place : place + length, place : place + length] = True
            place += length
        start += tree.tokens
    scores = query @ key.repeat_interleave(HEADS // KEY_HEADS, 1).transpose(-1, -2) * (scaling or SIZE**-0.5)
    weights = scores.masked_fill(~mask.tril(), float("-inf")).softmax(-1)
    return (weights @ value.repeat_interleave(HEADS // KEY_HEADS, 1)).transpose(1, 2)


def results(function, dtype, scaling):
    states, gradient = tensors(dtype)
    out = function(*states, scaling)
    return [out.detach(), *torch.autograd.grad(out, states, gradient)]


@pytest.mark.parametrize("function", [shared_attention.attend, shared_attention._masked], ids=["merged", "masked"])
@pytest.mark.parametrize("scaling", [None, 0.1])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-14), (torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_outputs_and_gradients_are_those_of_one_mask_over_the_row(function, scaling, dtype, bound):
    own = results(lambda q, k, v, scale: function(q, k, v, LAYOUT, scale), dtype, scaling)
    exact = results(plain, torch.float64, scaling)
    for found, expected in zip(own, exact, strict=True):
        assert found.dtype == dtype and found.shape == expected.shape
        assert float((found.double() - expected).norm()) < bound * float(expected.norm())


def test_autograd_keeps_no_copy_of_the_prefix_for_each_conversation():
    layout = (packing.Tree(200, (3,) * 50),)
    states = [torch.randn(1, heads, 350, SIZE, requires_grad=True) for heads in (HEADS, HEADS, HEADS)]
    kept = {}
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.setdefault(t.data_ptr(), t), lambda t: t):
        shared_attention.attend(*states, layout, None)
    assert sum(each.numel() for each in kept.values()) <= 5 * 350 * HEADS * SIZE


def test_the_calls_of_torchs_cuda_kernel_fit_its_signature_and_shapes(monkeypatch):
    """On tensors without data: what the kernel computes is not shown here."""
    monkeypatch.setattr(shared_attention, "has_kernel", lambda query: True)
    with FakeTensorMode(), torch.no_grad():
        make = lambda *shape: torch.empty(*shape, dtype=torch.bfloat16, device="cuda")  # noqa: E731
        q, k, v = (make(1, heads, TOTAL, SIZE) for heads in (HEADS, KEY_HEADS, KEY_HEADS))
        assert shared_attention.attend(q, k, v, LAYOUT, None).shape == (1, TOTAL, HEADS, SIZE)
        for part in shared_attention._parts(LAYOUT):
            own, keys, values = q[:, :, part.queries], k[:, :, part.keys], v[:, :, part.keys]
            out, lse = shared_attention._cuda(own, keys, values, part, None)
            found = shared_attention._cuda_backward(torch.empty_like(out), own, keys, values, out, lse, part, None)
            assert out.shape == own.shape and lse.shape == own.shape[:-1]
            assert [each.shape for each in found] == [own.shape, keys.shape, values.shape]
    shared_attention._ends.cache_clear()  # of tensors without data
