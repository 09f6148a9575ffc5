"""Curation with the real tool servers."""

from __future__ import annotations

import asyncio
import shutil

import pytest

from gog import dataset, store
from gog.errors import UserError
from gog.spec import CurateConfig
from gog_recipes.curate import CurateRecipe


def damage(world, folder, count):
    """A copy of the dataset in which the images of the first `count` questions are truncated."""
    shutil.copytree(world, folder)
    damaged = dataset.read_questions(folder, "train")[:count]
    for question in damaged:
        path = folder / question.image
        path.write_bytes(path.read_bytes()[:100])
    return {question.id for question in damaged}


def curated(make, root, folder, **settings):
    recipe = CurateRecipe(make(CurateConfig, root, data={"path": str(folder)}, teacher_accuracy=1.0, **settings))
    recipe.setup()
    recipe.save_checkpoint(asyncio.run(recipe.curate()), 1.0)
    return recipe


def test_a_question_with_a_damaged_image_is_skipped_by_name_and_counted(make, world, tmp_path, capsys):
    damaged = damage(world, tmp_path / "data", 2)
    recipe = curated(make, tmp_path, tmp_path / "data", trajectories=80)
    assert set(recipe.skipped) == damaged
    meta = store.Store(tmp_path / "store").latest("curate").meta
    assert (meta["trajectories"], meta["skipped"]) == (78, 2)
    log = capsys.readouterr().out
    assert all(f"question {id} is skipped: " in log for id in damaged)


def test_a_dataset_without_a_usable_image_is_refused(make, world, tmp_path):
    damage(world, tmp_path / "data", 80)
    with pytest.raises(UserError, match="every question was skipped"):
        curated(make, tmp_path, tmp_path / "data", trajectories=3)


@pytest.mark.parametrize(("gaze", "absent"), [("off", {"ground", "gaze"}), ("direct", {"gaze"})])
def test_the_demonstrations_of_an_arm_search_as_it_does(make, world, tmp_path, gaze, absent):
    recipe = CurateRecipe(make(CurateConfig, tmp_path, trajectories=40, teacher_accuracy=1.0, gaze=gaze))
    recipe.setup()
    made = asyncio.run(recipe.curate())
    used = {turn.action for trajectory in made for turn in trajectory.turns}
    assert not used & absent
    assert all(trajectory.well_formed and trajectory.gaze == gaze for trajectory in made)


def test_demonstrations_that_were_judged_before_an_interruption_need_neither_tools_nor_judge_again(make, tmp_path):
    settings = {"trajectories": 8, "teacher_accuracy": 1.0}
    first = CurateRecipe(make(CurateConfig, tmp_path, **settings))
    first.setup()
    made = asyncio.run(first.curate())
    nowhere = dict.fromkeys(("grounding", "imageSearch", "textSearch", "judge"), "http://127.0.0.1:9")
    again = CurateRecipe(make(CurateConfig, tmp_path, **settings, endpoints=nowhere))
    again.setup()
    assert asyncio.run(again.curate()) == made
    assert again.images.keys() == first.images.keys()
    again.save_checkpoint(made, 1.0)
    assert again.stage.store.objects("journal/") == []
