"""Whether a policy sees its adapter and its images, by log-probabilities of a few tokens. Pure.

For some tokens that the engine sampled there are its own log-probabilities and the trainer's: by the policy, and by
variants of it that lack something (the adapter, the images, the last update). Two rules, without a tuned threshold:

    - a variant equal to the policy, over all tokens of all trajectories, shows that the policy lacks the same thing. Not
      "nearly equal": a policy may have little use for an image, but a forward pass that gets features differs from one
      that does not
    - an engine at most half as far from a variant as from the policy samples from the variant, if it is further from the
      policy than rounding explains. (Without that condition an update too small for bfloat16 trips it: it changes which
      numbers the trainer rounds up, the engine rounds others, and both are nearer to what they were before)

The third rule is the bound on the gap: an engine that is neither, in most trajectories.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

ROUNDING = {"float32": 1e-5, "bfloat16": 0.02}
"""Nats per token by which two computations of the same policy may differ, by type of the base weights."""
EQUAL = 1e-6
"""Nats per token up to which a variant equals the policy: float32 rounding of two equal computations."""
NEAR = 0.5
"""How much nearer to a variant than to the policy an engine must be, to be taken for it."""

ADAPTER, IMAGES, UPDATE, TRAINED = "adapter", "images", "update", "trained adapter"
"""Variants, by what they lack: every adapter, the image features, the last update, the adapter that is trained."""
LACKS = {
    ADAPTER: "does not see its adapter",
    IMAGES: "does not see its images",
    UPDATE: "is that before the last update",
    TRAINED: "does not see the adapter that is trained",
}
"""What is wrong with a policy that equals the variant."""
REMEDIES = {
    ADAPTER: "check that the adapter is applied: its folder, its target modules and its version",
    IMAGES: "check the base model's processor and vision tower, and that every prompt has a placeholder per image",
    UPDATE: "check that the engine's switch loads the weights that it is given",
    TRAINED: "check that the engine's switch loads the adapter that is trained, beside the one of SFT",
}


@dataclass(frozen=True)
class Variant:
    """A variant's log-probabilities of a trajectory's tokens, mean differences in nats."""

    effect: float
    """|policy - variant|: what the missing part changes."""
    engine: float
    """|engine - variant|."""


@dataclass(frozen=True)
class Reading:
    """What was found for some tokens of a trajectory."""

    id: str
    """Of the trajectory."""
    tokens: int
    """Tokens that were compared, at least 1."""
    engine: float
    """Mean |engine - policy|, in nats."""
    variants: Mapping[str, Variant] = field(default_factory=dict)
    """By what is missing; without those that do not apply to it, such as images that it does not show."""


@dataclass(frozen=True)
class Verdict:
    """What is wrong, and what to do."""

    what: str
    """One sentence."""
    remedy: str
    """Where to look."""


def engine_gap(readings: Sequence[Reading]) -> float:
    """Mean |engine - policy| over tokens, in nats."""
    return sum(each.engine * each.tokens for each in readings) / sum(each.tokens for each in readings)


def effect(readings: Sequence[Reading], variant: str) -> float | None:
    """Mean |policy - variant| over tokens, in nats; None where no trajectory has this variant."""
    having = [each for each in readings if variant in each.variants]
    if not having:
        return None
    total = sum(each.variants[variant].effect * each.tokens for each in having)
    return total / sum(each.tokens for each in having)


def is_suspect(readings: Sequence[Reading], bound: float, rounding: float) -> bool:
    """Whether more must be read before these decide: something is wrong, or rounding does not explain the gap.

    Args:
        readings: of one trajectory of each rank
        bound: as for `decide`
        rounding: as for `decide`
    """
    return bool(readings) and (decide(readings, bound, rounding) is not None or engine_gap(readings) > rounding)


def decide(readings: Sequence[Reading], bound: float, rounding: float) -> Verdict | None:
    """What is wrong with the policy or its engine; None if nothing is.

    Args:
        readings: of several trajectories
        bound: nats per token by which engine and policy may differ (`max_logprob_gap`)
        rounding: what rounding explains of that, of ROUNDING
    """
    if not readings:
        return None
    return (
        _not_finite(readings)
        or _blind_policy(readings)
        or _engine_of_a_variant(readings, rounding)
        or _engine_of_another_policy(readings, bound)
    )


def _not_finite(readings: Sequence[Reading]) -> Verdict | None:
    for each in readings:
        if not all(map(math.isfinite, (each.engine, *(variant.effect for variant in each.variants.values())))):
            what = f"the trainer's log-probabilities of trajectory {each.id} are not finite"
            return Verdict(what, "check the base model's weights and dtype, and the images of that question")
    return None


def _blind_policy(readings: Sequence[Reading]) -> Verdict | None:
    for variant in (IMAGES, ADAPTER):  # what is trained may be smaller than what a type of low precision shows
        found = effect(readings, variant)
        if found is not None and found <= EQUAL:
            what = f"the policy {LACKS[variant]}: without it, log-probabilities of {_tokens(readings)} are the same"
            return Verdict(what.replace("without it", "without them") if variant == IMAGES else what, REMEDIES[variant])
    return None


def _engine_of_a_variant(readings: Sequence[Reading], rounding: float) -> Verdict | None:
    found: list[tuple[float, str, str]] = []
    for variant in LACKS:
        having = [each for each in readings if variant in each.variants]
        if not having or (effect(having, variant) or 0.0) <= EQUAL:
            continue
        near = sum(each.variants[variant].engine * each.tokens for each in having)
        far = sum(each.engine * each.tokens for each in having)
        count = sum(each.tokens for each in having)
        if near <= NEAR * far and far > rounding * count:
            what = (
                f"the engine's policy {LACKS[variant]}: over {_tokens(having)} it differs from the trainer by "
                f"{far / count:.3g} nats per token, and by {near / count:.3g} from the trainer in which this is so"
            )
            found.append((near / far, what, variant))
    if not found:
        return None
    # The first of those that are about as near: after a single update the weights before it lack the trained adapter, too.
    _, what, variant = min(found, key=lambda each: round(each[0], 2))
    return Verdict(what, REMEDIES[variant])


def _engine_of_another_policy(readings: Sequence[Reading], bound: float) -> Verdict | None:
    gap = engine_gap(readings)
    if not (gap > bound and statistics.median(each.engine for each in readings) > bound):
        return None
    effects = [f"{name} {value:.3g}" for name in LACKS if (value := effect(readings, name)) is not None]
    worst = max(readings, key=lambda each: each.engine)
    what = (
        f"engine and trainer differ by {gap:.3g} nats per token over {_tokens(readings)}, the bound is {bound:g} "
        f"(max_logprob_gap); trajectory {worst.id} differs most, by {worst.engine:.3g}. To compare, the trainer without "
        f"one part differs from itself by: {', '.join(effects)}"
    )
    return Verdict(what, "check the engine's adapter, the images that it is given, its base model and its dtype")


def _tokens(readings: Sequence[Reading]) -> str:
    return f"{sum(each.tokens for each in readings)} tokens of {len(readings)} trajectories"
