"""The image processor of a model folder: readable, of a known class, with the patches of the vision tower."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gog.base_model import architectures, json_file
from gog.errors import UserError

FILE, NESTED = "preprocessor_config.json", "processor_config.json"
"""Its own file, and the one in which newer versions of transformers save it under `image_processor`."""
DEFAULTS = {"temporal_patch_size": 2, "merge_size": 2}
VISION_FIELD = {
    "patch_size": "patch_size",
    "temporal_patch_size": "temporal_patch_size",
    "merge_size": "spatial_merge_size",
}


def check(folder: Path, config: Mapping[str, Any], architecture: architectures.Architecture | None, where: str) -> None:
    """Whether a folder's image processor cuts images as its vision tower reads them.

    Args:
        folder: in Hugging Face form
        config: its config.json
        architecture: of the model; None if its image processors are not known
        where: what the folder was named by

    Raises:
        UserError: naming the file and the setting.
    """
    path, settings = read(folder, where)
    if architecture is None:
        return
    kind = settings.get("image_processor_type")
    if kind is not None and kind not in architecture.image_processors:
        raise UserError(
            f"image_processor_type {kind!r} is not one of {config.get('model_type')}",
            where=str(path),
            remedy="fetch the image processor of the base model",
        )
    vision = architectures.vision_of(config)
    defaults = {**DEFAULTS, "patch_size": architecture.patch}
    for field, other in VISION_FIELD.items():
        own = settings.get(field, 14 if field == "patch_size" else defaults[field])
        theirs = vision.get(other, defaults[field])
        if own != theirs:
            raise UserError(
                f"{field} is {own!r}, the vision tower's {other} {theirs!r}",
                where=str(path),
                remedy="fetch configuration and image processor of one version",
            )
    _check_colours(settings, path)


def read(folder: Path, where: str) -> tuple[Path, dict[str, Any]]:
    """The file and its settings. Raises UserError if there is none, or one that cannot be read."""
    nested = json_file.optional(folder / NESTED).get("image_processor")
    if isinstance(nested, dict):
        return folder / NESTED, nested
    if not (folder / FILE).is_file():
        raise UserError(f"no image processor in {folder}", where=where, remedy=f"it needs {FILE} or {NESTED}")
    return folder / FILE, json_file.read(folder / FILE, folder, where)


def _check_colours(settings: Mapping[str, Any], path: Path) -> None:
    for name in ("image_mean", "image_std"):
        given = settings.get(name)
        if given is None:
            continue
        numbers = given if isinstance(given, list) else []
        if len(numbers) != 3 or not all(isinstance(each, int | float) and abs(each) < 256 for each in numbers):
            raise UserError(f"{name} is {given!r}, not three numbers", where=str(path), remedy=json_file.AGAIN)
