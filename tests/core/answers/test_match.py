"""The judge without a model: right answers in every form, and no near miss ever."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gog.answers import aliases, dates, lists, match, names, quantity, sentences, tokens, units

ROWS = [json.loads(line) for line in Path(match.__file__).with_name("cases.jsonl").read_text().splitlines()]
RIGHT = [(row["question"], row["answers"], each) for row in ROWS for each in row["right"]]
WRONG = [(row["question"], row["answers"], each) for row in ROWS for each in row["wrong"]]
EXACT = [row for row in ROWS if row["kind"] in ("number", "percent", "currency", "unit")]
text = st.text(max_size=60)


def test_every_right_answer_is_accepted() -> None:
    assert len(RIGHT) >= 300
    assert [case for case in RIGHT if not match.decide(*case)] == []


def test_no_near_miss_is_accepted() -> None:
    assert len(WRONG) >= 900
    assert [case for case in WRONG if match.decide(*case)] == []


def test_a_negation_or_an_alternative_makes_every_right_answer_wrong() -> None:
    for question, answers, answer in RIGHT:
        for changed in (f"not {answer}", f"{answer} or Atlantis", f"either {answer} or 17", f"{answer} and Atlantis"):
            assert not match.decide(question, answers, changed), (question, answers, changed)


def test_another_digit_makes_every_right_number_wrong() -> None:
    for row in EXACT:
        for answer in row["right"]:
            for place in (found.start() for found in re.finditer("[0-9]", answer)):
                changed = answer[:place] + str((int(answer[place]) + 4) % 10) + answer[place + 1 :]
                assert not match.decide(row["question"], row["answers"], changed), (row, changed)


@given(st.integers(-(10**9), 10**9), st.integers(-(10**9), 10**9))
@example(1000, 10000)
@example(10, 1)
def test_two_whole_numbers_are_equal_only_if_they_are_the_same(first: int, second: int) -> None:
    for form in (str, "{:,}".format):
        assert match.decide("", [str(first)], form(second)) is (first == second)


@given(text, text, text)
@example("Who?", "²" * 60, "½" * 60)
@example("in 1", "1" * 60, "1/0")
@example("?", "1e99999999", "10^99")
@example("Who is x?", "1.", "e" * 60)
def test_any_text_has_a_verdict(question: str, accepted: str, answer: str) -> None:
    assert match.decide(question, [accepted], answer) in (True, False)


@given(text)
def test_an_answer_with_letters_or_digits_equals_itself(answer: str) -> None:
    assert match.decide("", [answer], answer) is bool(tokens.fold(answer))


def test_an_answer_is_compared_with_each_accepted_one() -> None:
    assert match.decide("Who?", ["Ada", "Bob"], "bob")
    assert not match.decide("Who?", [], "bob")


@pytest.mark.parametrize("long", ["a " * 100_000, "1" * 200_000, "(" * 100_000, " " * 200_000 + "x", "1 ft " * 50_000])
def test_an_endless_answer_is_wrong_at_once(long: str) -> None:
    assert not match.decide("Who?", ["Ada"], long)
    assert not match.decide("Who?", [long[:3900]], long[:3999])


def test_the_unit_that_the_question_names_may_be_left_out() -> None:
    assert match.decide("What is its height in feet?", ["330"], "330 ft")
    assert not match.decide("What is its height?", ["330"], "330 ft")


def test_a_name_in_capitals_is_no_word() -> None:
    assert aliases.equal("WHO", "World Health Organization")
    assert not aliases.equal("who", "World Health Organization")


def test_no_alias_is_on_two_lines() -> None:
    listed = [
        form for line in aliases._LINES for form in {form for name in line.split("=") for form in tokens.variants(name)}
    ]
    assert len(listed) == len(set(listed))


def test_names_are_swapped_only_in_questions_about_people() -> None:
    assert names.equal("Who?", "Kim Jong-un", "Kim Jong-un")
    assert names.equal("Who?", "Ferenc Puskás", "Puskás Ferenc")
    assert not names.equal("What is it?", "chocolate milk", "milk chocolate")


def test_a_date_with_two_readings_is_not_guessed() -> None:
    assert dates.matches("1998-03-04", "03/04/1998") is False
    assert dates.matches("1998-03-14", "03/14/1998") is True


def test_a_word_that_is_a_unit_only_in_another_case_is_none() -> None:
    assert units.find("MW") != units.find("mW")
    assert units.find("Mw") == ()


@pytest.mark.parametrize(
    ("accepted", "given"), [("5 mm", "5 Mm"), ("5 MHz", "5 mHz"), ("5 mV", "5 MV"), ("5 Mg", "5 mg")]
)
def test_a_metric_prefix_of_another_case_is_another_unit(accepted: str, given: str) -> None:
    assert not match.decide("How much is it?", [accepted], given)
    assert match.decide("How much is it?", [accepted], accepted)


@pytest.mark.parametrize(
    ("accepted", "given"), [("5 mm", "5 MM"), ("5 MHz", "5 mhz"), ("5 min", "5 Min"), ("5 Mbit", "5 mbit")]
)
def test_a_unit_whose_case_says_nothing_is_read_in_any(accepted: str, given: str) -> None:
    assert match.decide("How much is it?", [accepted], given)


@pytest.mark.parametrize("name", ["King Charles", "Queen Elizabeth", "Sir Elton", "Pope Francis"])
def test_a_rank_is_not_swapped_with_a_name(name: str) -> None:
    first, second = name.split()
    assert not names.equal("Who is it?", name, f"{second} {first}")
    assert names.equal("Who is it?", name, name)


def test_rounding_keeps_three_digits_or_two_across_units() -> None:
    (pi,), (few,), (enough,) = (quantity.read(each) for each in ("3.14159", "3.1", "3.14"))
    assert quantity.equal(pi, enough) and not quantity.equal(pi, few)
    (km,), (miles,) = quantity.read("5 km"), quantity.read("3.1 miles")
    assert quantity.equal(km, miles)


def test_a_list_in_any_order_is_equal_unless_the_question_asks_for_one() -> None:
    assert lists.equal("Which three?", "a, b, c", "c, b and a", tokens.equal)
    assert not lists.equal("In which order?", "a, b, c", "c, b and a", tokens.equal)


def test_only_the_words_of_the_question_are_taken_off_a_sentence() -> None:
    cores = sentences.cores("What is the capital of France?", "The capital of Italy is Paris")
    assert cores == ("The capital of Italy is Paris",)
