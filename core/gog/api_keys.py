"""API keys as they are sent: without the white space that files and copying add.

A key that ends in a line break, as `echo key > file` makes it, is refused by every HTTP library or, worse, sent. So keys
are trimmed wherever one is read; a character inside that no header can carry is an error that names the variable and the
place of the character, never the key.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from gog.errors import UserError

_EDGES = " \t\r\n\v\f\0\ufeff\u00a0\u200b"
"""White space, byte-order mark and their like, at either end."""


def clean(key: str, where: str) -> str:
    """A key without white space around it.

    Args:
        key: as it was found in a file or in the environment.
        where: the variable or file, for messages.

    Raises:
        UserError: a character inside is no printable ASCII character.
    """
    trimmed = key.strip().strip(_EDGES).strip()
    for place, character in enumerate(trimmed, 1):
        if not " " <= character <= "~":
            raise UserError(
                f"the key holds U+{ord(character):04X} as character {place} of {len(trimmed)}",
                where=where,
                remedy="set it again from its source; keys are printable ASCII characters in one line",
            )
    return trimmed


def from_environment(name: str, environment: Mapping[str, str] = os.environ) -> str:
    """The key in a variable, without white space around it; empty when it is not set. Raises UserError as `clean`."""
    return clean(environment.get(name, ""), name)


def aws_credentials(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """S3 keys of the environment as arguments of boto3.Session, where cleaning changes them; boto3 would sign with the
    line break. Empty where boto3 may read them itself. Raises UserError as `clean`."""
    names = {
        "aws_access_key_id": "AWS_ACCESS_KEY_ID",
        "aws_secret_access_key": "AWS_SECRET_ACCESS_KEY",
        "aws_session_token": "AWS_SESSION_TOKEN",
    }
    found = {argument: name for argument, name in names.items() if name in environment}
    cleaned = {argument: from_environment(name, environment) for argument, name in found.items()}
    complete = cleaned.get("aws_access_key_id") and cleaned.get("aws_secret_access_key")
    changed = any(cleaned[argument] != environment[name] for argument, name in found.items())
    return {argument: key for argument, key in cleaned.items() if key} if complete and changed else {}
