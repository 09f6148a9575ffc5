"""Languages: recognised by their script, complete, and each in one file."""

from __future__ import annotations

import string

import pytest

from gog import languages

WORDS = tuple(
    "red green blue yellow purple white circle square triangle cross ring bar founded height price".split()  # noqa: SIM905
)


def fields(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


def test_a_language_is_the_file_of_its_code() -> None:
    assert languages.codes() == ["en", "zh"]
    assert [each.code for each in languages.every()] == languages.codes()
    with pytest.raises(LookupError, match="no language 'xx'; there are en, zh"):
        languages.load("xx")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("What is the height of the tower?", "en"),
        ("Quelle est la hauteur ?", "en"),
        ("这座塔有多高？", "zh"),
        ("這座塔有多高？", "zh"),
        ("图中的 Boeing 747 是哪一年首飞的？", "zh"),
        ("Who is 李白 in the poem that he wrote about the moon?", "en"),
        ("この塔の高さは？", "en"),
        ("1889", "en"),
        ("", "en"),
    ],
)
def test_a_text_is_in_the_language_whose_script_it_shows(text: str, code: str) -> None:
    assert languages.of(text).code == code


@pytest.mark.parametrize("language", languages.every(), ids=lambda language: language.code)
def test_every_language_can_ask_every_question_of_the_world(language: languages.Language) -> None:
    world = language.world
    assert fields(world.look) == {"form"}
    assert fields(world.name) == {"the"}
    assert fields(world.fact) == {"attribute", "subject"}
    assert fields(world.the) == {"thing"}
    assert fields(world.thing) == {"colour", "form"}
    words = [world.word(each) for each in WORDS]
    assert len(set(words)) == len(words)
    if language.code != languages.DEFAULT:
        assert set(words).isdisjoint(WORDS)
    assert world.word("t007") == "t007"
