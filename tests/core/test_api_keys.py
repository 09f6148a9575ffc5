"""API keys: trimmed wherever they are read, and never shown."""

from __future__ import annotations

import pytest

from gog import api_keys
from gog.errors import UserError


@pytest.mark.parametrize("found", ["sk-1", "sk-1\n", "\r\n sk-1\t", "\ufeffsk-1\n", "sk-1\u00a0", "\u200bsk-1\0"])
def test_white_space_around_a_key_is_not_part_of_it(found: str) -> None:
    assert api_keys.clean(found, "KEY") == "sk-1"


@pytest.mark.parametrize("found", ["", " \n"])
def test_an_empty_variable_is_no_key(found: str) -> None:
    assert api_keys.from_environment("KEY", {"KEY": found}) == api_keys.from_environment("KEY", {}) == ""


def test_a_key_may_hold_spaces_and_every_printable_ascii_character() -> None:
    key = "".join(map(chr, range(33, 127))) + " end"
    assert api_keys.clean(key, "KEY") == key


@pytest.mark.parametrize(
    ("found", "named"), [("sk\n1", "U+000A"), ("sk\x001", "U+0000"), ("sk\x7f1", "U+007F"), ("sk’1", "U+2019")]
)
def test_a_character_that_no_header_can_carry_is_named_and_the_key_is_not(found: str, named: str) -> None:
    with pytest.raises(UserError) as caught:
        api_keys.clean(found, "JUDGE_GOG_API_KEY")
    assert str(caught.value).startswith(f"JUDGE_GOG_API_KEY: the key holds {named} as character 3 of 4")
    assert "sk" not in str(caught.value)


PAIR = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"}


def test_s3_keys_with_a_line_break_are_given_to_boto3_without_it() -> None:
    assert api_keys.aws_credentials({**PAIR, "AWS_SECRET_ACCESS_KEY": "secret\n"}) == {
        "aws_access_key_id": "id",
        "aws_secret_access_key": "secret",
    }


@pytest.mark.parametrize("environment", [{}, PAIR, {"AWS_ACCESS_KEY_ID": "id\n"}])
def test_s3_keys_that_are_clean_or_incomplete_are_left_to_boto3(environment: dict[str, str]) -> None:
    assert api_keys.aws_credentials(environment) == {}


def written(folder, **keys):
    for name, key in keys.items():
        (folder / name).write_text(key)
    return {**PAIR, api_keys.STORE_KEYS: str(folder)}


def test_keys_in_files_take_precedence_over_those_of_the_environment(tmp_path):
    environment = written(tmp_path, AWS_ACCESS_KEY_ID="file\n", AWS_SECRET_ACCESS_KEY="hidden")
    assert api_keys.aws_credentials(environment) == {"aws_access_key_id": "file", "aws_secret_access_key": "hidden"}
    (tmp_path / "AWS_SESSION_TOKEN").write_text("t")
    assert api_keys.aws_credentials(environment)["aws_session_token"] == "t"


def test_a_folder_without_both_keys_leaves_the_choice_to_boto3(tmp_path):
    assert api_keys.aws_credentials(written(tmp_path, AWS_ACCESS_KEY_ID="file")) == {}
    assert api_keys.aws_credentials({api_keys.STORE_KEYS: str(tmp_path / "absent")}) == {}


def test_an_odd_character_in_a_file_is_named_with_the_file_and_never_shown(tmp_path):
    environment = written(tmp_path, AWS_ACCESS_KEY_ID="id", AWS_SECRET_ACCESS_KEY="sec\u2013ret")
    with pytest.raises(UserError, match=r"AWS_SECRET_ACCESS_KEY: the key holds U\+2013 as character 4 of 7") as caught:
        api_keys.aws_credentials(environment)
    assert "sec\u2013ret" not in str(caught.value)
