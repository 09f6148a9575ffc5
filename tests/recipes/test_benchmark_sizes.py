"""A public benchmark is evaluated whole, or not under its name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.chain_folders import copy_of

from gog.errors import UserError
from gog.spec import EvaluateConfig
from gog_recipes.evaluate import EvaluateRecipe


@pytest.mark.parametrize(
    ("questions", "words"),
    [
        (None, "24 questions, and mmsearch has 171"),
        (8, "^questions: 8 of mmsearch's 171 questions: answers a part of a"),
    ],
)
def test_another_size_and_a_part_are_refused_before_anything_is_played(chain, make, world, tmp_path, questions, words):
    root, data = copy_of(chain, tmp_path / "r"), Path(shutil.copytree(world, tmp_path / "data"))
    shutil.copy(data / "test.jsonl", data / "mmsearch.jsonl")
    given = {"data": {"path": str(data)}, "benchmarks": [{"split": "mmsearch"}], "questions": questions}
    recipe = EvaluateRecipe(make(EvaluateConfig, root, policies=["sft"], **given))
    with pytest.raises(UserError, match=words):
        recipe.setup()
