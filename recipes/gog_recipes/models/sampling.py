"""Rows of one batch that are sampled each by its own rules, inside transformers' generate().

generate() knows one temperature and one limit for all. So a logits processor draws every row's token itself and leaves
generate() nothing but that token to take. Noise belongs to the row: with a seed, what it draws does not depend on what
else is in the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers

from gog.completions import Completion, Sampling


@dataclass
class Row:
    """A completion under way."""

    completion: Completion
    sampling: Sampling
    patches: list[Any]
    max_tokens: int
    done: bool = False

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
        """The text, cut at the stop string, once nothing more comes."""
        done = self.completion
        done.text = tokenizer.decode(done.tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        if done.stopped_by:
            done.text = done.text.partition(done.stopped_by)[0]
        done.finish = done.finish or "length"


class Sampler(transformers.LogitsProcessor):
    """Samples for generate(): every row by its own rules; generate() then finds one token left to take."""

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
