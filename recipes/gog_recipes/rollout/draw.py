"""Drawing the next token of each conversation from its own noise. Pure.

A token is the place where the cumulative probability passes a number in [0, 1). The same noise and the same logits give
the same token, whatever else is in the batch. b conversations, v tokens in the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


def draw(
    logits: torch.Tensor, suppressed: Sequence[Sequence[int]], noise: Sequence[float] | None, temperature: float
) -> tuple[list[int], list[float]]:
    """One token per conversation.

    Args:
        logits: [b, v], float32.
        suppressed: token ids that each of the b conversations must not sample.
        noise: b numbers in [0, 1); None takes the most probable token.
        temperature: divides the logits, for log-probs and draws alike; more than 0.

    Returns:
        b token ids, and their b log-probs under the distribution that they were drawn from.
    """
    logits = logits.clone() if any(suppressed) else logits
    for number, tokens in enumerate(suppressed):
        if tokens:
            logits[number, list(tokens)] = float("-inf")
    logprobs = (logits if temperature == 1 else logits / temperature).log_softmax(-1)
    if noise is None:
        chosen = logits.argmax(-1)
    else:
        chosen = inverse_cdf(logprobs, torch.tensor(noise, dtype=torch.float64, device=logits.device))
    return chosen.tolist(), logprobs.gather(1, chosen[:, None])[:, 0].tolist()


def inverse_cdf(logprobs: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """The first token at which the cumulative probability exceeds the noise; never one that adds nothing to it.

    Args:
        logprobs: [b, v], of which at least one per row is above -inf.
        noise: [b] float64 in [0, 1]; 1 draws the last token that has a probability.

    Returns:
        [b] token ids.
    """
    cumulative = logprobs.exp().double().cumsum(-1)
    total = cumulative[:, -1:]
    # Rounding brings noise near 1 up to the whole sum, which no token exceeds; the largest number below it is exceeded.
    below = torch.nextafter(total, torch.zeros_like(total))
    found = torch.searchsorted(cumulative, torch.minimum(noise[:, None] * total, below), right=True)[:, 0]
    return found.clamp_(max=logprobs.shape[1] - 1)  # a row with a NaN has no such place, and a log-prob that says so
