"""Log-probabilities of given tokens without the logits of all of them at once.

Logits of one token at a vocabulary of 152,000 are 0.6 MB in float32, more than all else that a token needs. So they are
computed in chunks, and each chunk's derivative by the hidden states is formed at once, while its logits exist: per
token one row of hidden size is kept, and the backward pass only scales it. That is exact, and spares the backward pass
both the logits and the head's weights. It needs a frozen head.

Shapes: k tokens, h hidden size, v vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

CHUNK_BYTES = 128 * 2**20
"""Size of a chunk's logits in float32 at most; about three such buffers exist at a time."""
CHUNK_ROWS = 512
"""Tokens of a chunk at most: more make no product faster, and with a small vocabulary would be all tokens of a pass."""


def of_tokens(
    hidden: torch.Tensor,
    head: torch.Tensor,
    tokens: torch.Tensor,
    suppressed: torch.Tensor,
    temperature: float,
    *,
    chunk_bytes: int = CHUNK_BYTES,
) -> torch.Tensor:
    """Log-probability of each token under softmax(logits / temperature) without the suppressed ids.

    Args:
        hidden: [k, h] states that predict the tokens, of any floating-point type
        head: [v, h] weights of the language head, frozen
        tokens: [k] token ids
        suppressed: [s] ids that are never sampled; may be empty
        temperature: above 0
        chunk_bytes: bounds the logits that exist at a time, as CHUNK_ROWS does

    Returns:
        [k] float32, differentiable by `hidden`; minus infinity for a suppressed token.
    """
    if head.requires_grad:
        raise ValueError("the language head must be frozen: its gradient is not computed")
    rows = _rows(head, chunk_bytes)
    found: torch.Tensor = _LogProbs.apply(hidden, head, tokens, suppressed, temperature, rows)
    return found


def most_probable(hidden: torch.Tensor, head: torch.Tensor, *, chunk_bytes: int = CHUNK_BYTES) -> torch.Tensor:
    """The most probable token for each state: [k] ids for hidden [k, h] and head [v, h]."""
    rows = _rows(head, chunk_bytes)
    parts = [F.linear(part, head).argmax(-1) for part in hidden.split(rows)]
    return torch.cat(parts) if parts else hidden.new_empty(0, dtype=torch.int64)


def _rows(head: torch.Tensor, chunk_bytes: int) -> int:
    """Tokens of a chunk for head [v, h]."""
    return min(CHUNK_ROWS, max(1, chunk_bytes // (4 * len(head))))


class _LogProbs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        head: torch.Tensor,
        tokens: torch.Tensor,
        suppressed: torch.Tensor,
        temperature: float,
        rows: int,
    ) -> torch.Tensor:
        out = hidden.new_empty(len(hidden), dtype=torch.float32)
        by_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for start in range(0, len(hidden), rows):
            part = slice(start, start + rows)
            logits = F.linear(hidden[part], head).float().index_fill_(1, suppressed, float("-inf")).div_(temperature)
            own = tokens[part, None]
            total = logits.logsumexp(-1, keepdim=True)
            out[part] = (logits.gather(1, own) - total)[:, 0]
            if by_hidden is None:
                continue
            # By the logits it is (1 at the token, else 0) - softmax. The difference is taken in float32, because it is
            # tiny for a token that the model is sure of.
            slope = logits.sub_(total).exp_().neg_()
            slope.scatter_add_(1, own, torch.ones_like(own, dtype=slope.dtype))
            by_hidden[part] = slope.div_(temperature).to(head.dtype) @ head
        if by_hidden is not None:
            ctx.save_for_backward(by_hidden)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (by_hidden,) = ctx.saved_tensors
        return (gradients[0][:, None] * by_hidden).to(by_hidden.dtype), None, None, None, None, None
