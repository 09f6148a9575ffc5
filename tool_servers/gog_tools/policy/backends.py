"""Back ends of the policy server: what writes the completions, and how it is named on the command line.

The server speaks HTTP and needs no torch. A back end is found by name when the server starts, because tool servers
and recipes do not import each other; the default one is the recipes' own model code, which the trainer image holds.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import cast

from gog.completions import Model
from gog.errors import UserError

BACKENDS = {"transformers": "gog_recipes.models.completion:PolicyModel"}
"""`module:factory` of each back end by name."""


def load(name: str, folder: Path, *, device: str, dtype: str) -> Model:
    """A policy model of the base model in `folder`.

    Args:
        name: a key of BACKENDS, or `module:factory`; the factory is called as factory(folder, device=, dtype=)
        folder: the base model in Hugging Face form
        device: torch device
        dtype: type of the weights, `float32` or `bfloat16`

    Raises:
        UserError: for an unknown back end, and for what the back end refuses.
    """
    module, _, factory = BACKENDS.get(name, name).partition(":")
    try:
        found = getattr(importlib.import_module(module), factory)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"no back end {name!r}: {error}", where="--backend", remedy=f"{', '.join(BACKENDS)}, or module:factory"
        ) from None
    return cast(Model, found(folder, device=device, dtype=dtype))
