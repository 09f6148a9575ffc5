"""Conversations as trainers publish them: turns, images beside them or among their parts, the answer in its places."""

from __future__ import annotations

import json

import pytest
from support.foreign_files import base64_of, jpeg, only_error, questions, write_images, write_lines, write_parquet

from gog.dataset import formats


def test_sharegpt_asks_its_first_turn_and_takes_the_answer_of_its_last(tmp_path):
    write_images(tmp_path, "1.jpg")
    turns = [
        {"from": "human", "value": "<image>who?"},
        {"from": "gpt", "value": "<tool_call>…</tool_call>"},
        {"from": "observation", "value": "Ada"},
        {"from": "gpt", "value": "<think>x</think><answer>Ada</answer>"},
    ]
    path = tmp_path / "sft_train.json"
    path.write_text(json.dumps([{"conversations": turns, "images": ["1.jpg"], "system": "s", "tools": "t"}]))
    (question,) = questions("sharegpt", path, "train")
    assert (question.question, question.answers) == ("who?", ("Ada",)) and formats.recognise(path) == "sharegpt"


def test_a_conversation_about_two_images_is_refused_by_name(tmp_path):
    turns = [{"from": "human", "value": "<image><image>who?"}, {"from": "gpt", "value": "Ada"}]
    path = write_lines(tmp_path / "train.jsonl", {"conversations": turns, "images": [list(jpeg()), list(jpeg())]})
    assert "images: 2 images; a question of gog is about one" in only_error("sharegpt", path, "train")


def test_messages_are_read_with_images_beside_them_or_as_parts(tmp_path):
    write_images(tmp_path, "1.jpg")
    asked = {"role": "user", "content": "<image>who?"}
    uri = {"url": f"data:image/jpeg;base64,{base64_of(jpeg())}"}
    parts = {"role": "user", "content": [{"type": "image_url", "image_url": uri}, {"type": "text", "text": "who?"}]}
    path = write_lines(
        tmp_path / "train.jsonl",
        {"messages": [asked, {"role": "assistant", "content": "Ada"}], "images": ["1.jpg"]},
        {"messages": [parts], "solution": "Bob"},
    )
    assert [each.answers for each in questions("ms-swift", path, "train")] == [("Ada",), ("Bob",)]


def skyrl(**changes):
    uri = f"data:image/jpeg;base64,{base64_of(jpeg())}"
    parts = [{"type": "image_url", "image_url": {"url": uri}}, {"type": "text", "text": "who?"}]
    return {
        "prompt": [{"role": "system", "content": "Think."}, {"role": "user", "content": parts}],
        "env_class": "search",
        "reward_spec": {"method": "rule", "ground_truth": ["Ada", "A. L."]},
        "extra_info": {"split": "train", "index": 0},
        **changes,
    }


def test_rows_of_skyrl_have_images_within_their_prompt_and_the_answer_in_reward_spec(tmp_path):
    path = write_lines(tmp_path / "train.jsonl", skyrl())
    (question,) = questions("ms-swift", path, "train")
    assert (question.question, question.answers) == ("who?", ("Ada", "A. L."))
    assert formats.recognise(path) == "ms-swift"


def test_rows_of_skyrl_in_parquet_have_parts_with_the_fields_of_both_kinds(tmp_path):
    parts = skyrl()["prompt"][1]["content"]
    row = skyrl(prompt=[{"role": "user", "content": parts}], reward_spec={"method": "rule", "ground_truth": "Ada"})
    path = write_parquet(tmp_path / "train.parquet", [row])
    assert [each.answers for each in questions("ms-swift", path, "train")] == [("Ada",)]


@pytest.mark.parametrize("gold", ["solution", "answer"])
def test_rows_of_trl_have_a_prompt_of_turns_and_are_not_plain_ones(tmp_path, gold):
    turns = [{"role": "system", "content": "Think."}, {"role": "user", "content": "who?"}]
    row = {"problem": "who?", "prompt": turns, "image": {"bytes": jpeg(), "path": None}, gold: "Ada"}
    path = write_parquet(tmp_path / "train.parquet", [row])
    assert formats.recognise(path) == "ms-swift"
    (question,) = questions("ms-swift", path, "train")
    assert (question.question, question.answers) == ("who?", ("Ada",))


def test_a_prompt_of_turns_without_an_answer_names_the_fields_that_may_hold_it(tmp_path):
    path = write_lines(tmp_path / "train.jsonl", skyrl(), skyrl(reward_spec=None))
    assert ":2: solution: holds no answer, nor do ground_truth, answer and reward_spec.ground_truth" in only_error(
        "ms-swift", path, "train"
    )


def test_a_solution_with_its_reasoning_is_accepted_by_the_answer_that_it_marks(tmp_path):
    row = skyrl(reward_spec=None, solution="<think>A portrait.</think>\n\n<answer> Ada </answer>")
    assert questions("ms-swift", write_lines(tmp_path / "train.jsonl", row), "train")[0].answers == ("Ada",)
