"""The reader of a format whose rows are records of tables: a format adds its fields only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gog import validation
from gog.dataset.foreign import embedded, files, tables, values
from gog.dataset.formats import LeftOut, Row
from gog.dataset.records import Evidence, Question
from gog.errors import UnreadableFile, UserError


@dataclass(frozen=True)
class Source:
    """The row of a file, for the questions that are made of it."""

    file: Path
    """The file."""
    split: str
    """Its split."""
    number: int
    """Of the row; counts from 1."""
    where: str
    """File and row, for messages."""
    places: embedded.Places
    """Where images are that the row names."""

    def row(
        self,
        *,
        id: Any,
        question: str,
        answers: tuple[str, ...],
        image: tuple[str, Any] | Path,
        kind: Any = None,
        **marks: Any,
    ) -> Row:
        """A row in gog's form.

        Args:
            id: its identifier; one of file and row is made where it has none.
            question: what is asked; placeholders of images are removed.
            answers: as `values.answers` gives them.
            image: field and value of the image, or its file.
            kind: the type of the question.
            marks: what else is kept beside it; missing values are left out.

        Raises:
            Fault: the image cannot be used, or the question is blank.
            ValidationError: a value that no question may have.
        """
        found = image if isinstance(image, Path) else embedded.image(image[1], image[0], self.places)
        name = str(found) if isinstance(found, Path) else f"row {self.number}"
        kept = {key: value for key, value in marks.items() if not values.is_missing(value)}
        evidence = Evidence(kind="" if values.is_missing(kind) else str(kind), **kept)
        made = Question(
            id=f"{self.file.stem}-{self.number}"[-200:] if values.is_missing(id) else str(id),
            image=name,
            question=values.question(question),
            answers=answers,
            evidence=evidence,
        )
        return Row(self.where, made, found)


class TableReader:
    """Reads tables of one format. Implements gog.dataset.formats.Reader but for what a format has of its own.

    Args:
        images: folder of the images that rows name; they are also looked up beside the file and at the dataset's root.
    """

    def __init__(self, images: Path | None = None) -> None:
        self.images = images

    def has(self, record: Mapping[str, Any]) -> bool:
        """Whether a record is of this format, by the names of its fields."""
        raise NotImplementedError

    def is_beside(self, record: Mapping[str, Any]) -> bool:
        """Whether a file that begins with this record belongs to the dataset and holds no rows of it."""
        return False

    def questions(self, record: Mapping[str, Any], source: Source) -> Iterator[Row | LeftOut | UserError]:
        """What a record holds. May raise Fault or ValidationError for all that it has not given yet."""
        raise NotImplementedError

    def split_of(self, file: Path) -> str:
        """The split of a file."""
        return files.split_of(file)

    def detect(self, path: Path) -> bool:
        """Whether any file at the path begins with a record of this format."""
        return any(self._is_ours(file) for file in files.of(path))

    def _is_ours(self, file: Path) -> bool:
        return tables.is_table(file) and self.has(tables.first(file))

    def _may_ignore(self, file: Path) -> bool:
        return self.is_beside(tables.first(file))

    def _files(self, path: Path) -> dict[str, list[Path]]:
        return files.by_split(path, self.split_of, self._is_ours, self._may_ignore)

    def splits(self, path: Path) -> tuple[str, ...]:
        """The splits of the files at the path, sorted."""
        return tuple(sorted(self._files(path)))

    def rows(self, path: Path, split: str) -> Iterator[Row | LeftOut | UserError]:
        """Every row of a split, file by file; an error for a shard that is absent from a folder."""
        own = self._files(path).get(split, [])
        if path.is_dir():
            yield from map(_absent, files.absent(own))
        for file in own:
            if path.is_dir() and not self._is_ours(file):
                yield tables.unreadable(file) or _of_another_shape(file)
                continue
            places = self.places(path, file)
            for found in tables.read(file):
                if isinstance(found, UserError):
                    yield found
                    continue
                source = Source(file, split, found.number, found.where, places)
                yield from self._of_record(found.fields, source)

    def places(self, path: Path, file: Path) -> embedded.Places:
        """Where the images of a file are."""
        root = path if path.is_dir() else path.parent
        own = [self.images] if self.images is not None else []
        return embedded.Places(list(dict.fromkeys([*own, file.parent, root])), by_user=self.images is not None)

    def _of_record(self, record: Mapping[str, Any], source: Source) -> Iterator[Row | LeftOut | UserError]:
        try:
            yield from self.questions(record, source)
        except values.Fault as fault:
            yield fault.at(source.where)
        except ValidationError as error:
            field, cause = validation.first_problem(error)
            yield UserError(f"{field or 'row'}: {cause}", where=source.where, remedy="correct or remove the row")


def _absent(shard: Path) -> UserError:
    return UserError("is missing, and other shards of it are there", where=str(shard), remedy="fetch it")


def _of_another_shape(file: Path) -> UnreadableFile:
    names = ", ".join(map(repr, tables.first(file)))
    what = f"its first row has other fields than the format: {names}" if names else "holds no rows"
    return UnreadableFile(
        what, where=str(file), remedy="fetch it again, move it elsewhere, or name the splits to import: --split NAME"
    )
