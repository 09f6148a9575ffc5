"""The device of a back end that uses torch."""

from __future__ import annotations

from typing import Any

from gog import wording
from gog.errors import UserError


def find(name: str) -> Any:
    """The torch device of a name; auto: cuda if there is one, else cpu. Raises UserError for one that is not there."""
    import torch  # seconds, and servers without a network need none

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        cause = wording.one_line(str(error).strip().partition("\n")[0], 200)
        raise UserError(f"no device {name!r}: {cause}", where="device", remedy="auto, cpu, cuda, cuda:1, …") from None
    return device
