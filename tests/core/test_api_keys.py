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
