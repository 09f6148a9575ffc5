"""The recipe's final configuration: the preset of the model's family, overridden by the file, then by `key=value`.

Mappings are merged key by key, and everything else is replaced. Mappings that name one location are replaced as a whole,
because parts of two locations do not form a location. Whether a key exists is checked by the recipe's typed
configuration, not here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from gog import spec as settings
from gog.errors import UserError
from gog_operator.api import yaml_reader

WHOLE = ("data", "store", "inputs", "endpoints")
"""Keys whose mappings are replaced as a whole."""


def final(file: Mapping[str, Any], assignments: Sequence[str], presets: Path, stage: str) -> dict[str, Any]:
    """The final configuration.

    Args:
        file: The configuration file's mapping.
        assignments: Overrides: `key=value`, with dotted keys and YAML values.
        presets: Folder with `<family>/<stage>.yaml`.
        stage: curate, sft, stratify, grpo or evaluate.

    Raises:
        UserError: an override is not `key=value`, the model is missing, or its family has no preset.
    """
    given = dict(file)
    for assignment in assignments:
        given = _assigned(given, assignment)
    return merged(preset(given, presets, stage), given)


def preset(given: Mapping[str, Any], presets: Path, stage: str) -> dict[str, Any]:
    """The preset of the model's family for a stage.

    Raises:
        UserError: the model is missing, or its family has no preset.
    """
    model = given.get("model")
    if not isinstance(model, dict) or not model.get("base"):
        raise UserError("missing", where="model.base", remedy="write model: {base: tiny}, a folder, s3:// or hf://")
    family = settings.ModelSpec.model_construct(base=str(model["base"]), family=model.get("family")).preset
    path = presets / family / f"{stage}.yaml"
    if not path.is_file():
        known = sorted(each.parent.name for each in presets.glob(f"*/{stage}.yaml"))
        raise UserError(
            f"no preset for family {family!r}",
            where=str(path),
            remedy=f"known for {stage}: {', '.join(known) or 'none'}",
        )
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`below`, overridden by `above`."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping) and key not in WHOLE:
            value = merged(old, value)
        result[key] = value
    return result


def _assigned(body: dict[str, Any], assignment: str) -> dict[str, Any]:
    path, equals, text = assignment.partition("=")
    if not equals or not path:
        raise UserError(f"{assignment!r} is not key=value", remedy="e.g. learning_rate=1e-4")
    value: Any = yaml_reader.value(text, where=path)
    for part in reversed(path.split(".")):
        value = {part: value}
    return merged(body, value)
