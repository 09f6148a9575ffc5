"""The policy's log-probs by the plain formula, with the logits of all learned tokens at once, to compare with."""

from __future__ import annotations

import torch

from gog_recipes.models import policy_model
from gog_recipes.models.family import Processor
from gog_recipes.models.vision import Vision


def forward(
    model: torch.nn.Module, batch: policy_model.Batch, processor: Processor, vision: Vision
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [k, vocabulary] that predict the k learned tokens of a batch, and those tokens [k], in order."""
    core, images = policy_model.core(model), policy_model.features(batch, vision)
    hidden = policy_model.family_of(model).hidden_states(core, batch.ids, batch.positions, images, batch.layout)
    return core.lm_head(hidden[0, batch.predictors]), batch.targets


def logprobs(logits: torch.Tensor, tokens: torch.Tensor, processor: Processor, temperature: float) -> torch.Tensor:
    """Log-probabilities [k] float32 of tokens [k] under the distribution that logits [k, vocabulary] are sampled by."""
    suppressed = torch.tensor(processor.suppress_tokens)
    scaled = logits.float().index_fill(1, suppressed, float("-inf")) / temperature
    return scaled.log_softmax(-1).gather(1, tokens[:, None])[:, 0]
