"""Claims about naming tokens: their pieces spell the text, or there are none."""

from __future__ import annotations

import doctest
import json
from pathlib import Path

import pytest
import support.view_builders as viewers

from gog.errors import UserError
from gog_console.viewer import sources, tokens
from gog_console.viewer.tokens import Vocabulary

TINY = Path(__file__).parents[3] / "recipes/gog_recipes/world/tiny"


def test_docstring_examples_hold():
    assert doctest.testmod(tokens).failed == 0


def test_the_shipped_model_names_its_tokens():
    vocabulary = Vocabulary.read(TINY)
    text = "<think>several</think><img_search>red ring</img_search>"
    by_text = {value: key for key, value in vocabulary.texts.items()}
    ids = [by_text[t] for t in ("<think>", "several", "</think>", "<img_search>", "red", "ring", "</img_search>")]
    assert "".join(vocabulary.pieces(ids, text) or ()) == text


def test_byte_level_tokens_that_split_a_character_still_spell_the_text():
    signs = {byte: sign for sign, byte in tokens._bytes_by_sign().items()}
    parts = [" é"[:1].encode() + "é".encode()[:1], "é".encode()[1:], b" ring"]
    vocabulary = Vocabulary({n: "".join(signs[b] for b in part) for n, part in enumerate(parts)}, byte_level=True)
    pieces = vocabulary.pieces([0, 1, 2], " é ring")
    assert pieces and len(pieces) == 3 and pieces[2] == " ring"


def test_an_ending_token_that_the_text_does_not_show_is_an_empty_piece():
    assert Vocabulary({1: "yes", 2: "<|im_end|>"}, False).pieces([1, 2], "yes") == ["yes", ""]


@pytest.mark.parametrize("ids", [[9], [2, 1], [1], [1, 2, 2]])
def test_a_foreign_vocabulary_names_nothing(ids):
    assert Vocabulary({1: "look", 2: "here"}, False).pieces(ids, "look here") is None


def test_a_file_that_is_not_a_tokenizer_is_refused(tmp_path):
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": [["a", 1]]}}))
    for path in (tmp_path, tmp_path / "absent.json"):
        with pytest.raises(UserError):
            Vocabulary.read(path)


def test_the_page_gets_a_piece_for_each_coloured_token(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text(viewers.illustrated(1).model_dump_json() + "\n")
    vocabulary = Vocabulary({1: "<answer>blue", 2: "sky</answer>"}, False)
    with viewers.viewing(sources.of_file(path), tmp_path, vocabulary=vocabulary) as viewer:
        turns = viewer.json("/api/trajectory?id=" + viewer.ids()[0])["trajectory"]["turns"]
    assert turns[2]["pieces"] == ["<answer>blue", " sky</answer>"] and "pieces" not in turns[0]
