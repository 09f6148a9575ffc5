"""Muon in fp32, with matrices of equal shape orthogonalize together.

torch.optim.Muon takes one matrix at a time, in bf16, which is slow on a CPU without bf16 units. Method and constants:
Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks". The scale by shape is that of Moonlight
(Liu et al. 2025, "Muon is scalable for LLM training").
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """Optimizer for matrices.

    Args:
        params: matrices [rows, columns].
        lr: learning rate; the update of an entry has about the size that AdamW gives it at this rate.
        momentum: of the gradient, Nesterov.
        weight_decay: decoupled, multiplied by lr.
        iterations: Newton-Schulz steps.
    """

    def __init__(
        self,
        params: Iterable[torch.Tensor],
        lr: float = 3e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
        iterations: int = 5,
    ) -> None:
        super().__init__(
            params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "iterations": iterations}
        )

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Updates every matrix that has a gradient."""
        for group in self.param_groups:
            updates: dict[torch.Size, list[tuple[torch.Tensor, torch.Tensor]]] = {}
            for matrix in group["params"]:
                if matrix.grad is not None:
                    updates.setdefault(matrix.shape, []).append((matrix, self._momentum(matrix, group)))
            for shape, pairs in updates.items():
                steps = orthogonalize(torch.stack([update for _, update in pairs]), group["iterations"])
                rate = group["lr"] * 0.2 * max(shape) ** 0.5
                for (matrix, _), step in zip(pairs, steps, strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"]).add_(step, alpha=-rate)

    def _momentum(self, matrix: torch.Tensor, group: dict[str, Any]) -> torch.Tensor:
        """Nesterov momentum of the gradient [rows, columns]."""
        memory = self.state[matrix].setdefault("momentum", torch.zeros_like(matrix))
        memory.lerp_(matrix.grad, 1 - group["momentum"])
        return matrix.grad.lerp(memory, group["momentum"])


def orthogonalize(matrices: torch.Tensor, iterations: int) -> torch.Tensor:
    """Brings singular values near 1 by Newton-Schulz iteration.

    Args:
        matrices: [k, rows, columns].
        iterations: number of steps; five suffice.

    Returns:
        [k, rows, columns].
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(iterations):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x
