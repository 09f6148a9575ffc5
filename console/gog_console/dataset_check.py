"""`gog validate DATASET`: every line, image and box of a dataset, and what makes it unfit to learn from or to compare by.

Errors are rows that no run can use, and questions of a benchmark (`--against`) among the others. Notes are what a run
would take without a word: answers within questions, questions that occur twice, and questions of `train` that are like
those of another split. Only a run knows which splits it evaluates, so there those that are the same are errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gog import dataset, images, wording
from gog.dataset import checks, formats, likeness, overlap
from gog.errors import UserError

SHOWN = 10
"""Notes of one sort that are printed."""


def check(path: Path, against: Sequence[Path]) -> None:
    """Checks all splits of a dataset and prints what it has.

    Args:
        path: a folder, or a file of any format.
        against: benchmarks whose questions it must not have.

    Raises:
        UserError: rows that a run cannot use, or questions of a benchmark.
    """
    name = formats.recognise(path)
    splits = dataset.splits(path, name)
    dataset.check(path, splits, format=name)
    rows = {split: list(_rows(path, name, split)) for split in splits}
    if against:
        _refuse_contaminated(path, rows, against)
    for split, found in rows.items():
        print(f"{path}: {split}: {wording.plural(len(found), 'question')}, format {name}")
    for split, found in rows.items():
        leaks = [(each.known.id, repr(each.leak)) for each in found if each.leak]
        _note(split, leaks, "question {} gives its answer away: {}")
        _note(split, list(_repeated(found)), "question {} repeats question {}")
    if overlap.TRAIN in splits:
        for sentence in overlap.sentences(overlap.find(path, splits, format=name, most=None)):
            print(f"note: {sentence}")


@dataclass(frozen=True)
class _Checked:
    """A question of the dataset."""

    known: likeness.Known
    """As it is compared."""
    leak: str
    """The answer that it gives away; empty if it gives none away."""


def _rows(path: Path, name: str, split: str) -> Iterator[_Checked]:
    for row in formats.read(formats.load(name), path, split):
        if isinstance(row, formats.Row):
            yield _Checked(likeness.Known.of(row.question, _look(row.image)), likeness.leaked_answer(row.question))


def _look(image: Path | bytes) -> Callable[[], likeness.Signature]:
    """How the signature of an image is made. That of an embedded one is made at once, because its bytes are not kept."""
    if isinstance(image, Path):
        return lambda: likeness.signature(images.read(image))
    made = likeness.signature(images.decode(image))
    return lambda: made


def _repeated(found: Sequence[_Checked]) -> Iterator[tuple[str, str]]:
    """Questions that are like an earlier one, and that one's id."""
    index = likeness.Index(whole=False)
    for each in found:
        _, other = index.like(each.known)
        if other:
            yield each.known.id, other
        index.add(each.known)


def _refuse_contaminated(path: Path, rows: Mapping[str, Sequence[_Checked]], against: Sequence[Path]) -> None:
    """Raises UserError where the dataset has questions of a benchmark, naming the first."""
    errors = []
    for benchmark in against:
        index = likeness.Index(whole=True)
        name = formats.recognise(benchmark)
        for split in dataset.splits(benchmark, name):
            for each in _rows(benchmark, name, split):
                index.add(each.known)
        for split, found in rows.items():
            for each in found:
                reason, other = index.like(each.known)
                if reason:
                    remedy = "remove it, or do not evaluate on that benchmark"
                    what = f"question {each.known.id!r} is {other!r} of {benchmark}: {reason}"
                    errors.append(UserError(what, where=f"{path}: {split}", remedy=remedy).sentence())
    if errors:
        more = [f"{len(errors):,} questions in all"] if len(errors) > checks.MOST else []
        raise UserError("\n".join([*errors[: checks.MOST], *more]))


def _note(split: str, found: Sequence[tuple[str, str]], sentence: str) -> None:
    for pair in found[:SHOWN]:
        print(f"note: {split}: {sentence.format(*pair)}")
    if len(found) > SHOWN:
        print(f"note: {split}: {len(found) - SHOWN:,} more such questions")
