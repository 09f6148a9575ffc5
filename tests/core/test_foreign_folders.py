"""A file of a folder is read whole or refused by its name; it is never left out in silence."""

from __future__ import annotations

import json

import pytest
from support.foreign_files import found, fvqa_row, questions, write_images, write_lines, write_parquet

from gog import dataset
from gog.dataset import formats, importing
from gog.errors import UnreadableFile, UserError

ROW = {"id": "a", "question": "who?", "answer": "Ada", "image": "1.jpg"}
CUT_OFF = "not a readable .parquet file"


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])
    return path


def request(source, kind, **changes):
    return importing.Request(**{"kind": kind, "source": source, "target": source.parent / "out", **changes})


@pytest.fixture
def shards(tmp_path):
    """Two shards of FVQA; the second is cut off."""
    folder = tmp_path / "fvqa"
    write_parquet(folder / "train-00000-of-00002.parquet", [fvqa_row(1)])
    cut(write_parquet(folder / "train-00001-of-00002.parquet", [fvqa_row(2)]))
    return folder


def test_a_shard_that_is_cut_off_is_refused_by_its_name(shards):
    assert formats.recognise(shards) == "mmsearch-r1"
    row, error = found("mmsearch-r1", shards, "train")
    assert row.question.id == "fvqa_train_1" and isinstance(error, UnreadableFile)
    assert error.where.endswith("train-00001-of-00002.parquet") and CUT_OFF in error.what
    with pytest.raises(UserError, match=f"train-00001-of-00002.parquet: {CUT_OFF}"):
        dataset.check(shards, dataset.splits(shards))


@pytest.mark.parametrize("leave_out", [False, True])
def test_a_file_that_cannot_be_read_is_not_left_out_as_a_row_is(shards, leave_out):
    with pytest.raises(UserError) as caught:
        importing.run(request(shards, "mmsearch-r1", leave_out=leave_out))
    lines = str(caught.value).splitlines()
    assert "train-00001-of-00002.parquet" in lines[0] and "fetch it again" in lines[0]
    assert lines[1:] == ["1 file cannot be taken, which --leave-out does not leave out"]
    assert not (shards.parent / "out").exists()


def test_an_import_continues_when_the_file_was_fetched_again(shards):
    with pytest.raises(UserError):
        importing.run(request(shards, "mmsearch-r1"))
    write_parquet(shards / "train-00001-of-00002.parquet", [fvqa_row(2)])
    assert importing.run(request(shards, "mmsearch-r1")).taken == {"train": 2}


def test_shards_that_are_absent_are_refused_by_name_and_may_be_left_out(tmp_path):
    for number in (1, 3):
        write_parquet(tmp_path / "fvqa" / f"train-{number:05}-of-00004.parquet", [fvqa_row(number)])
    with pytest.raises(
        UserError, match=r"train-00000-of-00004.parquet: is missing[\s\S]*train-00002-of-00004.parquet: is"
    ):
        importing.run(request(tmp_path / "fvqa", "mmsearch-r1"))
    assert importing.run(request(tmp_path / "fvqa", "mmsearch-r1", leave_out=True)).taken == {"train": 2}
    alone = request(tmp_path / "fvqa" / "train-00001-of-00004.parquet", "mmsearch-r1", target=tmp_path / "one")
    assert importing.run(alone).taken == {"train": 1}, "a file that is named by itself"


def test_a_folder_with_one_file_that_is_cut_off_is_refused_with_the_cause(tmp_path):
    cut(write_parquet(tmp_path / "fvqa" / "test.parquet", [fvqa_row(1)]))
    with pytest.raises(UserError, match=CUT_OFF):
        importing.run(request(tmp_path / "fvqa", "mmsearch-r1"))


@pytest.mark.parametrize("of_folder", [False, True])
def test_what_is_recognised_by_content_is_refused_for_the_reason_that_its_content_cannot_be_read(tmp_path, of_folder):
    file = cut(write_parquet(tmp_path / "trunc.parquet", [fvqa_row(1)]))
    with pytest.raises(UserError, match=rf"trunc.parquet: {CUT_OFF}.*fetch it again"):
        formats.recognise(tmp_path if of_folder else file)


def test_plain_rows_in_a_folder_are_not_taken_for_gogs_own_because_of_the_name_of_the_file(tmp_path):
    write_images(tmp_path, "1.jpg")
    write_lines(tmp_path / "train.jsonl", {"question": "who?", "answer": "Ada", "image": "1.jpg"})
    assert formats.recognise(tmp_path) == "plain"
    dataset.check(tmp_path, ["train"])


@pytest.mark.parametrize("first", ["", '{"id": "q1"\n'])
def test_gogs_own_folder_is_recognised_by_the_first_line_that_can_be_read(tmp_path, first):
    own = {"id": "a", "image": "1.jpg", "question": "who?", "answers": ["Ada"]}
    (tmp_path / "train.jsonl").write_text(f"{first}{json.dumps(own)}\n")
    assert formats.recognise(tmp_path) == formats.OWN


def test_a_folder_that_only_its_names_show_to_be_gogs_own_is_refused_line_by_line(tmp_path):
    (tmp_path / "train.jsonl").write_text("hello\nworld\n")
    with pytest.raises(UserError, match=r"(?s)train.jsonl:1: line: Invalid JSON.*train.jsonl:2: line: Invalid JSON"):
        dataset.check(tmp_path, ["train"])


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ('[{"id": "a", "question": "who?", "answer": "Ada", "image": "1.jpg"}, {"id": "b", ', "row 2: not JSON"),
        (json.dumps(ROW) + '\n{"id": "b", "quest', ":2: the last line is cut off"),
    ],
)
def test_rows_beyond_the_end_of_a_file_that_is_cut_off_are_not_left_out(tmp_path, text, cause):
    path = write_images(tmp_path, "1.jpg") / ("train.json" if text.startswith("[") else "train.jsonl")
    path.write_text(text)
    with pytest.raises(UserError, match=cause):
        importing.run(request(path, "plain", leave_out=True))


def test_faulty_rows_are_counted_beside_a_file_that_cannot_be_read(shards):
    write_parquet(shards / "train-00000-of-00002.parquet", [fvqa_row(1), fvqa_row(3, images=[])])
    with pytest.raises(UserError, match=r"1 file cannot be taken.*; 1 of 2 rows cannot be taken$"):
        importing.run(request(shards, "mmsearch-r1", leave_out=True))


@pytest.mark.parametrize("name", ["train-00001-of-00002.jsonl", "other.jsonl", "train.json"])
def test_a_file_of_another_shape_is_refused_where_its_split_or_ending_is_that_of_the_others(tmp_path, name):
    write_images(tmp_path, "1.jpg")
    write_lines(tmp_path / "train-00000-of-00002.jsonl", ROW)
    write_lines(tmp_path / name, {"text": "x", "label": 1})
    with pytest.raises(UserError, match=rf"{name}: its first row has other fields than the format: 'text', 'label'"):
        dataset.check(tmp_path, formats.load("plain").splits(tmp_path), format="plain")


def test_an_empty_shard_is_refused(tmp_path):
    write_images(tmp_path, "1.jpg")
    write_lines(tmp_path / "train-00000-of-00002.jsonl", ROW)
    write_lines(tmp_path / "train-00001-of-00002.jsonl")
    assert [type(each).__name__ for each in found("plain", tmp_path, "train")] == ["Row", "UnreadableFile"]


def test_files_of_other_splits_endings_and_shapes_do_not_matter(tmp_path):
    write_images(tmp_path / "data", "1.jpg")
    write_lines(tmp_path / "data" / "train.jsonl", ROW)
    (tmp_path / "data" / "config.json").write_text('{"version": 1}')
    (tmp_path / "data" / "README.txt").write_text("x")
    assert formats.load("plain").splits(tmp_path / "data") == ("train",)
    write_lines(tmp_path / "data" / "notes.jsonl", {"note": "x"})
    chosen = request(tmp_path / "data", "plain", splits={"train": "train"})
    assert importing.run(chosen).taken == {"train": 1}, "--split does not look at notes.jsonl"


def test_tables_of_mmsearch_that_hold_no_questions_are_passed_over(tmp_path):
    base = {"sample_id": "a", "query": "who?", "query_image": None, "gt_answer": "Ada"}
    write_parquet(tmp_path / "end2end.parquet", [base])
    write_parquet(tmp_path / "rerank.parquet", [{**base, "website_title": "x"}])
    assert formats.load("mmsearch").splits(tmp_path) == ("end2end",)


def test_a_meta_file_that_names_more_rows_than_there_are_is_not_left_out_as_a_row(tmp_path):
    write_images(tmp_path, "1.jpg")
    row = {"prompt": [{"role": "user", "content": "who?"}], "image": "1.jpg", "reward_model": {"ground_truth": "Ada"}}
    write_lines(tmp_path / "data.jsonl", row)
    meta = tmp_path / "meta.json"
    meta.write_text(json.dumps({"fvqa": {"root": ".", "annotation": "data.jsonl", "length": 9}}))
    assert isinstance(found("sensenova-mars", meta, "fvqa")[-1], UnreadableFile)


def test_shards_that_are_whole_are_read_in_order(tmp_path):
    for shard in (1, 0):
        write_parquet(tmp_path / f"train-0000{shard}-of-00002.parquet", [fvqa_row(shard)])
    assert [each.id for each in questions("mmsearch-r1", tmp_path, "train")] == ["fvqa_train_0", "fvqa_train_1"]
