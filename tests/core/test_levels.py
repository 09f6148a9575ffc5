"""Levels depend on the pass rate and the band, and on nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gog import levels, spec

counts = st.integers(1, 64).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@pytest.mark.parametrize(
    ("samples", "expected"), [(4, ["2", "2", "1", "easy", "easy"]), (5, ["2", "2", "2", "1", "easy", "easy"])]
)
def test_every_count_of_4_and_of_5_has_its_level(samples: int, expected: list[str]) -> None:
    assert [levels.level(solved, samples) for solved in range(samples + 1)] == expected


def test_the_default_band_is_the_one_that_stratify_is_configured_with() -> None:
    band = spec.StratifySettings().level1
    assert [levels.level(solved, 5, band) for solved in range(6)] == [levels.level(solved, 5) for solved in range(6)]


def test_both_ends_of_the_band_belong_to_level_1() -> None:
    assert [levels.level(solved, 10, (0.3, 0.7)) for solved in (2, 3, 7, 8)] == ["2", "1", "1", "easy"]
    assert levels.level(1, 2, (0.5, 0.5)) == "1"


@given(counts, st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted).map(tuple))
def test_solving_more_never_makes_a_question_harder(count: tuple[int, int], band: tuple[float, float]) -> None:
    solved, samples = count
    order = ["2", "1", "easy"]
    ranks = [order.index(levels.level(k, samples, band)) for k in range(solved + 1)]
    assert ranks == sorted(ranks)


@pytest.mark.parametrize(("solved", "samples"), [(-1, 4), (5, 4), (0, 0)])
def test_impossible_counts_are_refused(solved: int, samples: int) -> None:
    with pytest.raises(ValueError, match=f"impossible counts: {solved} of {samples} samples"):
        levels.level(solved, samples)


def test_an_unsolved_question_is_level_2_flagged_and_kept_by_default() -> None:
    graded = levels.Graded(question_id="q", solved=0, valid=5, level=levels.level(0, 5))
    assert (graded.level, graded.unsolved) == ("2", True)
    assert spec.GRPOSettings().keep_unsolved is True


def test_a_question_without_a_valid_sample_is_not_unsolved() -> None:
    assert not levels.Graded(question_id="q", solved=0, valid=0, level="unknown").unsolved


def graded(*solved: int, samples: int = 5) -> list[levels.Graded]:
    return [
        levels.Graded(question_id=f"q{n}", solved=k, valid=samples, level=levels.level(k, samples))
        for n, k in enumerate(solved)
    ]


@pytest.mark.parametrize(
    ("solved", "words"),
    [
        ((0, 0, 0), "no sample of any question was right (3 questions of level 2)"),
        ((5,), "every sample of every question was right (1 question of level easy)"),
        ((4, 5, 5), "all questions are of one level (3 questions of level easy): GRPO trains on level 2"),
        ((3, 3), "all questions are of one level (2 questions of level 1): GRPO trains on level 2"),
    ],
)
def test_questions_of_one_level_are_warned_of_with_the_remedy(solved: tuple[int, ...], words: str) -> None:
    unknown = levels.Graded(question_id="spoiled", solved=0, valid=0, level="unknown")
    assert levels.warning([*graded(*solved), unknown]).startswith(words)


@pytest.mark.parametrize("solved", [(0, 5), (0, 1), (1, 2), ()])
def test_questions_from_which_grpo_can_learn_are_not_warned_of(solved: tuple[int, ...]) -> None:
    assert levels.warning(graded(*solved)) == ""
