"""Which demonstrations are worth learning from. Every rule is a pure function of one trajectory, or of counts.

A demonstration whose answer is right may still teach the wrong thing: that the answer is known before the search, that
any candidate will do, that a result which says nothing supports an answer. Humans checked answers and crops of the
paper's demonstrations; these rules check what can be checked without one, and review decisions (`gog.reviews`) add what
a human saw.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gog import behaviour, judging
from gog.trajectory import Trajectory

SHORTEST = 3
"""Normalised characters of an answer from which on its occurrence in a text is no accident."""


def malformed(trajectory: Trajectory) -> str:
    """A turn outside the grammar, or no answer at the end."""
    if trajectory.stop != "answer":
        return f"ends without an answer ({trajectory.stop})"
    wrong = next((turn.error or "malformed" for turn in trajectory.turns if not turn.well_formed), "")
    return f"a turn is malformed: {wrong}" if wrong else ""


def wrong_answer(trajectory: Trajectory) -> str:
    """An answer that the judge found wrong, or about which it gave no verdict."""
    accuracy = trajectory.reward.accuracy if trajectory.reward is not None else None
    if accuracy is None:
        return "the judge gave no verdict"
    return "" if accuracy == 1.0 else "the judge found the answer wrong"


def wrong_crop(trajectory: Trajectory) -> str:
    """A last gaze at something else than the question is about, where the dataset marks that."""
    gazes = behaviour.gazes(trajectory)  # one that was wrong and then corrected teaches to reflect
    return "the last gaze is at another object" if gazes and not gazes[-1] else ""


def leaked(trajectory: Trajectory) -> str:
    """An accepted answer that the teacher wrote, as a thought or query, before any result showed it.

    It then knew the answer and played a search. An answer without a search is knowledge, and so is one that occurs in the
    question.
    """
    if behaviour.classify(trajectory) == "none":
        return ""
    answers = [each for each in trajectory.answers if len(judging.normalise(each)) >= SHORTEST]
    unseen = [each for each in answers if not judging.mentions(trajectory.question, each)]
    for turn in trajectory.turns[:-1]:
        if any(judging.mentions(turn.text, answer) for answer in unseen):
            return "the answer is written before a result shows it"
        if turn.observation is not None:
            unseen = [each for each in unseen if not judging.mentions(turn.observation.text, each)]
    return ""


def unsupported(trajectory: Trajectory) -> str:
    """A search of which no result contains the given answer or an accepted one."""
    if behaviour.classify(trajectory) == "none":
        return ""
    wanted = [each for each in (trajectory.answer or "", *trajectory.answers) if judging.normalise(each)]
    shown = [turn.observation.text for turn in trajectory.turns if turn.observation is not None]
    found = any(judging.mentions(text, answer) for text in shown for answer in wanted)
    return "" if found else "no result contains the answer"


RULES: dict[str, Callable[[Trajectory], str]] = {
    "format": malformed,
    "answer": wrong_answer,
    "crop": wrong_crop,
    "leak": leaked,
    "evidence": unsupported,
}
"""Rules of a trajectory by the names that `verify` accepts: why it is not learned from, empty if it may be."""
POOL_RULES = ("giveaway", "repeated")
"""Rules of a question, which `verify` accepts too: its words contain its answer; another question is the same."""


def fault(trajectory: Trajectory, rules: Sequence[str]) -> tuple[str, str]:
    """The first rule that a trajectory breaks, and how; empty if it breaks none of them."""
    found = ((rule, RULES[rule](trajectory)) for rule in RULES if rule in rules)
    return next(((rule, why) for rule, why in found if why), ("", ""))


def is_certain(verdicts: Sequence[float | None]) -> bool:
    """Whether a model answered a question right every time, so that it has nothing to learn from it. An answer without
    a verdict leaves that open.

    >>> is_certain([1.0, 1.0]), is_certain([1.0, 0.0]), is_certain([1.0, None]), is_certain([])
    (True, False, False, False)
    """
    return bool(verdicts) and all(verdict == 1.0 for verdict in verdicts)


def surplus(searching: Sequence[str], others: Sequence[str], share: float) -> list[str]:
    """Which demonstrations to leave out so that a share of the rest searches.

    Args:
        searching: ids of those that search.
        others: ids of those that do not.
        share: of those that search, above 0 and below 1.

    Returns:
        Ids from the end of the side of which there are too many. Nothing where a side is empty: no choice gives the share.
    """
    if not searching or not others:
        return []
    if len(searching) > share * (len(searching) + len(others)):
        return list(searching[max(1, round(len(others) * share / (1 - share))) :])
    return list(others[max(1, round(len(searching) * (1 - share) / share)) :])
