"""The embedded world's hard form: what it has more of, and that the standard world does not depend on it."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from support.builders import FakeTools, make_grounding, make_hits, make_image, make_question, run

from gog import dataset, languages, spec
from gog.agent import Episode
from gog.dataset import Evidence
from gog.spec import AgentSettings
from gog.tool_api import SearchHit
from gog.tool_types import Reply
from gog_recipes import world
from gog_recipes.world import (
    difficulty,
    drawing,
    entities,
    further_words,
    generate,
    scenes,
    vocabulary,
)
from gog_recipes.world.teacher import ScriptedTeacher

SMALL = spec.WorldSpec(seed=7, train=60, test=30, difficulty="hard")
HARD = difficulty.LEVELS["hard"]
KNOWN = entities.build(7)


@pytest.fixture(scope="module")
def hard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "world"
    generate.write(folder, SMALL)
    return folder


@dataclass
class Pages(FakeTools):
    """Tools whose text search returns the page that a query names."""

    pages: Mapping[str, str] = field(default_factory=dict)

    async def search_text(self, query: str) -> Reply[Sequence[SearchHit]]:
        hits = [make_hits(query)[0].model_copy(update={"text": self.pages[query]})]
        return self._reply("textSearch", query, hits)


def cases(count: int, kind: str | None = None, split: entities.Split = "train") -> list[scenes.Case]:
    rng = random.Random(1)
    return [scenes.draw_case(rng, KNOWN, split, kind, level=HARD) for _ in range(count)]


def facts(page: str) -> list[list[str]]:
    return [part.split() for part in page.split(" , ")]


def test_the_levels_are_those_that_a_manifest_may_name() -> None:
    assert set(get_args(spec.WorldSpec.model_fields["difficulty"].annotation)) == set(difficulty.LEVELS)


def test_the_same_seed_gives_the_same_hard_world(hard: Path, tmp_path: Path) -> None:
    generate.write(tmp_path / "again", SMALL)
    for name in ("train.jsonl", "test.jsonl", "corpus.jsonl", "index/images.jsonl"):
        assert (tmp_path / "again" / name).read_bytes() == (hard / name).read_bytes()


def test_a_world_of_another_difficulty_replaces_the_folder(tmp_path: Path) -> None:
    for level in difficulty.LEVELS:
        generate.write(tmp_path / "world", spec.WorldSpec(train=9, test=1, difficulty=level))
    kinds = {question.evidence.kind for question in dataset.read_questions(tmp_path / "world", "train")}
    assert "chain" in kinds


def test_an_image_shows_up_to_six_things_and_questions_about_one_of_several_show_three() -> None:
    counts = [len(case.scene.things) for case in cases(200, "fact")]
    assert (min(counts), max(counts)) == (3, 6)


def test_every_other_thing_shares_colour_or_form_with_the_one_that_is_asked_about() -> None:
    for case in cases(100, "fact"):
        wanted = case.scene.wanted.entity
        assert all(t.entity.colour == wanted.colour or t.entity.form == wanted.form for t in case.scene.things)


def test_some_things_are_partly_hidden_and_the_evidence_is_the_box_of_what_shows() -> None:
    hidden = [t for case in cases(200) for t in case.scene.things if t.side]
    assert {t.side for t in hidden} == set(drawing.SIDES)
    for thing in hidden:
        pixels = drawing.scene([thing], 30).pixels
        shown = (pixels != 30).any(-1) & (pixels != 30 + drawing.COVER_CONTRAST).any(-1)
        rows, columns = np.nonzero(shown)
        assert drawing.box(thing) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_a_dot_is_never_hidden() -> None:
    for thing in (t for case in cases(300) for t in case.scene.things if t.side):
        x0, y0, x1, y1 = drawing._cover(thing)
        dot = range(thing.x - 3, thing.x + 3), range(thing.y - 3, thing.y + 6)
        assert not any(x0 <= x <= x1 and y0 <= y <= y1 for x in dot[0] for y in dot[1][:6])


def test_two_questions_in_five_are_in_chinese_and_none_has_a_word_that_the_tiny_model_lacks() -> None:
    drawn = cases(500)
    assert 0.33 < sum(case.language == "zh" for case in drawn) / len(drawn) < 0.47
    tokenizer = vocabulary.build_tokenizer()
    ids = tokenizer([case.question for case in drawn]).input_ids
    assert not any(tokenizer.unk_token_id in row for row in ids)


def test_the_tiny_model_knows_every_word_that_a_question_of_the_hard_world_may_have() -> None:
    for code in HARD.languages:
        say = languages.load(code).world
        templates = (say.look, say.name, say.fact, say.the, say.maker, say.thing)
        words = {word for each in templates for word in each.split() if "{" not in word}
        words |= {say.word(each) for each in (*entities.COLOURS, *entities.FORMS, *entities.ATTRIBUTES)}
        assert words <= set(vocabulary.words())


def test_a_colour_may_be_answered_in_the_language_of_the_question() -> None:
    case = next(case for case in cases(100, "look") if case.language == "zh")
    colour = case.scene.wanted.entity.colour
    assert case.answers == (languages.load("zh").world.word(colour), colour)


def test_a_two_step_question_is_answered_by_the_page_of_the_maker(hard: Path) -> None:
    corpus = {page.title: page.text for page in dataset.read_lines(hard / "corpus.jsonl", dataset.Document)}
    for case in cases(50, "chain"):
        name = KNOWN.names[case.scene.wanted.entity]
        (maker,) = [fact[1] for fact in facts(corpus[name]) if fact[0] == "maker"]
        assert [case.attribute, case.answer] in facts(corpus[maker])


def test_makers_are_of_the_same_split() -> None:
    for split in generate.SPLITS:
        own = {KNOWN.names[entity] for entity in KNOWN.of(split)}
        assert {KNOWN.makers[name] for name in own} <= own


def test_pages_have_one_outdated_fact_that_is_not_true(hard: Path) -> None:
    for page in dataset.read_lines(hard / "corpus.jsonl", dataset.Document):
        if page.title in KNOWN.facts:
            (outdated,) = [fact[1:] for fact in facts(page.text) if fact[0] == "former"]
            assert outdated not in [list(fact) for fact in KNOWN.facts[page.title].items()]


def test_a_query_with_a_name_alone_finds_its_page_and_not_one_about_two_names(hard: Path) -> None:
    from gog_tools.search.text_index import TextIndex

    index = TextIndex.read(hard)
    for name in list(KNOWN.names.values())[:20]:
        assert index.search([name], [1])[0].hits[0].title == name


def test_the_standard_world_has_nothing_of_this() -> None:
    rng = random.Random(1)
    drawn = [scenes.draw_case(rng, KNOWN, "train") for _ in range(300)]
    assert {case.language for case in drawn} == {"en"} and "chain" not in {case.kind for case in drawn}
    assert not any(t.side for case in drawn for t in case.scene.things)
    assert "maker" not in entities.page(KNOWN, "t000")


def test_the_teacher_follows_the_maker_and_passes_over_an_outdated_fact() -> None:
    marks = {"kind": "chain", "expression": "red ring", "region": (20.0, 5.0, 28.0, 13.0), "things": 3}
    evidence = Evidence.model_validate({**marks, "attribute": "height", "relation": "maker"})
    pages = {
        "amber": "former height n01 , maker t002 , height n02",
        "t002": "founded n03 , former height n04 , height n05",
    }
    toolbox = Pages(make_grounding(3), make_hits("amber"), pages=pages)
    teacher = ScriptedTeacher(make_question(evidence=evidence, answers=("n05",)), random.Random(0), 1.0, ["a guess"])
    episode = Episode(teacher.question, make_image(), teacher, toolbox, AgentSettings(), "terse")
    teacher.follow(episode)
    played = run(episode.run())
    assert [turn.action for turn in played.turns] == ["ground", "gaze", "text", "text", "answer"]
    assert toolbox.asked("textSearch") == ["amber", "t002"] and played.answer == "n05"


def test_teaching_further_words_changes_no_older_weight_and_learns() -> None:
    torch.set_num_threads(1)
    taught = further_words.FurtherWords(world.TINY, steps=2)
    before = {name: weight.clone() for name, weight in taught.model.state_dict().items()}
    taught.train()
    first = vocabulary.words().index(vocabulary.FURTHER[0])
    for name, weight in taught.model.state_dict().items():
        kept = slice(0, first) if weight.shape[0] == len(vocabulary.words()) else slice(None)
        assert torch.equal(weight[kept], before[name][kept])
        if weight.shape[0] == len(vocabulary.words()):
            assert not torch.equal(weight[first:], before[name][first:])


def test_further_words_are_read_and_never_sampled() -> None:
    assert set(vocabulary.FURTHER) <= set(vocabulary.SUPPRESSED)
    assert vocabulary.words()[-len(vocabulary.FURTHER) :] == list(vocabulary.FURTHER)
