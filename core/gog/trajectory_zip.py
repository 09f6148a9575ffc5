"""Trajectories with their images in one file, as checkpoints carry them.

An uncompressed zip: `trajectories.jsonl`, one line each, and `images/<content hash>.png` beside it. One file instead
of thousands keeps a checkpoint a handful of blobs; unzipped, it is the folder that any other tool would want.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import ValidationError

from gog.errors import UserError
from gog.images import Image, decode
from gog.trajectory import Trajectory, explain

LINES = "trajectories.jsonl"


def write(path: Path, trajectories: Iterable[Trajectory], images: Mapping[str, Image]) -> int:
    """Writes trajectories and those of `images` that they show; all or nothing. Returns how many trajectories."""
    items = list(trajectories)
    temporary = path.with_suffix(path.suffix + ".tmp")
    wanted = sorted({image for item in items for image in shown(item)})
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(LINES, "".join(item.model_dump_json(exclude_defaults=True) + "\n" for item in items))
        for image in wanted:
            if image in images:
                archive.writestr(f"images/{image}.png", images[image].png)
    temporary.replace(path)
    return len(items)


def shown(trajectory: Trajectory) -> set[str]:
    """Hashes of every image a trajectory shows."""
    crops = {c.crop for turn in trajectory.turns if turn.observation for c in turn.observation.candidates if c.crop}
    return {trajectory.image, *trajectory.images(), *crops}


class Archive:
    """Reads such a file. Raises UserError for one that is torn, incomplete or of another version."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise UserError(f"not a trajectory archive: {error}", where=str(path)) from None

    def trajectories(self) -> list[Trajectory]:
        try:
            lines = self._zip.read(LINES).splitlines()  # of bytes: text has line ends that JSON lines do not have
        except (KeyError, zipfile.BadZipFile) as error:
            raise UserError(f"not a trajectory archive: {error}", where=str(self.path)) from None
        found = []
        for number, line in enumerate(lines, 1):
            try:
                found.append(Trajectory.model_validate_json(line))
            except ValidationError as error:
                raise UserError(explain(error), where=f"{self.path}:{number}") from None
        return found

    def png(self, image: str) -> bytes | None:
        """PNG bytes of an image, None when the archive lacks it."""
        try:
            return self._zip.read(f"images/{image}.png")
        except KeyError:
            return None
        except zipfile.BadZipFile as error:
            raise UserError(f"image {image} is torn: {error}", where=str(self.path)) from None

    def image(self, image: str) -> Image:
        data = self.png(image)
        if data is None:
            raise UserError(f"image {image} is missing", where=str(self.path), remedy="make the archive again")
        return decode(data, where=f"{self.path}:{image}")
