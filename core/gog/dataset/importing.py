"""Imports a dataset of another project into a new folder in gog's own form, row by row.

`convert` serves a run that names such a dataset and refuses it at its first faulty row. An import is for files of 100,000
rows and gigabytes: it commits as it goes, so that one that was killed continues at the last commit, it looks at every
row, and it names every row that it could not take.

    DST.partial/        what is there so far
      import.json       the last commit: rows read of each split, and bytes of each file
      faults.jsonl      rows that cannot be taken: {"where", "what", "remedy"}
      missing.txt       images that rows name and that are not there, one path or URL a line
    DST/                appears whole when all is read

Images are copied under the hash of their content. Their headers are read; `gog validate` decodes them. A dataset that was
fetched for the import has its address, with the commit, and the hashes of its files in `gog-source.json`.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gog import finite_json, folders, image_limits, images, mounts, wording
from gog.dataset import convert, formats
from gog.dataset.foreign import embedded, tables
from gog.dataset.formats import LeftOut, Row
from gog.errors import UnreadableFile, UserError, unwritable

STATE, FAULTS, MISSING = "import.json", "faults.jsonl", "missing.txt"
"""Files of an import that is under way."""
COMMIT = 512
"""Rows between two commits: what a kill can cost."""
SHOWN = 20
"""Faults that a message shows."""


@dataclass(frozen=True)
class Request:
    """What to import, and how."""

    kind: str
    """Name of the format, or `module:factory`."""
    source: Path
    """The file or folder."""
    target: Path
    """The new folder."""
    images: Path | None = None
    """Folder of the images that rows name."""
    splits: Mapping[str, str] = field(default_factory=dict)
    """Which splits to import, and the name of each in the new folder. Default: all, as they are called."""
    only: Mapping[str, str] = field(default_factory=dict)
    """Values that marks of a row must have, as {"language": "EN"}."""
    leave_out: bool = False
    """Whether rows that cannot be taken are left out instead of refused. A file that cannot be read is always refused."""
    origin: str = ""
    """Address that the source was fetched from, with its commit; empty for one of this machine."""
    sha256: Mapping[str, str] = field(default_factory=dict)
    """Hash of each file that was fetched from there."""


@dataclass
class Progress:
    """How far an import is."""

    done: dict[str, int] = field(default_factory=dict)
    """Rows read of each split, those left out included."""
    bytes: dict[str, int] = field(default_factory=dict)
    """Length of each file that is appended to, at the last commit."""
    taken: dict[str, int] = field(default_factory=dict)
    """Rows written of each split."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Rows left out by a rule, by its words."""
    faults: int = 0
    """Rows that cannot be taken."""
    unreadable: list[str] = field(default_factory=list)
    """Files that cannot be read to their end, or hold nothing of a split: why, a sentence each."""
    missing: int = 0
    """Those of them whose image is missing."""
    ended: bool = False
    """Whether all rows were read."""

    @property
    def rows(self) -> int:
        """Rows read so far."""
        return sum(self.done.values()) - len(self.unreadable)


def run(request: Request, report: Callable[[Progress], None] = lambda progress: None) -> Progress:
    """Imports a dataset, or continues an import of the same files that was interrupted.

    Args:
        request: what to import.
        report: called at every commit.

    Returns:
        What was imported and left out.

    Raises:
        UserError: the target exists, the source cannot be read, holds no rows or faulty ones, or the disk is full.
    """
    reader = formats.load(request.kind, request.images)
    require_new(request.target)
    splits = _splits(reader, request)
    partial = request.target.with_name(f"{request.target.name}.partial")
    with folders.locked(partial):
        try:
            work = _Work(partial, _fingerprint(request))
            for split, name in splits.items():
                work.add(split, name, formats.read(reader, request.source, split, work.leave_out), request, report)
            return _finished(work, request)
        except OSError as error:
            raise unwritable(error, partial) from error


def require_new(target: Path) -> None:
    """Raises UserError where the folder of an import exists already."""
    if target.exists():
        raise UserError("exists already", where=str(target), remedy="name a new folder")


def _splits(reader: formats.Reader, request: Request) -> dict[str, str]:
    found = reader.splits(request.source)
    if not found:
        raise formats.unreadable(request.source) or UserError(
            f"no rows of the format {request.kind}", where=str(request.source), remedy="is it the right file or folder?"
        )
    unknown = next((name for name in request.splits if name not in found), None)
    if unknown is not None:
        raise UserError(f"no split {unknown!r}", where=str(request.source), remedy=f"one of {', '.join(found)}")
    if len(set(request.splits.values())) < len(request.splits):
        raise UserError("two splits have one name in the new folder", where="--split", remedy="import one of them")
    return dict(request.splits) or {name: name for name in found}


def _fingerprint(request: Request) -> dict[str, Any]:
    """What decides the result of an import: a continued one must have the same."""
    root = request.source
    files = [root] if root.is_file() else sorted(each for each in root.rglob("*") if _is_table(each))
    sizes = {str(each): [each.stat().st_size, each.stat().st_mtime_ns] for each in files}
    made = {"kind": request.kind, "files": sizes, "splits": dict(request.splits), "only": dict(request.only)}
    return made | ({"origin": request.origin} if request.origin else {})


def _is_table(path: Path) -> bool:
    return path.suffix in tables.SUFFIXES and path.is_file()


class _Work:
    """The folder of an import that is under way."""

    def __init__(self, folder: Path, fingerprint: dict[str, Any]) -> None:
        self.folder, self.fingerprint = folder, fingerprint
        self.progress = self._resumed()
        (folder / convert.IMAGES).mkdir(parents=True, exist_ok=True)
        for name in (FAULTS, MISSING):
            self._cut(name)
        self._replaying = False

    def _resumed(self) -> Progress:
        """The last commit, if it is of the same files and was not the last one: its faults may be corrected by now."""
        try:
            state = json.loads((self.folder / STATE).read_text())
        except (FileNotFoundError, ValueError):
            return Progress()
        if state.pop("of") != json.loads(json.dumps(self.fingerprint)) or state["ended"]:
            return Progress()
        return Progress(**{**state, "left_out": Counter(state["left_out"])})

    def _cut(self, name: str) -> None:
        """Cuts a file to its length at the last commit, which drops what a killed import wrote after it."""
        with (self.folder / name).open("ab") as stream:
            stream.truncate(self.progress.bytes.get(name, 0))

    def leave_out(self, left: LeftOut) -> None:
        """Counts a row that is left out by a rule of its format."""
        if not self._replaying:
            self.progress.left_out[left.reason] += 1

    def add(
        self,
        split: str,
        name: str,
        rows: Iterator[Row | UserError],
        request: Request,
        report: Callable[[Progress], None],
    ) -> None:
        """Appends the rows of a split that are not there yet."""
        done, file = self.progress.done.setdefault(split, 0), f"{name}.jsonl"
        self._cut(file)
        self._replaying = done > 0
        for _ in itertools.islice(rows, done):  # read again for their ids, not written again
            pass
        self._replaying = False
        lines: list[str] = []
        pending = 0
        for row in rows:
            lines += self._lines(row, request)
            pending += 1
            if pending == COMMIT:
                self._commit(split, name, lines, pending)
                report(self.progress)
                lines, pending = [], 0
        self._commit(split, name, lines, pending)
        report(self.progress)

    def _commit(self, split: str, name: str, lines: list[str], count: int) -> None:
        """Appends lines, made of `count` rows, and records how far the import is once they are on the disk."""
        self._append(f"{name}.jsonl", lines)
        self.progress.done[split] += count
        self.progress.taken[name] = self.progress.taken.get(name, 0) + len(lines)
        self.save()

    def _lines(self, row: Row | UserError, request: Request) -> list[str]:
        """The line of a row; none if it is left out."""
        try:
            if isinstance(row, UserError):
                raise row
            marks = {"kind": row.question.evidence.kind, **(row.question.evidence.model_extra or {})}
            if differs := next((key for key, value in request.only.items() if str(marks.get(key)) != value), ""):
                self.progress.left_out[f"{differs} is not {request.only[differs]}"] += 1
                return []
            data = convert.encoded(row)
            _check_image(data, row)
        except UserError as error:
            self._fault(error)
            return []
        question = row.question.model_copy(update={"image": convert.add(self.folder, data)})
        return [finite_json.dumps(question.model_dump(exclude_defaults=True), ensure_ascii=False)]

    def _fault(self, error: UserError) -> None:
        if isinstance(error, UnreadableFile):
            self.progress.unreadable.append(error.sentence())
            return
        self.progress.faults += 1
        self._append(FAULTS, [json.dumps({"where": error.where, "what": error.what, "remedy": error.remedy})])
        if isinstance(error, embedded.Missing):
            self.progress.missing += 1
            self._append(MISSING, [error.name])

    def _append(self, name: str, lines: list[str]) -> None:
        with (self.folder / name).open("ab") as stream:
            stream.write("".join(f"{line}\n" for line in lines).encode())
            self.progress.bytes[name] = stream.tell()

    def save(self) -> None:
        """Records how far the import is, once what it wrote is on the disk."""
        for name in self.progress.bytes:
            with (self.folder / name).open("ab") as stream:
                os.fsync(stream.fileno())
        state = {"of": self.fingerprint, **vars(self.progress)}
        temporary = self.folder / f"{STATE}.tmp"
        temporary.write_text(json.dumps(state))
        temporary.replace(self.folder / STATE)


def _check_image(data: bytes, row: Row) -> None:
    """Raises UserError for an image that is none by its header, or of a size that models refuse."""
    try:
        width, height = images.size(data)
    except UserError as error:
        raise UserError(f"image: {error.what}", where=row.where, remedy=error.remedy) from None
    if fault := image_limits.QWEN_VL.fault(width, height):
        raise UserError(f"image: {fault}", where=row.where, remedy="crop, pad or remove it")


def _finished(work: _Work, request: Request) -> Progress:
    """Makes the folder appear.

    Raises:
        UserError: rows cannot be taken and may not be left out, a file cannot be read, or no row is left.
    """
    progress, folder = work.progress, work.folder
    progress.ended = True
    work.save()
    if progress.unreadable or (progress.faults and not request.leave_out):
        raise UserError(_refusal(progress, folder))
    if not any(progress.taken.values()):
        raise UserError("no rows are left", where=str(request.source), remedy=f"see {folder / FAULTS}")
    for name in (STATE, *(each for each in (FAULTS, MISSING) if not (folder / each).stat().st_size)):
        (folder / name).unlink(missing_ok=True)
    for name, count in progress.taken.items():
        if not count:
            (folder / f"{name}.jsonl").unlink()
    if request.origin:
        mounts.record(folder, request.origin, request.sha256)
    for name in (FAULTS, MISSING):  # beside the dataset, of which `<split>.jsonl` are splits
        if (folder / name).exists():
            shutil.move(folder / name, request.target.with_name(f"{request.target.name}.{name}"))
    folder.rename(request.target)
    return progress


def _refusal(progress: Progress, folder: Path) -> str:
    """The errors, those of whole files first, and how many there are."""
    with (folder / FAULTS).open() as stream:
        shown = [UserError(**json.loads(line)).sentence() for line in itertools.islice(stream, SHOWN)]
    more = [f"{progress.faults - len(shown):,} more are in {folder / FAULTS}"] if progress.faults > len(shown) else []
    missing = [f"the missing images are listed in {folder / MISSING}"] if progress.missing else []
    return "\n".join([*progress.unreadable, *shown, *more, *missing, _counted(progress)])


def _counted(progress: Progress) -> str:
    faulty = f"{progress.faults:,} of {progress.rows:,} rows cannot be taken"
    if progress.unreadable:
        files = (
            f"{wording.plural(len(progress.unreadable), 'file')} cannot be taken, which --leave-out does not leave out"
        )
        return f"{files}; {faulty}" if progress.faults else files
    return f"{faulty}; --leave-out imports the other {sum(progress.taken.values()):,}"
