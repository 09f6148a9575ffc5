"""Trajectories with their images in one file, as checkpoints carry them.

An uncompressed zip of `trajectories.jsonl`, one line each, and `images/<content hash>.png`. One file instead of thousands
keeps a checkpoint at a handful of blobs; unpacked, it is a folder that other tools can read.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import ValidationError

from gog import finite_json
from gog.errors import UserError
from gog.images import Image, decode
from gog.trajectory import Trajectory, explain

LINES = "trajectories.jsonl"
"""Name of the member that holds the trajectories."""
UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)
"""What zipfile raises at a damaged member, and RuntimeError at an encrypted one or one compressed in a way that it does not know."""


def write(path: Path, trajectories: Iterable[Trajectory], images: Mapping[str, Image]) -> int:
    """Writes trajectories with the images that they show; the file appears whole or not at all.

    Args:
        path: the file.
        trajectories: what to write.
        images: by content hash; one that is missing is left out of the file, one that no trajectory shows as well.

    Returns:
        The number of trajectories.
    """
    items = list(trajectories)
    temporary = path.with_suffix(path.suffix + ".tmp")
    wanted = sorted({image for item in items for image in shown(item)})
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        lines = (finite_json.dumps_model(item, exclude_defaults=True) + "\n" for item in items)
        archive.writestr(LINES, "".join(lines))
        for image in wanted:
            if image in images:
                archive.writestr(f"images/{image}.png", images[image].png)
    temporary.replace(path)
    return len(items)


def shown(trajectory: Trajectory) -> set[str]:
    """Content hashes of every image that a trajectory shows."""
    seen = [turn.observation for turn in trajectory.turns if turn.observation]
    crops = {each.crop for observation in seen for each in observation.candidates if each.crop}
    return {trajectory.image, *trajectory.images(), *crops, *(image for each in seen for image in each.images)}


class Archive:
    """Reads such a file. Raises UserError for one that is damaged, incomplete or of another version."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise UserError(f"not a trajectory archive: {error}", where=str(path)) from None

    def trajectories(self) -> list[Trajectory]:
        """All trajectories, in the order in which they were written. Raises UserError with the line that is wrong."""
        try:
            lines = self._zip.read(LINES).splitlines()  # of bytes, because str.splitlines also splits at U+2028
        except (KeyError, *UNREADABLE) as error:
            raise UserError(f"not a trajectory archive: {error}", where=str(self.path)) from None
        found = []
        for number, line in enumerate(lines, 1):
            try:
                found.append(Trajectory.model_validate_json(line))
            except ValidationError as error:
                raise UserError(explain(error), where=f"{self.path}:{number}") from None
        return found

    def png(self, image: str) -> bytes | None:
        """The PNG bytes of an image by its content hash; None if the archive lacks it."""
        try:
            return self._zip.read(f"images/{image}.png")
        except KeyError:
            return None
        except UNREADABLE as error:
            raise UserError(f"image {image} is damaged: {error}", where=str(self.path)) from None

    def image(self, image: str) -> Image:
        """An image by its content hash. Raises UserError if the archive lacks it."""
        data = self.png(image)
        if data is None:
            raise UserError(f"image {image} is missing", where=str(self.path), remedy="write the archive again")
        return decode(data, where=f"{self.path}:{image}")
