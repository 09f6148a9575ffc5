"""Completions of a served policy: drawn from the distribution that it was trained in."""

from __future__ import annotations

import numpy as np
import torch
from support.real_structures import real_base  # noqa: F401 (a fixture)

from gog.completions import Job, Prompt, Sampling
from gog.images import Image
from gog_recipes.models.completion import PolicyModel

QUESTION = Prompt(
    "<|vision_start|><|image_pad|><|vision_end|>what is shown?", (Image(np.zeros((56, 56, 3), np.uint8)),)
)


def completion_of(served, scores):
    """Up to three tokens of a policy with these scores of tokens at every place."""
    values = torch.zeros(served.model.config.get_text_config().vocab_size)
    for token, score in scores.items():
        values[token] = score
    served.model.lm_head.register_forward_hook(lambda module, given, out: out * 0 + values)
    (completion,) = served.complete([Job(QUESTION, Sampling(max_tokens=3), "")])
    return completion


def test_a_token_that_rollouts_never_sample_is_not_served(real_base):  # noqa: F811
    served = PolicyModel(real_base("qwen2_5_vl"))
    never, other = served.processor.image_pad, served.tokenizer.encode("cat")[0]
    assert never in served.processor.suppress_tokens
    assert completion_of(served, {never: 40.0, other: 20.0}).tokens == [other] * 3


def test_a_token_that_ends_a_text_is_served_although_rollouts_never_sample_it(real_base):  # noqa: F811
    served = PolicyModel(real_base("qwen2_5_vl"))
    end = served.processor.pad  # <|endoftext|>, with which a base model ends
    assert end in served.processor.suppress_tokens
    assert completion_of(served, {end: 40.0}).finish == "stop"
