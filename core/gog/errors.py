"""The one exception that a user is meant to read.

Anything a user can mend (a misspelt field, a missing file, a full disk) is raised as `UserError`: the command line
prints its three parts and exits with 2, without a traceback. Everything else is a bug and keeps its traceback.
"""

from __future__ import annotations


class UserError(Exception):
    """Something the user can mend.

    what: what is wrong; where: the file, field or address it is wrong in; remedy: what to do about it.
    """

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        self.what, self.where, self.remedy = what, where, remedy
        super().__init__(self.sentence())

    def sentence(self) -> str:
        where = f"{self.where}: " if self.where else ""
        remedy = f" ({self.remedy})" if self.remedy else ""
        return f"{where}{self.what}{remedy}"
