"""API keys as they are sent: without the white space that files and copying add.

A key that ends in a line break, as `echo key > file` makes it, is refused by every HTTP library or, worse, sent. So keys
are trimmed wherever one is read; a character inside that no header can carry is an error that names the variable and the
place of the character, never the key.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping

from gog.errors import UserError

STORE_KEYS = "GOG_STORE_KEYS"
"""Environment variable with the folder that holds the keys of the store as files: a mounted Secret."""
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
    """S3 keys as arguments of boto3.Session: those of files, else those of the environment where cleaning changes them,
    because boto3 would sign with the line break. Empty where boto3 may read them itself.

    Args:
        environment: Environment variables; GOG_STORE_KEYS names the folder of the files, which have the names of the
            variables. Without both keys in it, it does not count.

    Raises:
        UserError: as `clean`.
    """
    names = {
        "aws_access_key_id": "AWS_ACCESS_KEY_ID",
        "aws_secret_access_key": "AWS_SECRET_ACCESS_KEY",
        "aws_session_token": "AWS_SESSION_TOKEN",
    }
    files = _from_files(environment.get(STORE_KEYS, ""), names)
    if files.get("aws_access_key_id") and files.get("aws_secret_access_key"):
        return files
    found = {argument: name for argument, name in names.items() if name in environment}
    cleaned = {argument: from_environment(name, environment) for argument, name in found.items()}
    complete = cleaned.get("aws_access_key_id") and cleaned.get("aws_secret_access_key")
    changed = any(cleaned[argument] != environment[name] for argument, name in found.items())
    return {argument: key for argument, key in cleaned.items() if key} if complete and changed else {}


def _from_files(folder: str, names: Mapping[str, str]) -> dict[str, str]:
    """The keys in the files of a folder, by argument, without those that are missing or empty. Raises UserError."""
    found = {}
    for argument, name in names.items():
        file = pathlib.Path(folder, name)
        key = clean(file.read_text(encoding="utf-8"), str(file)) if folder and file.is_file() else ""
        if key:
            found[argument] = key
    return found
