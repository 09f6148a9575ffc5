"""The dataset of a stage at the Hugging Face Hub: one commit for all stages, attempts and ranks of a run."""

from __future__ import annotations

import pytest
from support import hub_server
from support.foreign_files import write_images, write_lines
from support.stages import commit, in_two_ranks, make_stage

from gog import dataset_source
from gog.errors import UserError
from gog.spec import CurateConfig
from gog_recipes.curate import CurateRecipe

ADDRESS = "hf://datasets/org/pool"


def write_questions(folder, *answers):
    write_images(folder, "a.png")
    lines = [
        {"id": f"q{number}", "image": "a.png", "question": "who?", "answers": [each], "evidence": {"kind": "fact"}}
        for number, each in enumerate(answers)
    ]
    write_lines(folder / "train.jsonl", *lines)
    write_lines(folder / "corpus.jsonl", {"title": "Ada", "text": "born in 1815", "url": "https://a"})
    return folder


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A hub that serves a dataset, with an empty cache."""
    with hub_server.serving(write_questions(tmp_path / "source", "Ada", "Grace"), "org/pool", "datasets") as made:
        hub_server.redirect(monkeypatch, made, tmp_path / "cache")
        yield made


def stage_of(tmp_path, uri=ADDRESS, work="work", **more):
    return make_stage(tmp_path, data={"uri": uri}, workdir=str(tmp_path / work), **more)


def answers(stage):
    return [each.answers[0] for each in stage.questions("train")[1]]


def move(served):
    """Another commit on the branch, with other questions."""
    served.commit = "b" * 40
    write_questions(served.folder, "Ada", "Emmy")


def test_curate_draws_its_questions_from_a_dataset_of_the_hub(tmp_path, served):
    body = {"run": "ours", "model": {"base": "tiny"}, "data": {"uri": ADDRESS}, "workdir": str(tmp_path / "work")}
    body |= {"store": {"uri": f"file://{tmp_path}/store"}, "trajectories": 2}
    recipe = CurateRecipe(CurateConfig.model_validate(body))
    recipe.setup()
    assert sorted(each.answers[0] for each in recipe.questions) == ["Ada", "Grace"]
    assert recipe.names == ["Ada"] and all((recipe.folder / each.image).is_file() for each in recipe.questions)


def test_an_attempt_and_later_stages_read_the_commit_that_a_checkpoint_records_even_if_the_branch_moved(
    tmp_path, served
):
    first = stage_of(tmp_path, stage="curate")
    assert answers(first) == ["Ada", "Grace"]
    commit(first)
    recorded = first.store.latest("curate").meta[dataset_source.RECORD]
    assert recorded == {"given": ADDRESS, "name": f"{ADDRESS}@{served.commit}"}
    move(served)
    assert answers(stage_of(tmp_path, stage="curate")) == answers(stage_of(tmp_path, work="later")) == ["Ada", "Grace"]
    assert answers(stage_of(tmp_path / "another")) == ["Ada", "Emmy"]


def test_a_commit_with_other_questions_is_another_dataset(tmp_path, served):
    first = stage_of(tmp_path)
    answers(first)
    commit(first)
    move(served)
    with pytest.raises(UserError, match=r"checkpoint grpo/1 was made with another dataset"):
        answers(stage_of(tmp_path, f"{ADDRESS}@{served.commit}"))


def test_a_commit_that_changed_no_question_is_the_same_dataset(tmp_path, served):
    first = stage_of(tmp_path)
    answers(first)
    commit(first)
    served.commit = "b" * 40
    assert answers(stage_of(tmp_path, f"{ADDRESS}@{served.commit}")) == ["Ada", "Grace"]


def test_all_ranks_read_the_commit_that_the_first_has_resolved(tmp_path, served):
    found = in_two_ranks(lambda ranks: answers(make_stage(
        tmp_path, ranks, data={"uri": ADDRESS}, workdir=str(tmp_path / "work")
    )))  # fmt: skip
    assert found == [["Ada", "Grace"]] * 2
    assert len([each for each in served.requests if each == "GET /api/datasets/org/pool"]) == 1


def test_a_dataset_of_the_hub_in_another_format_is_converted(tmp_path, served):
    (served.folder / "train.jsonl").unlink()
    row = {"id": "q1", "image": "a.png", "question": "who?", "answer": "Hedy"}
    write_lines(served.folder / "mine" / "train.jsonl", row)
    write_images(served.folder / "mine", "a.png")
    stage = make_stage(tmp_path, data={"uri": f"{ADDRESS}/mine", "format": "plain"}, workdir=str(tmp_path / "work"))
    assert answers(stage) == ["Hedy"]
