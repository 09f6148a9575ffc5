"""Rows of one batch, each sampled by its own rules inside transformers' generate().

generate() knows one temperature and one limit for all rows. So a logits processor draws every row's token itself and
leaves generate() only that token to take. Noise belongs to the row: with a seed, its draws do not depend on what else
is in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers

from gog.completions import Completion, Sampling
from gog_recipes.models.family import Patches


@dataclass
class Row:
    """A completion that is being generated."""

    completion: Completion
    """Filled in token by token."""
    sampling: Sampling
    """The rules of this row."""
    patches: list[Patches]
    """Images of the prompt, in order."""
    max_tokens: int
    """Tokens after which it ends."""
    done: bool = False
    """Whether it has ended."""

    def __post_init__(self) -> None:
        self.noise = np.random.default_rng(self.sampling.seed)

    def draw(self, logits: torch.Tensor) -> int:
        """The next token from logits [vocabulary], float32."""
        temperature = self.sampling.temperature
        logprobs = (logits / temperature if temperature > 0 else logits).log_softmax(-1)
        if temperature > 0:
            sums = logprobs.double().exp().cumsum(-1).cpu().numpy()
            token = int(np.searchsorted(sums, self.noise.random() * sums[-1], side="right"))
        else:
            token = int(logprobs.argmax())
        self.completion.tokens.append(token)
        self.completion.logprobs.append(float(logprobs[token]))
        return token

    def conclude(self, tokenizer: Any) -> None:
        """Sets text and finish reason once generation has ended; the text is cut at the stop string."""
        done = self.completion
        done.text = tokenizer.decode(done.tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        if done.stopped_by:
            done.text = done.text.partition(done.stopped_by)[0]
        done.finish = done.finish or "length"


class Sampler(transformers.LogitsProcessor):
    """Draws the tokens of all rows for generate(), which finds a single possible token in each."""

    def __init__(self, rows: list[Row], tokenizer: Any, ends: Sequence[int]) -> None:
        self.rows, self.tokenizer, self.ends = rows, tokenizer, frozenset(ends)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        taken = torch.full_like(scores, float("-inf"))
        for number, row in enumerate(self.rows):
            taken[number, 0 if row.done else self._advance(row, scores[number].float())] = 0.0
        return taken

    def _advance(self, row: Row, logits: torch.Tensor) -> int:
        token = row.draw(logits)
        done = row.completion
        if token in self.ends:
            done.finish = "stop"
        elif row.sampling.stop:
            # A stop string has no more tokens than letters, so the end of the text is enough to look at.
            last = done.tokens[-(max(map(len, row.sampling.stop)) + 8) :]
            text = self.tokenizer.decode(last, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            found = [stop for stop in row.sampling.stop if stop in text]
            if found:
                done.stopped_by, done.finish = min(found, key=text.index), "stop"
        row.done = bool(done.finish) or len(done.tokens) >= row.max_tokens
        return token

    def finished(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        """generate()'s question after each token: [b] bool."""
        return torch.tensor([row.done for row in self.rows], device=input_ids.device)
