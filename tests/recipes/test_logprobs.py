"""Log-probs of learned tokens in chunks: equal to log_softmax over all logits, gradients included."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from gog_recipes.models import logprobs

TOKENS, HIDDEN, VOCABULARY = 23, 16, 97
ONE_ROW, SEVEN_ROWS = 4 * VOCABULARY, 7 * 4 * VOCABULARY


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(TOKENS, HIDDEN, generator=generator)
    head = torch.randn(VOCABULARY, HIDDEN, generator=generator)
    return hidden, head, torch.randint(60, VOCABULARY, (TOKENS,), generator=generator)


def plain(hidden, head, tokens, suppressed, temperature):
    logits = F.linear(hidden, head).float().index_fill(1, suppressed, float("-inf")) / temperature
    return logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0]


@pytest.mark.parametrize("chunk", [ONE_ROW, SEVEN_ROWS, 2**30])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("suppressed", [[], [3], list(range(60))])
def test_chunks_give_the_log_softmax_and_its_gradient(inputs, chunk, temperature, suppressed):
    hidden, head, tokens = inputs
    ids, weights = torch.tensor(suppressed, dtype=torch.int64), torch.linspace(-1, 2, TOKENS)
    results = []
    for compute in (lambda *a: logprobs.of_tokens(*a, chunk_bytes=chunk), plain):
        states = hidden.clone().requires_grad_()
        found = compute(states, head, tokens, ids, temperature)
        (found * weights).sum().backward()
        results.append((found.detach(), states.grad))
    for one, other in zip(*results, strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-5)


def test_their_mean_is_cross_entropy(inputs):
    hidden, head, tokens = inputs
    none = torch.tensor([], dtype=torch.int64)
    found = -logprobs.of_tokens(hidden, head, tokens, none, 1.0, chunk_bytes=SEVEN_ROWS).mean()
    assert torch.allclose(found, F.cross_entropy(F.linear(hidden, head), tokens), rtol=1e-6)


def test_the_gradient_of_a_token_that_the_model_is_sure_of_keeps_its_precision_in_bfloat16(inputs):
    _, head, tokens = inputs
    sure = (head[tokens] * 3).bfloat16().requires_grad_()
    none = torch.tensor([], dtype=torch.int64)
    logprobs.of_tokens(sure, head.bfloat16(), tokens, none, 1.0).sum().backward()
    exact = sure.detach().float().requires_grad_()
    plain(exact, head.bfloat16().float(), tokens, none, 1.0).sum().backward()
    assert float((sure.grad - exact.grad).norm() / exact.grad.norm()) < 0.02


def test_a_suppressed_token_is_impossible(inputs):
    hidden, head, tokens = inputs
    found = logprobs.of_tokens(hidden, head, tokens, tokens[:1], 1.0)
    assert bool(found[tokens == tokens[0]].isneginf().all()) and bool(found[tokens != tokens[0]].isfinite().all())


def test_logits_exist_for_one_chunk_at_a_time_and_none_is_kept(inputs):
    hidden, head, tokens = inputs
    kept, none = [], torch.tensor([], dtype=torch.int64)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        logprobs.of_tokens(hidden.requires_grad_(), head, tokens, none, 1.0, chunk_bytes=ONE_ROW)
    assert kept == [TOKENS * HIDDEN]


def test_a_head_that_is_trained_is_refused(inputs):
    hidden, head, tokens = inputs
    with pytest.raises(ValueError, match="head must be frozen"):
        logprobs.of_tokens(hidden, head.requires_grad_(), tokens, torch.tensor([], dtype=torch.int64), 1.0)
