"""Curation with rules, in the embedded world with its real tool servers: what is kept, what is left out, and why."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil

import pytest
from support.builders import make_trajectory
from support.chat_server import completion, serving

from gog import behaviour, dataset, images, store, trajectory_zip
from gog.errors import UserError
from gog.spec import CurateConfig
from gog_recipes.curate import CurateRecipe
from gog_recipes.data import ledger, screening

EVERY_RULE = ["giveaway", "repeated", "format", "answer", "crop", "leak", "evidence"]


def curate(make, root, **settings):
    """A curation from its beginning to its checkpoint."""
    recipe = CurateRecipe(make(CurateConfig, root, **{"verify": EVERY_RULE, **settings}))
    recipe.setup()
    recipe.save_checkpoint(asyncio.run(recipe.curate()), 1.0)
    return recipe


def lines(root):
    """The lines of samples.jsonl in the checkpoint, by question, and the checkpoint's metadata."""
    opened = store.Store(root / "store")
    manifest = opened.latest("curate")
    found = [json.loads(line) for line in opened.open(manifest, ledger.FILE).read_text().splitlines()]
    return {line["question_id"]: line for line in found}, manifest.meta


def test_the_scripted_teachers_wrong_demonstrations_are_left_out_and_its_right_ones_kept(make, tmp_path):
    curate(make, tmp_path / "careless", trajectories=80, teacher_accuracy=0.0)
    faultless = curate(make, tmp_path / "faultless", trajectories=80, teacher_accuracy=1.0)
    outcomes, meta = lines(tmp_path / "careless")
    assert len(outcomes) == 80 and meta["trajectories"] + sum(meta["dropped"].values()) == 80
    assert meta["dropped"].keys() <= {"answer", "crop", "evidence", "leak"} and meta["dropped"]["answer"] > 5
    assert meta["accuracy"] == 1.0, "no demonstration with a wrong answer is kept"
    opened = store.Store(tmp_path / "careless" / "store")
    kept = trajectory_zip.Archive(opened.open(opened.latest("curate"), "trajectories.zip")).trajectories()
    assert all(behaviour.gazes(item)[-1:] != [False] for item in kept)
    assert all(outcomes[item.question_id]["trajectory"] == item.id for item in kept)
    assert lines(tmp_path / "faultless")[1]["trajectories"] == 80 == len(faultless.questions)
    assert all(line["reason"] for line in outcomes.values() if not line["kept"])


def test_with_more_candidates_as_many_are_kept_as_were_asked_for(make, tmp_path):
    curate(make, tmp_path, trajectories=20, candidates=60, teacher_accuracy=0.5)
    outcomes, meta = lines(tmp_path)
    assert meta["trajectories"] == 20 and len(outcomes) == 60 and meta["dropped"]["enough"] > 0


def test_search_and_no_search_are_balanced(make, tmp_path):
    curate(make, tmp_path, trajectories=80, teacher_accuracy=1.0, search_share=0.5)
    _, meta = lines(tmp_path)
    assert meta["behaviour"]["none"] == pytest.approx(0.5, abs=0.03) and meta["dropped"]["balance"] > 0


def test_a_benchmarks_questions_are_left_out_by_name(make, world, tmp_path):
    benchmark = tmp_path / "benchmark"
    shutil.copytree(world, benchmark)
    theirs = dataset.read_questions(benchmark, "train")[:5]
    dataset.write_lines(benchmark / "test.jsonl", [each.model_copy(update={"id": f"b-{each.id}"}) for each in theirs])
    (benchmark / "train.jsonl").unlink()
    curate(make, tmp_path, trajectories=80, teacher_accuracy=1.0, against=[str(benchmark)])
    outcomes, meta = lines(tmp_path)
    assert meta["dropped"]["benchmark"] >= 5
    assert all(f"b-{each.id}" in outcomes[each.id]["reason"] for each in theirs)


def test_questions_that_were_not_drawn_are_screened_for_rl_and_not_counted(make, world, tmp_path):
    pool, benchmark = tmp_path / "pool", tmp_path / "benchmark"
    shutil.copytree(world, pool)
    shutil.copytree(world, benchmark)
    questions = dataset.read_questions(pool, "train")
    (benchmark / "train.jsonl").unlink()
    dataset.write_lines(
        benchmark / "test.jsonl", [each.model_copy(update={"id": f"b-{each.id}"}) for each in questions]
    )
    telling = questions[0].model_copy(update={"id": "telling", "question": "is it zorbal ?", "answers": ("zorbal",)})
    dataset.write_lines(pool / "train.jsonl", [*questions, telling])
    settings = {"trajectories": 5, "teacher_accuracy": 1.0, "data": {"path": str(pool)}, "verify": ["giveaway"]}
    recipe = CurateRecipe(make(CurateConfig, tmp_path, against=[str(benchmark)], **settings))
    recipe.setup()
    recipe._screen()
    written = ledger.unfit(recipe.ledger.write(tmp_path / ledger.FILE))
    drawn = {each.id for each in recipe.questions}
    assert written == {**{each.id: "benchmark" for each in questions}, "telling": "giveaway"}
    assert sum(recipe.ledger.dropped().values()) == len(drawn) == 5


def test_questions_that_give_their_answer_away_or_are_repeated_are_left_out_unplayed(world):
    first, second = dataset.read_questions(world, "train")[:2]
    again = first.model_copy(update={"id": "again"})
    telling = second.model_copy(update={"id": "telling", "question": "is it zorbal ?", "answers": ("zorbal",)})
    found = list(screening.screen(world, [first, again, telling], EVERY_RULE, None))
    assert [(each.id, rule) for each, rule, _ in found] == [("again", "repeated"), ("telling", "giveaway")]
    assert list(screening.screen(world, [first, again, telling], [], None)) == []


def test_rules_that_leave_no_demonstration_are_refused_with_the_counts(make, tmp_path):
    recipe = CurateRecipe(make(CurateConfig, tmp_path, trajectories=8, teacher_accuracy=1.0, verify=["answer"]))
    recipe.setup()
    unjudged = {each.id: [make_trajectory(question_id=each.id)] for each in recipe.questions}
    with pytest.raises(UserError, match="no demonstration is left: 0 kept, 8 left out: answer 8"):
        recipe._kept(unjudged)


def test_a_pool_of_a_benchmarks_questions_is_refused_before_a_tool_is_called(make, world, tmp_path):
    nowhere = dict.fromkeys(("grounding", "imageSearch", "textSearch", "judge"), "http://127.0.0.1:9")
    settings = {"trajectories": 5, "teacher_accuracy": 1.0, "against": [str(world)], "endpoints": nowhere}
    recipe = CurateRecipe(make(CurateConfig, tmp_path, **settings))
    recipe.setup()
    with pytest.raises(UserError, match="no demonstration is left: 0 kept, 5 left out: benchmark 5"):
        asyncio.run(recipe.curate())


# ---- A model behind an endpoint


def teacher_of(folder, *, searches=True):
    """A chat server that always knows every second question, and answers the others right only after a search; without
    `searches` it knows all of them."""
    questions = {images.read(folder / each.image).hash: each for each in dataset.read_questions(folder, "train")}

    def answer(request):
        parts = [part for message in request["messages"] for part in message["content"] if isinstance(part, dict)]
        urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
        asked = questions[images.decode(base64.b64decode(urls[0].partition(",")[2])).hash]
        searched = any(message["role"] == "assistant" for message in request["messages"])
        knows = not searches or int(asked.id.rsplit("-", 1)[1]) % 2 == 0
        if not knows and not searched and "<img_search>" in json.dumps(request["messages"]):
            return completion("<think>look</think><img_search><img></img_search>")
        said = asked.answers[0] if knows or searched else "wrong"
        return completion(f"<think>so</think><answer>{said}</answer>")

    return answer


def of_endpoint(url, **changes):
    return {
        "model": {"base": "/models/any"},
        "teacher": "endpoint",
        "endpoint": {"url": url, "model": "big"},
        "uncertainty_samples": 2,
        "trajectories": 12,
        "verify": ["format", "answer"],
        "concurrent_episodes": 4,
        **changes,
    }


def test_what_the_model_always_knows_is_left_out_and_the_rest_is_played_judged_and_traced(make, world, tmp_path):
    with serving(teacher_of(world)) as server:
        curate(make, tmp_path, **of_endpoint(server.url))
    outcomes, meta = lines(tmp_path)
    certain = {name for name, line in outcomes.items() if line.get("rule") == "certain"}
    assert certain == {name for name in outcomes if int(name.rsplit("-", 1)[1]) % 2 == 0}
    assert all(outcomes[name]["right_without_search"] == 2 for name in certain)
    kept = [line for line in outcomes.values() if line["kept"]]
    assert len(kept) == meta["trajectories"] == 12 - len(certain)
    assert all(line["teacher"] == "big" and line["right_without_search"] == 0 for line in kept)
    assert meta["behaviour"]["single"] == 1.0 == meta["accuracy"]
    opened = store.Store(tmp_path / "store")
    made = trajectory_zip.Archive(opened.open(opened.latest("curate"), "trajectories.zip")).trajectories()
    assert not any(item.segments for item in made), "SFT tokenizes them"


def test_an_interrupted_curation_asks_the_model_nothing_again(make, world, tmp_path):
    with serving(teacher_of(world)) as server:
        url = server.url
        first = CurateRecipe(make(CurateConfig, tmp_path, **of_endpoint(url)))
        first.setup()
        made = asyncio.run(first.curate())
    again = CurateRecipe(make(CurateConfig, tmp_path, **of_endpoint(url)))  # whose server is gone
    again.setup()
    assert asyncio.run(again.curate()) == made and again.ledger.dropped() == first.ledger.dropped()


def test_of_several_attempts_the_first_that_breaks_no_rule_is_kept(make, world, tmp_path):
    calls = []
    right = teacher_of(world, searches=False)

    def careless(request):
        calls.append(1)
        return right(request) if len(calls) % 3 == 0 else completion("<think>x</think><answer>wrong</answer>")

    with serving(careless) as server:
        settings = of_endpoint(server.url, uncertainty_samples=0, attempts=3, trajectories=4, concurrent_episodes=1)
        curate(make, tmp_path, **settings)
    outcomes, meta = lines(tmp_path)
    assert (meta["trajectories"], meta["accuracy"], meta["dropped"]) == (4, 1.0, {})
    assert len(calls) == 12 and {line["attempt"] for line in outcomes.values()} <= {1, 2, 3}


def test_the_tiny_model_has_no_teacher_behind_an_endpoint(make, tmp_path):
    recipe = CurateRecipe(make(CurateConfig, tmp_path, **of_endpoint("http://127.0.0.1:9", model={"base": "tiny"})))
    with pytest.raises(UserError, match="teacher: the tiny model does not know the words"):
        recipe.setup()
