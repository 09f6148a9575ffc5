"""Which questions stratify grades."""

import json

import pytest
from support.chain_folders import copy_of

from gog import dataset, store
from gog.errors import UserError
from gog.spec import StratifyConfig
from gog_recipes.stratify import StratifyRecipe


def chosen(make, root, **settings):
    """The questions that a stratification would grade."""
    recipe = StratifyRecipe(make(StratifyConfig, root, stage="again", **settings))
    recipe.setup()
    return [question.id for question in recipe.pool.questions]


def test_questions_with_a_demonstration_are_left_out_on_demand(chain, make, world, tmp_path):
    root = copy_of(chain, tmp_path)
    opened = store.Store(root / "store")
    lines = opened.open(opened.latest("curate"), "samples.jsonl").read_text().splitlines()
    shown = {line["question_id"] for line in map(json.loads, lines) if line["kept"]}
    everything = [question.id for question in dataset.read_lines(world / "train.jsonl", dataset.Question)]
    assert shown and set(chosen(make, root)) & shown
    new = chosen(make, root, undemonstrated=True, questions=None)
    assert new == [question for question in everything if question not in shown]
    assert chosen(make, root, undemonstrated=True, questions=5) == new[:5]


def test_a_policy_of_other_demonstrations_is_refused_because_they_are_not_known(chain, make, tmp_path):
    root = copy_of(chain, tmp_path)
    opened = store.Store(root / "store")
    trained = opened.latest("sft")
    files = {name: opened.open(trained, name) for name in trained.files}
    opened.publish("elsewhere", 1, files, meta=trained.meta)
    with pytest.raises(UserError, match=r"^undemonstrated: elsewhere/1 started from no curation in the store"):
        chosen(make, root, undemonstrated=True, inputs={"sft": "elsewhere/1"})
