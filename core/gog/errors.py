"""The exceptions that a user is meant to read.

Anything a user can correct (a misspelt field, a missing file) is raised as `UserError`: the command line prints its three
parts and exits with 2, without a traceback, and the control plane does not retry. A service that stayed down for longer
than the stage waits is `ServiceDown`: exit code 1, and the attempt is retried. So is a stage whose disk is full or fails
(`is_storage_outage`). Everything else is a bug and keeps its traceback.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence


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


class Unwritable(UserError):
    """A file or folder could not be written.

    Attributes:
        may_pass: whether it may succeed later without a change by the user, so that a stage is retried.
    """

    def __init__(self, what: str, *, where: str, remedy: str, may_pass: bool) -> None:
        self.may_pass = may_pass
        super().__init__(what, where=where, remedy=remedy)


class UnreadableFile(UserError):
    """A file of a dataset cannot be read, or not to its end, so the number of rows that are missing is unknown.

    It is not a faulty row: what leaves out faulty rows must refuse it.
    """


class QuestionSkipped(UserError):
    """One question cannot be played: its prompt is too long for the context, or its image cannot be used.

    A stage counts it, names it in its log and continues with the other questions. Outside a stage it is a UserError.
    """


class NotFinite(UserError):
    """A policy gave a token of one conversation a log-probability that is not finite. The rollout names the trajectory."""


class UnreadableImage(Exception):
    """Resized pixels of a rollout that their file does not give back. The next attempt resizes the image again."""

    def __init__(self, image_hash: str, cause: str) -> None:
        self.image_hash = image_hash
        super().__init__(
            f"the resized image {image_hash} cannot be read: {cause} (the next attempt makes it again; keep the folder of "
            "temporary files, TMPDIR, free of other programs' cleaning and give it enough space)"
        )


class ServiceDown(Exception):
    """A service was down for longer than the stage waits. Nothing in the manifest is wrong: it is retried.

    Attributes:
        service: name of the tool, `judge`, or the hub that a base model or a dataset is fetched from.
        reason: why its last calls failed, in the service's own words where it gave any.
    """

    def __init__(self, service: str, reason: str) -> None:
        self.service, self.reason = service, reason
        super().__init__(f"{service}: {reason}")


def unwritable(error: OSError, where: object, *, remedy: str = "name a folder that can be written") -> Unwritable:
    """The UserError for a file or folder that could not be written."""
    if is_disk_full(error):
        what, remedy = "the disk is full", "free space, then `gog resume`; nothing committed is lost"
    else:
        what = f"cannot write: {error.strerror or error}"
    return Unwritable(what, where=str(where), remedy=remedy, may_pass=is_storage_outage(error))


def is_disk_full(error: Exception) -> bool:
    """Whether an error means that the disk or the quota is full.

    Some libraries (safetensors) pass on the system's message instead of its number, so that is recognized too.
    """
    return _is_one_of(error, _FULL)


def is_storage_outage(error: Exception) -> bool:
    """Whether an error means that a disk is full or fails, is mounted read-only, or that its server is away.

    All of these end without a change to the run: space is freed, a volume is repaired or mounted again, and a pod may
    start on another node. Missing permissions do not.
    """
    return _is_one_of(error, _OUTAGES)


_FULL = (errno.ENOSPC, errno.EDQUOT)
_OUTAGES = (*_FULL, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EHOSTDOWN)


def _is_one_of(error: Exception, numbers: Sequence[int]) -> bool:
    return getattr(error, "errno", None) in numbers or any(os.strerror(number) in str(error) for number in numbers)
