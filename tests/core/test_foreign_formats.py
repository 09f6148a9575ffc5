"""Each published layout, with the traps that its files hold."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pyarrow
import pytest
from support.foreign_files import (
    REAL_FVQA,
    base64_of,
    found,
    fvqa_row,
    jpeg,
    only_error,
    questions,
    write_images,
    write_lines,
    write_parquet,
)

from gog import dataset
from gog.dataset import formats
from gog.dataset.formats import LeftOut
from gog.errors import UserError

# ---- MMSearch-R1: FVQA and its InfoSeek questions


def test_fvqa_has_its_candidates_inside_a_string_and_a_column_of_type_null(tmp_path):
    path = write_parquet(tmp_path / "fvqa_train.parquet", [fvqa_row(1), fvqa_row(2, data_id=None)])
    first, second = questions("mmsearch-r1", path, "train")
    assert first.id == "fvqa_train_1" and second.id == "fvqa_train-2"
    assert first.answers == ("Palace", "The Palace", "le palais") and first.evidence.kind == "search_required"
    assert formats.find(path).splits(path) == ("train",)
    dataset.check(path, ["train"])


def test_files_with_the_ending_of_mmsearch_r1s_repository_are_read_alone_and_in_a_folder(tmp_path):
    path = write_parquet(tmp_path / "mini_data.pq", [fvqa_row(1)])
    for each in (path, tmp_path):
        assert formats.recognise(each) == "mmsearch-r1"
        assert [row.id for row in questions("mmsearch-r1", each, "mini_data")] == ["fvqa_train_1"]


def test_fvqa_without_candidates_keeps_the_gold_answer(tmp_path):
    reward = {"candidate_answers": "[]", "ground_truth": "Palace", "style": "rule"}
    path = write_parquet(tmp_path / "fvqa_test.parquet", [fvqa_row(1, reward_model=reward)])
    assert questions("mmsearch-r1", path, "test")[0].answers == ("Palace",)


def test_a_faulty_row_of_fvqa_is_named_by_file_row_field_and_remedy(tmp_path):
    reward = {"candidate_answers": "[]", "ground_truth": None, "style": "rule"}
    path = write_parquet(tmp_path / "fvqa_train.parquet", [fvqa_row(1), fvqa_row(2, reward_model=reward)])
    with pytest.raises(UserError) as caught:
        dataset.check(path, ["train"])
    expected = "row 2: reward_model.ground_truth: holds no answer (correct or remove the row)"
    assert str(caught.value) == f"{path}: {expected}"


@pytest.mark.skipif(not REAL_FVQA, reason="GOG_TEST_FVQA names no file of MMSearch-R1")
def test_the_real_file_of_mmsearch_r1_is_recognised_and_valid():
    path = Path(REAL_FVQA)
    assert formats.recognise(path) == "mmsearch-r1"
    dataset.check(path, dataset.splits(path))
    first = questions("mmsearch-r1", path, dataset.splits(path)[0])[0]
    assert first.question == "What is the country of origin of this food?" and first.answers[0] == "Spain"


# ---- InfoSeek with OVEN's images


def infoseek(number, **changes):
    return {
        "data_id": f"infoseek_train_{number:08}",
        "image_id": f"oven_{number:08}",
        "question": "Who built this?",
        "answer": ["Ada"],
        "answer_eval": ["Ada", "A. L."],
        "data_split": "train",
        **changes,
    }


def test_infoseek_finds_the_images_of_oven_in_their_folder_and_lists_those_that_are_missing(tmp_path):
    images = write_images(tmp_path / "oven", "00/oven_00000001.jpg")
    path = write_lines(tmp_path / "infoseek_train.jsonl", infoseek(1), infoseek(2))
    row, error = found("infoseek", path, "train", images)
    assert row.question.answers == ("Ada", "A. L.") and row.image == images / "00/oven_00000001.jpg"
    assert "image_id: image 'oven_00000002' is missing" in error.sentence()


def test_infoseek_accepts_the_value_of_a_numerical_range(tmp_path):
    images = write_images(tmp_path, "oven_00000001.jpg")
    asked = infoseek(1, answer=None, answer_eval=[{"wikidata": 12, "range": [11, 13]}])
    path = write_lines(tmp_path / "infoseek_val.jsonl", asked)
    assert questions("infoseek", path, "validation", images)[0].answers == ("12",)


def entities(path, *pairs):
    return write_lines(
        path, *({"data_id": f"infoseek_train_{n:08}", "entity_id": f"Q{n}", "entity_text": text} for n, text in pairs)
    )


@pytest.mark.parametrize("folder", ["", "kb_mapping"])
def test_questions_of_infoseek_get_their_entities_by_data_id_in_whatever_order(tmp_path, folder):
    images = write_images(tmp_path / "oven", *(f"oven_{n:08}.jpg" for n in (1, 2, 3)))
    path = write_lines(tmp_path / "kb" / "infoseek_train.jsonl", *(infoseek(n) for n in (1, 2, 3)))
    entities(tmp_path / "kb" / folder / "infoseek_train_withkb.jsonl", (9, "Other"), (2, "Engine"), (1, "Tower"))
    assert formats.load("infoseek").splits(tmp_path / "kb") == ("train",)
    marks = [
        each.evidence.model_extra.get("entity") for each in questions("infoseek", tmp_path / "kb", "train", images)
    ]
    assert marks == ["Tower", "Engine", None]
    assert len(questions("infoseek", path, "train", images)) == 3


def test_a_mapping_of_infoseek_that_is_cut_off_is_one_error(tmp_path):
    images = write_images(tmp_path, "oven_00000001.jpg", "oven_00000002.jpg")
    path = write_lines(tmp_path / "infoseek_train.jsonl", infoseek(1), infoseek(2))
    (tmp_path / "infoseek_train_withkb.jsonl").write_text('{"data_id": "infos')
    assert "infoseek_train_withkb.jsonl:1: the last line is cut off" in only_error("infoseek", path, "train", images)


def test_the_mapping_of_infoseek_is_refused_in_place_of_its_questions(tmp_path):
    path = entities(tmp_path / "infoseek_train_withkb.jsonl", *((n, "Tower") for n in range(9)))
    assert "maps questions to entities and holds none (name infoseek_train.jsonl;" in only_error(
        "infoseek", path, "train"
    )


# ---- SimpleVQA


def simplevqa(number, **changes):
    return {
        "data_id": number,
        "image": base64_of(jpeg(number, 200, 200)),
        "question": "who?",
        "answer": 1889,
        "language": "EN",
        "original_category": "art",
        **changes,
    }


def test_simplevqa_has_images_in_base64_or_embedded_and_integer_answers(tmp_path):
    embedded = {"bytes": jpeg(2), "path": None}
    lines = write_lines(tmp_path / "lines" / "test.jsonl", simplevqa(1))
    table = write_parquet(tmp_path / "test.parquet", [simplevqa(2, image=embedded, language="CN")])
    (first,), (second,) = questions("simplevqa", lines, "test"), questions("simplevqa", table, "test")
    assert (first.id, first.answers, second.evidence.model_extra["language"]) == ("simplevqa-1", ("1889",), "CN")
    dataset.check(lines, ["test"])


# ---- MMSearch


def test_mmsearch_leaves_out_questions_without_an_image_and_uses_no_screenshot(tmp_path):
    base = {
        "query": "who?",
        "gt_answer": "Ada",
        "area": "news",
        "image_search_result": {"bytes": jpeg(9), "path": None},
    }
    image = {"bytes": jpeg(1), "path": None}
    rows = [
        {"sample_id": "a", "query_image": image, "alternative_gt_answers": ["A. L."], **base},
        {"sample_id": "b", "query_image": None, "alternative_gt_answers": [], **base},
    ]
    path = write_parquet(tmp_path / "end2end.parquet", rows)
    kept, left = found("mmsearch", path, "end2end")
    assert kept.question.answers == ("Ada", "A. L.") and kept.image == jpeg(1)
    assert left == LeftOut(f"{path}: row 2", "no image (query_image is null)")
    assert formats.recognise(path) == "mmsearch"


# ---- LiveVQA


def livevqa_level(**changes):
    return {
        "question": "who?",
        "question_type": "person",
        "options": ["A. Bob", "B. Ada Lovelace"],
        "Ground_Truth": "B",
        "Ground_Truth_List": ["Ada"],
        **changes,
    }


def test_livevqa_of_the_repository_gives_two_questions_an_item_without_their_options(tmp_path):
    write_images(tmp_path / "News", "img/1.jpg")
    item = {"id": 1, "img_path": "img/1.jpg", "level1_qa": livevqa_level(), "level2_qa": livevqa_level(question="why?")}
    (tmp_path / "News" / "benchmark.json").write_text(json.dumps([item]))
    assert formats.find(tmp_path).splits(tmp_path) == ("news",)
    first, second = questions("livevqa", tmp_path, "news")
    assert (first.id, second.id) == ("news-1-level1", "news-1-level2")
    assert first.question == "who?" and first.answers == ("Ada Lovelace", "Ada")


def test_livevqa_names_a_level_whose_letter_is_no_option_and_keeps_the_other(tmp_path):
    write_images(tmp_path, "1.jpg")
    item = {"id": 1, "img_path": "1.jpg", "level1_qa": livevqa_level(Ground_Truth="Z"), "level2_qa": livevqa_level()}
    path = tmp_path / "benchmark.json"
    path.write_text(json.dumps([item]))
    error = only_error("livevqa", path, tmp_path.name.lower())
    assert "level1_qa.Ground_Truth: 'Z' is none of the options A, B" in error
    assert len(found("livevqa", path, tmp_path.name.lower())) == 2


def test_livevqa_as_a_table_has_one_question_a_row_with_images_of_the_zips(tmp_path):
    write_images(tmp_path / "zips", "news/1.jpg")
    row = {"id": "n1", "question": "who?", "options": ["A. Ada", "B. Bob"], "ground_truth": "A", "level": 2}
    path = write_parquet(tmp_path / "Dataset_viewer_flat.parquet", [{**row, "img_path": "news/1.jpg"}])
    (question,) = questions("livevqa", path, "Dataset_viewer_flat", tmp_path / "zips")
    assert question.answers == ("Ada",) and question.evidence.model_extra["level"] == "2"


# ---- DynVQA


def dynvqa(number, **changes):
    return {
        "image_url": f"https://host.example/dyn/{number}.jpg",
        "question": "who?",
        "question_id": f"en{number}",
        "answer": ["Ada", 12],
        "gloden_query": "ada",
        **changes,
    }


def test_dynvqa_reads_both_spellings_integers_and_nan_and_each_date_is_a_split(tmp_path):
    write_images(tmp_path, "images/dyn/1.jpg")
    new = {"golden_query": "ada", **dynvqa(1)}
    del new["gloden_query"]
    write_lines(tmp_path / "DynVQA_en.202412.jsonl", dynvqa(1, gloden_query=math.nan))
    write_lines(tmp_path / "DynVQA_en.202502.jsonl", new)
    write_lines(tmp_path / "DynVQA_zh.202502.jsonl", {**new, "answer": ["阿达"]})
    assert formats.find(tmp_path).splits(tmp_path) == ("en-202412", "en-202502", "zh-202502")
    for split in ("en-202412", "en-202502"):
        (question,) = questions("dynvqa", tmp_path, split, tmp_path / "images")
        assert question.answers == ("Ada", "12") and question.evidence.model_extra["version"] == split
    assert questions("dynvqa", tmp_path, "zh-202502", tmp_path / "images")[0].answers == ("阿达",)


def test_a_file_that_mixes_versions_of_dynvqa_is_named_at_its_first_row_of_the_other(tmp_path):
    write_images(tmp_path, "1.jpg", "2.jpg")
    new = {**dynvqa(2), "golden_query": "x"}
    del new["gloden_query"]
    path = write_lines(tmp_path / "en.jsonl", dynvqa(1), new)
    assert f"{path}:2: golden_query: rows before it have gloden_query" in only_error("dynvqa", path, "en", tmp_path)


def test_an_image_of_dynvqa_that_was_not_fetched_is_named_by_its_url(tmp_path):
    path = write_lines(tmp_path / "en.jsonl", dynvqa(1))
    assert "image_url: image 'https://host.example/dyn/1.jpg' is missing" in only_error("dynvqa", path, "en")


# ---- SenseNova-MARS


def test_mars_reads_the_lines_that_its_meta_file_names_and_compares_their_number(tmp_path):
    write_images(tmp_path / "data" / "mm", "images/1.jpg")
    row = {
        "prompt": [{"role": "user", "content": "<image>\nwho?"}],
        "image": "images/1.jpg",
        "reward_model": {"ground_truth": ["Ada"]},
        "image_search_title_list": ["x"],
    }
    write_lines(tmp_path / "data" / "mm" / "data.jsonl", row)
    entry = {"root": "data/mm", "annotation": "data/mm/data.jsonl", "length": 1, "repeat_time": 1}
    meta = tmp_path / "meta.json"
    meta.write_text(json.dumps({"mmsearch": entry}))
    assert formats.recognise(meta) == "sensenova-mars" and formats.find(meta).splits(meta) == ("mmsearch",)
    (question,) = questions("sensenova-mars", meta, "mmsearch")
    assert (question.question, question.answers) == ("who?", ("Ada",))
    meta.write_text(json.dumps({"mmsearch": {**entry, "length": 171}}))
    assert "length: 171" in only_error("sensenova-mars", meta, "mmsearch")


# ---- Plain rows and folders of Hugging Face


def test_plain_rows_go_by_the_names_that_fields_usually_have(tmp_path):
    write_images(tmp_path, "1.jpg")
    path = write_lines(
        tmp_path / "rl_data.jsonl",
        {"id": "a", "question": "who?", "answer": "Ada", "images": ["1.jpg"]},
        {"question_id": 7, "prompt": "who?", "answers": ["Ada"], "file_path": "1.jpg", "lang": "en"},
    )
    assert [each.id for each in questions("plain", path, "rl_data")] == ["a", "7"]
    assert formats.recognise(path) == "plain"


def test_a_folder_of_save_to_disk_is_read_by_its_splits(tmp_path):
    for split in ("train", "test"):
        folder = tmp_path / split
        folder.mkdir()
        table = pyarrow.table({"question": ["who?"], "answer": [split], "image": [{"bytes": jpeg(), "path": None}]})
        with (
            (folder / "data-00000-of-00001.arrow").open("wb") as stream,
            pyarrow.ipc.new_stream(stream, table.schema) as writer,
        ):
            writer.write_table(table)
        (folder / "dataset_info.json").write_text("{}")
        (folder / "state.json").write_text("{}")
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert formats.recognise(tmp_path) == "huggingface" and dataset.splits(tmp_path) == ("test", "train")
    assert questions("huggingface", tmp_path, "test")[0].answers == ("test",)


def test_shards_of_a_repository_are_one_split_and_a_benchmark_among_them_is_recognised_as_itself(tmp_path):
    for shard in range(2):
        row = {"question": "who?", "answer": "Ada", "image": {"bytes": jpeg(shard), "path": None}, "id": str(shard)}
        write_parquet(tmp_path / "plain" / "data" / f"train-0000{shard}-of-00002.parquet", [row])
    write_parquet(tmp_path / "simple" / "data" / "test-00000-of-00001.parquet", [simplevqa(1)])
    assert formats.recognise(tmp_path / "plain") == "huggingface"
    assert [each.id for each in questions("huggingface", tmp_path / "plain", "train")] == ["0", "1"]
    assert formats.recognise(tmp_path / "simple") == "simplevqa"


def test_a_file_that_two_formats_may_have_is_not_guessed(tmp_path):
    row = {"conversations": [], "images": [], "messages": []}
    path = write_lines(tmp_path / "a.jsonl", row)
    with pytest.raises(UserError, match="may be of the formats ms-swift, sharegpt"):
        formats.recognise(path)


def test_gogs_own_folder_is_recognised_as_such(tmp_path):
    write_images(tmp_path, "1.jpg")
    write_lines(tmp_path / "train.jsonl", {"id": "a", "image": "1.jpg", "question": "who?", "answers": ["Ada"]})
    assert formats.recognise(tmp_path) == formats.OWN


def test_a_folder_of_images_is_refused_by_a_format_that_takes_none():
    with pytest.raises(UserError, match="--images: format 'gog-jsonl' takes no folder of images"):
        formats.load("gog-jsonl", Path("x"))


def test_the_documentation_lists_every_format():
    page = (Path(__file__).parents[2] / "docs" / "dataset.md").read_text()
    listed = {line.split("`")[1] for line in page.splitlines() if line.startswith("| `")}
    assert set(formats.names()) - {formats.OWN} <= listed
