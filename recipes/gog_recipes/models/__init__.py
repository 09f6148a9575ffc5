"""Model families: everything that differs between architectures, found by the `model_type` of a base model.

A family is one folder `models/<model_type>/` whose package holds FAMILY, plus its presets in `configs/<family>/`; both
are found by their folders (gog.families). An installed package may bring a family of its own: an entry point
`<model_type> = "module:FAMILY"` in the group `gog.model_families`.

Everything else (adapters, batches, log-probabilities, the cache of image features) is written once, against `Family`.
"""

from __future__ import annotations

import importlib
from typing import cast

from gog import base_model, families
from gog.errors import UserError
from gog_recipes.models.family import Family


def family(model_type: str) -> Family:
    """The family of a base model.

    Args:
        model_type: as in the base model's config.json

    Raises:
        UserError: for a model_type that neither gog nor an installed package supports.
    """
    if model_type in families.MODEL_TYPES:
        return cast(Family, importlib.import_module(f"{__name__}.{model_type}").FAMILY)
    for entry in base_model.entry_points():
        if entry.name == model_type:
            return cast(Family, entry.load())
    raise UserError(
        f"model type {model_type!r} is not supported",
        where="model.base",
        remedy=f"use a model of type {', '.join(base_model.model_types())}",
    )
