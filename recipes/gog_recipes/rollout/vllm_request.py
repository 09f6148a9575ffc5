"""Requests to vLLM's token-in, token-out endpoint, and what is read from its answers. Pure.

`POST /inference/v1/generate` takes token ids with one image pad per image and repeats the pad itself. An image that its
processor cuts otherwise, or pads that were repeated already, would be accepted silently and sampled from. So every answer
must repeat the expanded prompt, which is compared with the tokens that training will read.

Log-probs are those of the sampled tokens under the distribution that they were drawn from: temperature and suppressed
tokens included, which vLLM reports when it is started with --logprobs-mode processed_logprobs.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gog import actions, catalog
from gog.engine import Limits, Seed
from gog.errors import NotFinite, UserError
from gog.trajectory import Segment
from gog_recipes.models.family import Processor

GENERATE = "/inference/v1/generate"
SUPPRESSED = -1e9
"""Added to the logit of a token that must not be sampled; its probability becomes exactly 0 in float32."""
NOT_FINITE = -9999.0
"""What vLLM reports for a log-prob that is minus infinity or not a number."""
MAX_TEMPERATURE = 2.0
"""Highest sampling temperature that vLLM accepts."""


class PromptDiffers(UserError):
    """The server expanded a prompt to other tokens than training will read."""


@dataclass
class Prompt:
    """A conversation so far, as it is sent and as it is expected back."""

    sent: list[int] = field(default_factory=list)
    """Token ids with one image pad per image."""
    expanded: list[int] = field(default_factory=list)
    """Token ids with every image pad."""
    spans: list[tuple[int, int]] = field(default_factory=list)
    """Start and length of each image in `expanded`."""

    def append(self, segment: Segment, image_pad: int, image_tokens: Callable[[str], int]) -> None:
        """Appends a segment.

        Args:
            segment: prompt, turn or observation.
            image_pad: token id of an image token.
            image_tokens: how many tokens an image takes up, by content hash.
        """
        images, at = iter(segment.images), 0
        while at < len(segment.tokens):
            token = segment.tokens[at]
            count = image_tokens(next(images)) if token == image_pad else 1
            if token == image_pad:
                self.spans.append((len(self.expanded), count))
            self.sent.append(token)
            self.expanded += segment.tokens[at : at + count]
            at += count

    def then(self, tokens: Sequence[int]) -> Prompt:
        """The prompt followed by the beginning of a turn."""
        return Prompt([*self.sent, *tokens], [*self.expanded, *tokens], list(self.spans)) if tokens else self


@dataclass(frozen=True)
class Answer:
    """What was sampled."""

    tokens: list[int]
    """Token ids, the one that ended the turn included."""
    logprobs: list[float]
    """Their log-probs under the distribution that they were drawn from."""
    cached: int
    """Tokens of the prompt that the server did not have to read; 0 where it does not say."""
    prompt_logprobs: np.ndarray
    """[n] log-probs of the last n prompt tokens, those after the last image; empty unless they were requested."""


_OPTIONAL = frozenset(f"</{tool.tag}>" for tool in catalog.TOOLS if tool.optional)


def sampling(
    processor: Processor, limits: Limits, suppressed: Sequence[int], seed: Seed, place: Seed, max_tokens: int
) -> dict[str, Any]:
    """Sampling parameters of a request.

    Args:
        processor: gives the tags that end a turn.
        limits: gives the temperature.
        suppressed: token ids that must not be sampled.
        seed: sampling noise of the conversation.
        place: number of the turn, and tokens of it that are sampled already.
        max_tokens: tokens to sample at most.
    """
    closers = processor.forbidden(actions.CLOSING_TAGS)
    # A vocabulary of tags that lacks one of an optional tool was made without that tool.
    single = all(processor.forbidden([tag]) for tag in actions.CLOSING_TAGS if tag not in _OPTIONAL)
    found: dict[str, Any] = {
        "temperature": limits.temperature,
        "max_tokens": max_tokens,
        "logprobs": 0,
        "ignore_eos": True,  # the model's own end of a turn is among the tokens below; others are suppressed
        "stop_token_ids": sorted({processor.turn_end, *closers}),
        "detokenize": not single,
        "skip_special_tokens": False,
        "seed": noise(seed, place),
        "logit_bias": {str(token): SUPPRESSED for token in sorted({*processor.suppress_tokens, *suppressed})},
    }
    if not single:  # only a hint: where a turn ends is decided by the processor (`turn_length`)
        found |= {"stop": list(actions.CLOSING_TAGS), "include_stop_str_in_output": True}
    return found


def noise(seed: Seed, place: Seed) -> int:
    """The seed of a request, 0 to 2^63 - 1: a repeated turn repeats its tokens, and no two turns share noise."""
    return int(np.random.SeedSequence([*seed, *place]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def body(model: str, prompt: Prompt, images: Sequence[str], parameters: dict[str, Any]) -> bytes:
    """A request as JSON.

    Args:
        model: name of the adapter, or of the base model.
        prompt: the conversation.
        images: its images as data URIs, in order.
        parameters: see `sampling`.
    """
    assert len(images) == len(prompt.spans), f"{len(images)} images for {len(prompt.spans)} places"
    parts = [{"type": "image_url", "url": uri} for uri in images]
    request = {"model": model, "token_ids": prompt.sent, "return_token_ids": True, "sampling_params": parameters}
    return json.dumps(request | ({"content_parts": parts} if parts else {}), separators=(",", ":")).encode()


def read(answer: bytes, prompt: Prompt) -> Answer:
    """An answer, whose prompt is compared with ours.

    Raises:
        ValueError: it is not an answer, or the server aborted the request.
        PromptDiffers: the server read another prompt than was meant.
        NotFinite: a sampled token has no log-prob that is finite, which sampling it again would not change.
    """
    try:
        parsed = json.loads(answer)
        [choice] = parsed["choices"]
        content, details = choice["logprobs"]["content"], parsed["usage"].get("prompt_tokens_details") or {}
        tokens, named = list(map(int, choice["token_ids"])), [int(each["token_id"]) for each in content]
        logprobs, cached = [float(each["logprob"]) for each in content], int(details.get("cached_tokens") or 0)
        ids, placeholders, reason = parsed["prompt_token_ids"], parsed["mm_placeholders"], choice["finish_reason"]
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"not an answer of {GENERATE}: {error!r}") from None
    check_prompt(ids, placeholders, prompt)
    if reason not in ("stop", "length"):
        raise ValueError(f"the request ended with {reason!r}")
    if not tokens or named != tokens:
        raise ValueError("its log-probs are not those of its tokens")
    if not all(NOT_FINITE < each < math.inf for each in logprobs):
        raise NotFinite(
            "samples tokens with a log-prob that is not finite",
            where="endpoints.policy",
            remedy="serve the model in the dtype that it is trained in (float16 overflows where bfloat16 does not); if only "
            "one question has this, check its images",
        )
    return Answer(tokens, logprobs, cached, _prompt_logprobs(parsed.get("prompt_logprobs"), prompt))


def _prompt_logprobs(given: Sequence[dict[str, Any]] | None, prompt: Prompt) -> np.ndarray:
    if not given:
        return np.empty(0)
    start = probe_start(prompt)
    wanted = zip(given[start:], prompt.expanded[start:], strict=True)
    return np.array([float(each[str(token)]["logprob"]) for each, token in wanted])


def probe_start(prompt: Prompt) -> int:
    """The first token after the last image; without images the second, because nothing predicts the first."""
    return max((begin + count for begin, count in prompt.spans), default=1)


def check_prompt(ids: Sequence[int] | None, placeholders: dict[str, Any] | None, prompt: Prompt) -> None:
    """Whether the server's prompt is ours.

    Args:
        ids: its expanded token ids.
        placeholders: start and length of each image, as it reports them.
        prompt: ours.

    Raises:
        PromptDiffers: with the first difference.
    """
    spans = [(int(each["offset"]), int(each["length"])) for each in (placeholders or {}).get("image", ())]
    for number, (theirs, ours) in enumerate(itertools.zip_longest(spans, prompt.spans)):
        if theirs != ours:
            seen = f"{theirs[1]} tokens at {theirs[0]}" if theirs else "missing"
            meant = f"{ours[1]} tokens at {ours[0]}" if ours else "no image"
            raise PromptDiffers(
                f"image {number + 1} of a prompt is {seen} on the server, {meant} here",
                where="endpoints.policy",
                remedy="serve the base model of the run, with its minPixels and maxPixels as --mm-processor-kwargs",
            )
    if list(ids or ()) != prompt.expanded:
        differing = (at for at, (a, b) in enumerate(zip(ids or (), prompt.expanded)) if a != b)
        at = next(differing, min(len(ids or ()), len(prompt.expanded)))
        raise PromptDiffers(
            f"the server read a prompt of {len(ids or ())} tokens, of {len(prompt.expanded)} here; they differ at "
            f"token {at}",
            where="endpoints.policy",
            remedy="serve the base model of the run with the version of vLLM that docs/engines.md names",
        )


def turn_length(tokens: Sequence[int], processor: Processor, sampled: int = 0) -> int:
    """How many tokens a turn has, by the rule of every engine; 0 if it has not ended.

    Args:
        tokens: the turn.
        processor: decides where a turn ends.
        sampled: tokens that are known not to end it.
    """
    return next((end for end in range(sampled + 1, len(tokens) + 1) if processor.ends_turn(tokens[:end])), 0)
