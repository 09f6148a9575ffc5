"""The exceptions that a user is meant to read.

Anything a user can correct (a misspelt field, a missing file, a full disk) is raised as `UserError`: the command line
prints its three parts and exits with 2, without a traceback, and the control plane does not retry. A service that
stayed down for longer than the stage waits is `ServiceDown`: exit code 1, and the attempt is retried. Everything else is
a bug and keeps its traceback.
"""

from __future__ import annotations

import errno
import os


class UserError(Exception):
    """Something that the user can correct.

    Attributes:
        what: what is wrong.
        where: the file, field or address that is wrong.
        remedy: what to do about it.
    """

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        self.what, self.where, self.remedy = what, where, remedy
        super().__init__(self.sentence())

    def sentence(self) -> str:
        """The three parts in one line."""
        where = f"{self.where}: " if self.where else ""
        remedy = f" ({self.remedy})" if self.remedy else ""
        return f"{where}{self.what}{remedy}"


class QuestionSkipped(UserError):
    """One question cannot be played: its prompt is too long for the context, or its image cannot be used.

    A stage counts it, names it in its log and continues with the other questions. Outside a stage it is a UserError.
    """


class ServiceDown(Exception):
    """A service was down for longer than the stage waits. Nothing in the manifest is wrong: it is retried.

    Attributes:
        service: name of the tool, `judge`, or the hub that a base model is fetched from.
        reason: why its last calls failed, in the service's own words where it gave any.
    """

    def __init__(self, service: str, reason: str) -> None:
        self.service, self.reason = service, reason
        super().__init__(self.sentence())

    def sentence(self) -> str:
        return f"{self.service}: {self.reason} (the stage's next attempt resumes from its last checkpoint)"


def unwritable(error: OSError, where: object, *, remedy: str = "name a folder that can be written") -> UserError:
    """The UserError for a file or folder that could not be written."""
    if is_disk_full(error):
        return UserError(
            "the disk is full", where=str(where), remedy="free space, then `gog resume`; nothing committed is lost"
        )
    return UserError(f"cannot write: {error.strerror}", where=str(where), remedy=remedy)


def is_disk_full(error: Exception) -> bool:
    """Whether an error means that the disk or the quota is full.

    Some libraries (safetensors) pass on the system's message instead of its number, so that is recognized too.
    """
    full = (errno.ENOSPC, errno.EDQUOT)
    return getattr(error, "errno", None) in full or any(os.strerror(number) in str(error) for number in full)
