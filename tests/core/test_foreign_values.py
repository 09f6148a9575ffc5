"""Values as exporters write them: answers inside strings, integers, NaN; images in every form; files read in pieces."""

from __future__ import annotations

import json
import math
import pickle

import pytest
from support.foreign_files import base64_of, jpeg, write_images, write_lines, write_parquet

from gog.dataset.foreign import embedded, messages, tables, values
from gog.dataset.foreign.values import Fault
from gog.errors import UserError

IMAGE = jpeg()


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("Ada", ("Ada",)),
        (" Ada ", ("Ada",)),
        (1889, ("1889",)),
        (2.0, ("2",)),
        (True, ("yes",)),
        (["Ada", 7, None, math.nan, "Ada"], ("Ada", "7")),
        ('["Ada", "A. L."]', ("Ada", "A. L.")),
        ("[sic] Ada", ("[sic] Ada",)),
        ("[not json]", ("[not json]",)),
        ({"wikidata": 12.0, "range": [11, 13]}, ("12",)),
        ({"range": [11, 13]}, ("12",)),
    ],
)
def test_answers_are_read_in_every_form_that_exporters_write(given, read):
    assert values.answers(given) == read


@pytest.mark.parametrize("given", [None, math.nan, "", "  ", [], "[]", [None], math.inf, {"unit": "m"}, b"Ada"])
def test_a_value_without_an_answer_is_a_fault_that_names_the_field(given):
    with pytest.raises(Fault, match=r"^answer: "):
        values.answers(given)


def test_alternatives_follow_the_gold_answer_and_occur_once():
    assert values.answers("Ada", '["A. L.", "Ada"]', None) == ("Ada", "A. L.")


def test_an_answer_ends_a_reply_in_a_tag_a_box_or_as_a_short_reply():
    assert values.final_answer("<think>x</think><answer>Bob</answer> or <answer> Ada </answer>", "m") == "Ada"
    assert values.final_answer(r"so \boxed{42}", "m") == "42" and values.final_answer("Ada", "m") == "Ada"
    with pytest.raises(Fault, match="301 characters and no <answer>"):
        values.final_answer("a" * 301, "m")


@pytest.mark.parametrize(
    "given",
    [
        IMAGE,
        {"bytes": IMAGE, "path": None},
        [{"bytes": IMAGE, "path": "x.jpg"}],
        [IMAGE, None],
        base64_of(IMAGE),
        f"data:image/jpeg;base64,{base64_of(IMAGE)}",
        list(IMAGE),
        {"url": f"data:image/jpeg;base64,{base64_of(IMAGE)}"},
    ],
)
def test_an_embedded_image_is_read_in_every_form(given):
    assert embedded.image(given, "image", embedded.Places([], by_user=False)) == IMAGE


@pytest.mark.parametrize(
    ("given", "cause"),
    [
        (pickle.dumps(b"image"), "a pickle, which gog does not load"),
        ({"bytes": pickle.dumps([1]), "path": None}, "image.bytes: a pickle"),
        (b"GIF89a", "not a PNG, JPEG or WEBP"),
        ([IMAGE, IMAGE], "2 images; a question of gog is about one"),
        ([300, 1], "not bytes"),
        ({"bytes": None, "path": None}, "neither bytes nor path"),
        (None, "has no image"),
        (math.nan, "has no image"),
        (7, "is a int, not an image"),
        ("data:image/png,abc", "not base64"),
        ("A" * 300 + "!!!", "not base64"),
        ("../../etc/passwd", "may lie outside"),
        ("images/1.jpg", "is missing"),
    ],
)
def test_an_image_that_cannot_be_used_is_a_fault_of_its_field(given, cause, tmp_path):
    with pytest.raises(Fault, match=cause):
        embedded.image(given, "image", embedded.Places([tmp_path], by_user=False))


def test_a_named_image_is_found_below_the_folders_and_by_its_name_without_ending(tmp_path):
    write_images(tmp_path, "a/images/1.jpg", "oven/07/oven_07.png")
    places = embedded.Places([tmp_path / "a", tmp_path / "oven"], by_user=True)
    assert places.find("images/1.jpg", "f") == places.find("/images/1.jpg", "f") == tmp_path / "a/images/1.jpg"
    assert places.named("oven_07", "image_id") == tmp_path / "oven/07/oven_07.png"
    with pytest.raises(embedded.Missing, match="unpack the images"):
        places.named("oven_08", "image_id")


def test_an_image_at_a_url_is_the_copy_that_was_fetched_and_two_urls_never_share_one(tmp_path):
    write_images(tmp_path, "host.example/a/1.jpg", "2.jpg")
    places = embedded.Places([tmp_path], by_user=True)
    assert places.find("https://host.example/a/1.jpg?x=1", "f") == tmp_path / "host.example/a/1.jpg"
    assert places.find("https://host.example/a/2.jpg", "f") == tmp_path / "2.jpg"
    with pytest.raises(Fault, match="two URLs end in"):
        places.find("https://host.example/b/2.jpg", "f")
    with pytest.raises(embedded.Missing, match="fetch the listed URLs once"):
        places.find("https://host.example/3.jpg", "f")


def test_conversations_are_read_by_role_or_by_sender_in_text_or_in_parts():
    parts = [{"type": "image_url", "image_url": {"url": "data:…"}}, {"type": "text", "text": "who?"}]
    assert messages.first_user([{"from": "system", "value": "x"}, {"from": "human", "value": "who?"}], "c") == "who?"
    assert messages.first_user([{"role": "user", "content": parts}], "m") == "who?"
    assert messages.images([{"role": "user", "content": parts}]) == [{"url": "data:…"}]
    with pytest.raises(Fault, match="no turn of a user"):
        messages.first_user([{"from": "gpt", "value": "x"}], "c")
    with pytest.raises(Fault, match="is text, not a list"):
        messages.first_user("who?", "c")


def rows(path):
    return [found.fields if isinstance(found, tables.Record) else found.sentence() for found in tables.read(path)]


def test_nan_is_null_and_a_wrong_line_is_named_by_its_number(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": NaN}\r\n\n{"a": 1, "a": 2}\n[1]\n{"a"\n')
    assert rows(path)[0] == {"a": None}
    assert [text.removeprefix(f"{path}:")[:1] for text in rows(path)[1:]] == ["3", "4", "5"]
    assert "key 'a' occurs twice" in rows(path)[1] and "not an object" in rows(path)[2]


def test_an_array_is_read_in_pieces_wherever_they_end(tmp_path, monkeypatch):
    items = [{"text": "ä]}," * length, "n": length} for length in range(12)]
    path = tmp_path / "a.json"
    for indent in (None, 1):
        path.write_text(json.dumps(items, indent=indent, ensure_ascii=False), encoding="utf-8")
        for piece in (1, 3, 7, 1 << 20):
            monkeypatch.setattr(tables, "PIECE", piece)
            assert rows(path) == items


@pytest.mark.parametrize(
    ("text", "cause"),
    [('[{"a": 1}', "row 2: the array does not end"), ('[{"a": 1}, {"a" 2}]', "row 2: not JSON"), ("{", "not JSON")],
)
def test_an_array_that_is_cut_off_is_reported_after_the_rows_before(tmp_path, text, cause):
    (tmp_path / "a.json").write_text(text)
    *before, last = rows(tmp_path / "a.json")
    assert before == [{"a": 1}] * len(before) and cause in last


def test_an_object_of_records_gives_them_with_their_keys(tmp_path):
    (tmp_path / "a.json").write_text('{"x": {"root": "r"}, "y": {"root": "s"}}')
    assert rows(tmp_path / "a.json") == [{"key": "x", "root": "r"}, {"key": "y", "root": "s"}]


def test_what_a_format_is_recognised_by_is_read_once_and_again_when_the_file_changes(tmp_path, monkeypatch):
    path = write_lines(tmp_path / "a.jsonl", {"image": "A" * 100_000, "turns": [{"from": "human"}, {"from": "gpt"}]})
    assert tables.first(path) == {"image": "A" * 64, "turns": [{"from": "human"}]}
    kept = tables.read
    monkeypatch.setattr(tables, "read", lambda path: pytest.fail("read twice"))
    assert tables.first(path)["turns"]
    monkeypatch.setattr(tables, "read", kept)
    assert tables.first(write_lines(path, {"other": 1})) == {"other": 1}
    assert tables.first(tmp_path / "absent.jsonl") == {}


def test_a_pickle_is_refused_by_its_content_and_by_its_name(tmp_path):
    (tmp_path / "cache.parquet").write_bytes(pickle.dumps({"image": 1}))
    (tmp_path / "cache.pkl").write_bytes(b"anything")
    for name in ("cache.parquet", "cache.pkl"):
        assert "a pickle, which gog does not load" in rows(tmp_path / name)[0]


def test_encrypted_rows_are_refused_with_what_to_do(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", {"question": "kJ9x==", "answer": ["aa=="], "canary": "MMSearch-Plus"})
    assert "canary: the text of this file is encrypted" in rows(path)[0] and "decrypt it" in rows(path)[0]


def test_a_truncated_parquet_file_is_one_error(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", [{"a": 1}] * 100)
    path.write_bytes(path.read_bytes()[:-20])
    assert len(rows(path)) == 1 and "not a readable .parquet file" in rows(path)[0]


@pytest.mark.parametrize("name", ["mini_data.pq", "download", "a.jsonl"])
def test_parquet_is_recognised_by_its_first_bytes(tmp_path, name):
    assert rows(write_parquet(tmp_path / name, [{"a": 1}])) == [{"a": 1}]
    assert tables.is_table(tmp_path / name)


@pytest.mark.parametrize("content", [b"\x1f\x8b\x08\0" + b"x\n" * 900, b"PK\x03\x04\0\n\n{}\n"])
def test_binary_content_is_one_error_and_not_one_for_each_line(tmp_path, content):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    assert len(rows(path)) == 1 and f"{path}: binary content, not JSON lines (files are .parquet, .pq" in rows(path)[0]


def test_utf_16_is_named_as_such(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n', encoding="utf-16")
    assert rows(path) == [f"{path}: the file is UTF-16 (save it as UTF-8)"]


def test_without_pyarrow_the_package_to_install_is_named(tmp_path, monkeypatch):
    path = write_parquet(tmp_path / "a.parquet", [{"a": 1}])
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"pip install 'gog\[data\]'"):
        list(tables.arrow.rows(path))
