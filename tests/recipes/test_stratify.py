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
    return [question.id for question in prepared(make, root, **settings).pool.questions]


def prepared(make, root, **settings):
    """A stratification that is about to begin."""
    recipe = StratifyRecipe(make(StratifyConfig, root, stage="again", **settings))
    recipe.setup()
    return recipe


def with_lines(chain, root, changed):
    """Another store with the same SFT policy, made from a curation with other lines. changed: lines by question id."""
    source, made = store.Store(chain / "store"), store.open_store(f"file://{root}/store")
    curated, trained = source.latest("curate"), source.latest("sft")
    files = {name: source.open(curated, name) for name in curated.files}
    lines = [json.loads(line) for line in files["samples.jsonl"].read_text().splitlines()]
    lines = [line for line in lines if line["question_id"] not in changed] + list(changed.values())
    files["samples.jsonl"] = root / "samples.jsonl"
    files["samples.jsonl"].write_text("".join(json.dumps(line) + "\n" for line in lines))
    again = made.publish("curate", 1, files, meta=curated.meta)
    files = {name: source.open(trained, name) for name in trained.files}
    made.publish("sft", trained.step, files, meta=trained.meta, parents=[again.ref])
    return root


def test_what_curation_found_unfit_is_left_out_of_rl_and_what_its_teacher_failed_at_is_not(
    chain, make, world, tmp_path, capsys
):
    rules = ["benchmark", "giveaway", "repeated", "answer", "crop", "certain"]
    everything = [question.id for question in dataset.read_questions(world, "train")]
    names = dict(zip(rules, everything, strict=False))
    changed = {name: {"question_id": name, "kept": False, "rule": rule} for rule, name in names.items()}
    recipe = prepared(make, with_lines(chain, tmp_path, changed), questions=None)
    graded = [question.id for question in recipe.pool.questions]
    assert graded == [each for each in everything if each not in [names[rule] for rule in rules[:3]]]
    assert recipe.left_out == {"benchmark": 1, "giveaway": 1, "repeated": 1}
    assert "3 questions left out by curation: benchmark 1, giveaway 1, repeated 1" in capsys.readouterr().out
    new = chosen(make, tmp_path, undemonstrated=True, questions=None)
    assert names["answer"] in new and not set(new) & {names[rule] for rule in rules[:3]}


def test_a_pool_that_curation_found_unfit_as_a_whole_is_refused(chain, make, world, tmp_path):
    names = [question.id for question in dataset.read_questions(world, "train")]
    unfit = {name: {"question_id": name, "kept": False, "rule": "benchmark"} for name in names}
    with pytest.raises(UserError, match=r"^stages\.curate: curation left out each of 80 questions"):
        prepared(make, with_lines(chain, tmp_path, unfit))


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
