"""Selection of the trajectories that a report shows. Pure and deterministic.

About a hundred trajectories fit into one file. They are selected to show every kind of outcome and are not a random
sample. Within a checkpoint, correct, wrong and excluded trajectories alternate, over all behaviours and kinds of
question. From an evaluation, whole questions are taken, each under every policy, so that policies can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import chain, zip_longest
from typing import TypeVar

from gog_console.report.model import Sample, policy_order

LIMIT = 120
"""Approximate number of trajectories shown."""
FALLBACKS = 3
"""Number of a stage's newest checkpoints that are tried before a file counts as unreadable."""
SHARES = {"curate": 0.07, "stratify": 0.05, "grpo": 0.40, "evaluate": 0.48}
"""Share of the limit by kind of stage; what one kind does not use goes to the others."""
ARM_SHARE = 0.15
"""Additional share of the limit for each arm."""

FAILED_FIRST = 5
"""Trajectories with tool failures that are shown first for each kind of stage, because they are rare and instructive."""

Bundle = list[Sample]
"""Samples that are shown together or not at all: one question under every policy, or a single trajectory."""
Item = TypeVar("Item")


def choose(samples: Sequence[Sample], limit: int = LIMIT) -> list[Sample]:
    """Samples to show, most informative first: at most `limit` of the main line, and some of each arm."""
    chosen = _chosen([sample for sample in samples if not sample.arm], limit)
    for arm in sorted({sample.arm for sample in samples} - {""}):
        chosen += _chosen([sample for sample in samples if sample.arm == arm], round(limit * ARM_SHARE))
    return chosen


def featured(samples: Sequence[Sample]) -> Sample | None:
    """Sample that the viewer opens with: one where GRPO succeeded by gaze and SFT failed, if there is one."""

    def rank(sample: Sample) -> tuple[bool, ...]:
        others = (
            o for o in samples if o.key == sample.key and o.trajectory.question_id == sample.trajectory.question_id
        )
        return (
            sample.kind == "evaluate" and sample.policy == "grpo" and not sample.arm,
            sample.outcome == "correct",
            any(turn.action == "gaze" for turn in sample.trajectory.turns),
            any(other.policy == "sft" and other.outcome == "wrong" for other in others),
        )

    return max(samples, key=rank, default=None)


def _chosen(samples: Sequence[Sample], limit: int) -> list[Sample]:
    """Alternates between kinds of stage, each up to its share, then adds the rest up to the limit."""
    queues = {kind: _ordered([s for s in samples if s.kind == kind], kind) for kind in SHARES}
    first = {kind: _that_fit(queue, round(limit * SHARES[kind])) for kind, queue in queues.items()}
    rest = [queue[len(first[kind]) :] for kind, queue in queues.items()]
    return list(chain.from_iterable(_that_fit([*_in_turn(first.values()), *_in_turn(rest)], limit)))


def _that_fit(bundles: Sequence[Bundle], limit: int) -> list[Bundle]:
    """Leading bundles that together have at most `limit` samples."""
    taken: list[Bundle] = []
    room = limit
    for bundle in bundles:
        room -= len(bundle)
        if room < 0:
            break
        taken.append(bundle)
    return taken


def _ordered(samples: Sequence[Sample], kind: str) -> list[Bundle]:
    """Bundles of one kind of stage, most informative first."""
    if kind == "evaluate":
        bundles = [
            sorted(bundle, key=lambda sample: policy_order(sample.policy))
            for bundle in _grouped(samples, lambda sample: sample.trajectory.question_id)
        ]
        return _varied(bundles, lambda bundle: tuple(_outcome(sample) for sample in bundle))
    steps = _in_turn(_of_every_outcome(step) for step in _grouped(samples, lambda sample: (sample.key, sample.step)))
    failed = [bundle for bundle in steps if bundle[0].trajectory.failures][:FAILED_FIRST]
    first = {id(bundle) for bundle in failed}
    return [*failed, *(bundle for bundle in steps if id(bundle) not in first)]


def _of_every_outcome(samples: Sequence[Sample]) -> list[Bundle]:
    """Alternates between outcomes, and within each between behaviours and kinds of question."""
    outcomes = sorted(_grouped(samples, _outcome), key=len, reverse=True)
    return _in_turn(_varied([[sample] for sample in some], lambda bundle: _manner(bundle[0])) for some in outcomes)


def _outcome(sample: Sample) -> Hashable:
    return sample.outcome, bool(sample.trajectory.failures)


def _manner(sample: Sample) -> Hashable:
    return sample.behaviour, sample.trajectory.kind


def _varied(bundles: Sequence[Bundle], stratum: Callable[[Bundle], Hashable]) -> list[Bundle]:
    """Alternates between strata, the most frequent first."""
    return _in_turn(sorted(_grouped(bundles, stratum), key=len, reverse=True))


def _grouped(items: Iterable[Item], key: Callable[[Item], Hashable]) -> list[list[Item]]:
    groups: dict[Hashable, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.values())


def _in_turn(queues: Iterable[Sequence[Bundle]]) -> list[Bundle]:
    """The first of each queue, then the second of each, and so on."""
    return [bundle for turn in zip_longest(*queues) for bundle in turn if bundle is not None]
