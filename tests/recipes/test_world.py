"""The embedded world: an ordinary dataset whose test entities never occur in training."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from gog import dataset, errors, images, languages, spec
from gog_recipes.world import drawing, entities, generate, scenes

SMALL = spec.WorldSpec(seed=7, train=80, test=40)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "world"
    generate.write(folder, SMALL)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def cases(split: entities.Split, count: int, kind: str | None = None) -> list[scenes.Case]:
    rng = random.Random(1)
    return [scenes.draw_case(rng, entities.build(7), split, kind) for _ in range(count)]


def test_there_are_216_entities_of_which_72_are_kept_for_test() -> None:
    known = entities.build(7)
    assert len(known.names) == len(set(known.names.values())) == 216
    assert len(known.of("test")) == 72 and len(known.of("train")) == 144


def test_splits_share_no_entities() -> None:
    shown = {split: {t.entity for case in cases(split, 300) for t in case.scene.things} for split in generate.SPLITS}
    assert not shown["train"] & shown["test"]


def test_text_questions_name_entities_of_their_own_split() -> None:
    known = entities.build(7)
    for split in generate.SPLITS:
        own = {known.names[entity] for entity in known.of(split)}
        assert {case.entity for case in cases(split, 50, "text")} <= own


def test_every_line_parses_as_a_question_with_its_image(world: Path) -> None:
    assert len(dataset.read_questions(world, "train")) == SMALL.train
    assert len(dataset.read_questions(world, "test")) == SMALL.test


def test_no_image_occurs_in_both_splits(world: Path) -> None:
    train, test = ({question.image for question in dataset.read_questions(world, split)} for split in generate.SPLITS)
    assert not train & test


def test_images_are_named_by_their_pixels(world: Path) -> None:
    for question in dataset.read_questions(world, "test")[:10]:
        path = world / question.image
        assert images.read(path).hash == path.stem


def test_the_same_seed_gives_the_same_bytes(world: Path, tmp_path: Path) -> None:
    generate.write(tmp_path / "again", SMALL)
    assert contents(tmp_path / "again") == contents(world)


def test_another_seed_gives_another_world(world: Path, tmp_path: Path) -> None:
    generate.write(tmp_path / "other", SMALL.model_copy(update={"seed": 8}))
    assert (tmp_path / "other" / "test.jsonl").read_bytes() != (world / "test.jsonl").read_bytes()
    assert (tmp_path / "other" / "corpus.jsonl").read_bytes() != (world / "corpus.jsonl").read_bytes()


def test_the_size_of_one_split_does_not_change_the_other(world: Path, tmp_path: Path) -> None:
    generate.write(tmp_path / "longer", SMALL.model_copy(update={"train": 90}))
    assert (tmp_path / "longer" / "test.jsonl").read_bytes() == (world / "test.jsonl").read_bytes()


def test_the_evidence_region_is_the_box_of_the_things_pixels() -> None:
    for case in cases("train", 200):
        others = [thing for thing in case.scene.things if thing is not case.scene.wanted]
        whole = drawing.scene(case.scene.things, 128).pixels
        without = drawing.scene(others, 128).pixels
        rows, columns = np.nonzero((whole != without).any(-1))
        assert drawing.box(case.scene.wanted) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_things_never_touch() -> None:
    for case in cases("test", 100):
        covered = np.zeros((drawing.SIDE, drawing.SIDE), int)
        for thing in case.scene.things:
            x0, y0, x1, y1 = drawing.box(thing)
            assert min(x0, y0) >= 0 and max(x1, y1) <= drawing.SIDE
            covered[max(0, y0 - 1) : y1 + 1, max(0, x0 - 1) : x1 + 1] += 1
        assert covered.max() == 1


def test_the_expression_fits_one_thing_only() -> None:
    for case in cases("train", 200):
        expressions = [thing.entity.expression for thing in case.scene.things]
        assert expressions.count(case.scene.wanted.entity.expression) == 1


def test_a_look_question_has_one_answer() -> None:
    for case in cases("train", 100, "look"):
        assert sum(thing.entity.form == case.scene.wanted.entity.form for thing in case.scene.things) == 1


def test_questions_never_name_the_dot() -> None:
    for case in cases("train", 200, "fact"):
        assert case.scene.wanted.entity.dot not in case.question.split()


@pytest.mark.parametrize("kind", list(scenes.KINDS))
def test_evidence_holds_what_the_teacher_needs(kind: str) -> None:
    case = cases("train", 1, kind)[0]
    marks = generate.evidence(case)
    assert marks.kind == kind and marks.model_extra is not None
    assert marks.model_extra["things"] == len(case.scene.things)
    assert bool(marks.model_extra["entity"]) == (kind == "text")
    assert bool(marks.expression) == (marks.region is not None) == (kind != "text")
    assert (marks.model_extra["attribute"] in entities.ATTRIBUTES) == (kind in ("text", "fact", "fact1"))


def test_kinds_keep_their_shares() -> None:
    drawn = [case.kind for case in cases("train", 2000)]
    for kind, share in scenes.KINDS.items():
        assert abs(drawn.count(kind) / len(drawn) - share) < 0.04


def test_the_index_holds_one_image_of_every_entity_unlike_any_scene(world: Path) -> None:
    lines = list(dataset.read_lines(world / "index" / "images.jsonl", dataset.IndexedImage))
    assert sorted(line.title for line in lines) == sorted(entities.NAMES)
    image = images.read(world / lines[0].image)
    assert image.width == drawing.REFERENCE_SIDE != drawing.SIDE
    assert int(image.pixels[0, 0, 0]) not in drawing.BACKGROUNDS


def test_the_corpus_answers_every_fact_question(world: Path) -> None:
    corpus = {page.title: page.text for page in dataset.read_lines(world / "corpus.jsonl", dataset.Document)}
    assert len(corpus) == 216
    for question in dataset.read_questions(world, "test"):
        if question.evidence.kind == "text":
            marks = question.evidence.model_extra or {}
            assert f"{marks['attribute']} {question.answers[0]}" in corpus[marks["entity"]]


def test_the_order_of_facts_varies() -> None:
    known = entities.build(7)
    assert len({tuple(entities.page(known, name).split()[::3]) for name in entities.NAMES}) == 6


def test_an_equal_world_is_kept(world: Path) -> None:
    before = (world / "train.jsonl").stat().st_mtime_ns
    generate.write(world, SMALL)
    assert (world / "train.jsonl").stat().st_mtime_ns == before


def test_a_world_of_another_specification_is_replaced(tmp_path: Path) -> None:
    generate.write(tmp_path / "world", spec.WorldSpec(train=2, test=2))
    generate.write(tmp_path / "world", spec.WorldSpec(train=3, test=1))
    assert len(dataset.read_questions(tmp_path / "world", "train")) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["world"]


def test_a_folder_of_other_content_is_refused_and_not_changed(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("do not lose me")
    with pytest.raises(errors.UserError, match="something other than a world"):
        generate.write(tmp_path, SMALL)
    assert (tmp_path / "thesis.txt").exists()


def test_an_interrupted_generation_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(generate, "_write_index", full_disk)
    with pytest.raises(errors.UserError, match="the disk is full"):
        generate.write(tmp_path / "world", spec.WorldSpec(train=2, test=2))
    assert list(tmp_path.iterdir()) == []


def test_a_question_in_another_language_is_about_the_same_scene() -> None:
    for kind in scenes.KINDS:
        english, chinese = (
            scenes.draw_case(random.Random(3), entities.build(7), "test", kind, language) for language in ("en", "zh")
        )
        assert chinese.scene == english.scene and chinese.entity == english.entity
        assert languages.of(chinese.question).code == "zh" and languages.of(english.question).code == "en"
        if kind == "look":
            assert chinese.answer == languages.load("zh").world.word(english.answer) != english.answer
        else:
            assert chinese.answer == english.answer
