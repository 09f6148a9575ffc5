"""A YAML text means to gog what it means to kubectl, or is refused in one sentence."""

from __future__ import annotations

import json

import pytest

from gog.errors import UserError
from gog_operator.api import yaml_reader

SCALARS = {
    **dict.fromkeys(("y", "Yes", "TRUE", "on"), True),
    **dict.fromkeys(("n", "No", "FALSE", "off"), False),
    **dict.fromkeys(("", "~", "null", "NULL"), None),
    "1e-4": 1e-4,
    "1.5E+3": 1500,
    "5.0": 5,
    "5.": 5,
    ".5": 0.5,
    "-0.0": 0,
    "1_000": 1000,
    "0x1F": 31,
    "-0b11": -3,
    "017": 15,
    "0o17": 15,
    "08": 8,
    "9223372036854775807": 2**63 - 1,
    "9223372036854775808": 2.0**63,
    "1e400": "1e400",
    "1:30": "1:30",
    "2024-01-01": "2024-01-01",
    "1.2.3": "1.2.3",
    "_1": "_1",
    "=": "=",
    "nan": "nan",
}
"""Scalars without quotes and their values, as kubectl's parser resolves them."""


@pytest.mark.parametrize(("text", "value"), SCALARS.items(), ids=SCALARS)
def test_a_scalar_without_quotes_has_the_value_that_kubectl_gives_it(text, value):
    read = yaml_reader.scalar(text)
    assert (read, type(read)) == (value, type(value))


@pytest.mark.apiserver
def test_kubectl_gives_every_scalar_the_same_value(api_server, tmp_path):
    fields = "".join(f"  k{number}: {text}\n" for number, text in enumerate(SCALARS))
    keys = "  y: bool\n  1: int\n  1.5: float\n"
    file = tmp_path / "scalars.yaml"
    file.write_text(f"apiVersion: v1\nkind: Any\nmetadata: {{name: a}}\nvalues:\n{fields}{keys}")
    text = api_server.kubectl("annotate", "--local", "-f", file, "a=b", "-o", "json")
    printed = json.loads(text, parse_int=lambda digits: int(digits) if abs(int(digits)) < 2**63 else float(digits))
    assert printed["values"] == yaml_reader.read(file)["values"]


def test_quotes_make_text():
    assert yaml_reader.mapping("a: 'off'\nb: \"5\"\nc: |\n  1\n", where="f") == {"a": "off", "b": "5", "c": "1\n"}


def test_merge_keys_are_resolved():
    text = "base: &b {p: 1, q: 1}\nx: {<<: *b, q: 2}\nz: {<<: [{p: 3}, *b], r: 4}\n"
    read = yaml_reader.mapping(text, where="f")
    assert read["x"] == {"p": 1, "q": 2} and read["z"] == {"p": 3, "q": 1, "r": 4}


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 9)
)
REFUSED = {
    "template": (
        "seed: {{ .Values.seed }}",
        "f: line 1: a mapping is used as a key (render the template first, e.g. with helm template)",
    ),
    "template inside text": (
        "a: 1\nname: {{ .Values.name }}-run",
        "f: line 2: not valid YAML: expected <block end>, but found '<scalar>' "
        "(render the template first, e.g. with helm template)",
    ),
    "tab": (
        "a:\n\tb: 1",
        "f: line 2: not valid YAML: found character '\\t' that cannot start any token (indent with spaces, not tabs)",
    ),
    "merge of a number": ("<<: 5", "f: line 1: the merge key << needs a mapping, or a list of mappings"),
    "anchor inside itself": ("a: &a [*a]", "f: line 1: an anchor contains itself"),
    "undefined alias": ("a: *b", "f: line 1: not valid YAML: found undefined alias 'b'"),
    "Python object": (
        "a: !!python/object/apply:os.system [id]",
        "f: line 1: the tag !!python/object/apply:os.system is not allowed "
        "(a manifest holds mappings, lists, text, numbers)",
    ),
    "tag of another type": ("a: !!int on", "f: line 1: 'on' is not of the type !!int"),
    "aliases that expand": (BOMB, "f: line 1: has more than 100,000 values"),
    "deep nesting": ("[" * 5000, "f: is nested too deeply"),
    "infinity": ("a: -.inf", "f: line 1: -.inf is not a finite number"),
    "not a number": ("a: .nan", "f: line 1: .nan is not a finite number"),
    "key twice": ("a: 1\nb: 2\na: 3", "f: line 3: the key a occurs twice"),
    "key twice, in another spelling": ("on: 1\ny: 2", "f: line 2: the key true occurs twice"),
    "list as a key": ("[a]: 1", "f: line 1: a list is used as a key"),
    "empty key": ("~: 1", "f: line 1: a key is empty"),
    "control character": ("a: \x07", "f: contains the character U+0007, which YAML forbids"),
    "half a surrogate pair": ('a: "\\ud800"', "f: line 1: the text contains half of a surrogate pair"),
    "empty": ("", "f: is empty (start from examples/world.yaml)"),
    "several documents": ("a: 1\n---\nb: 1", "f: has 2 documents (write one object per file)"),
    "list": (
        "- a",
        "f: is a list, should be a mapping (a manifest starts with apiVersion: gog.dev/v1alpha1 and kind: GoGRun)",
    ),
}


@pytest.mark.parametrize(("text", "sentence"), REFUSED.values(), ids=REFUSED)
def test_a_text_that_is_not_a_manifest_is_refused_in_one_sentence(text, sentence):
    with pytest.raises(UserError) as caught:
        yaml_reader.mapping(text, where="f")
    assert str(caught.value) == sentence


def test_a_file_that_cannot_be_read_is_refused_in_one_sentence(tmp_path):
    binary, large = tmp_path / "image.yaml", tmp_path / "large.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    large.write_bytes(b"#" * (yaml_reader.LARGEST + 1))
    for path, sentence in (
        (tmp_path / "none.yaml", "no such file (the path is relative to where gog is called)"),
        (tmp_path, "is a folder (name the manifest in it)"),
        (binary, "is not UTF-8 text (is this the manifest?)"),
        (large, "is larger than 1 MiB (is this the manifest?)"),
    ):
        with pytest.raises(UserError) as caught:
            yaml_reader.read(path)
        assert str(caught.value) == f"{path}: {sentence}"


def test_a_value_on_the_command_line_is_read_alike():
    assert [yaml_reader.value(text, where="--set") for text in ("1e-4", "off", "[1, 2]", "")] == [
        1e-4,
        False,
        [1, 2],
        None,
    ]
