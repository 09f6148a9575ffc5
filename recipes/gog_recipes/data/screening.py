"""The questions that a curation leaves out before anything is spent on them: benchmarks', repeated ones, giveaways."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

from gog import dataset, dataset_zip, images
from gog.dataset import Question, likeness
from gog.errors import UserError
from gog.spec import StoreSpec


def screen(
    folder: Path, questions: Sequence[Question], rules: Sequence[str], benchmarks: Sequence[Path]
) -> Iterator[tuple[str, str, str]]:
    """The questions to leave out.

    Args:
        folder: of the dataset.
        questions: of it, in the order in which the first of two like ones is kept.
        rules: names of `curation.POOL_RULES` that are checked.
        benchmarks: folders of datasets whose questions must not occur.

    Yields:
        Question id, rule and reason.

    Raises:
        UserError: an image of a benchmark cannot be read.
    """
    theirs = likeness.Index(whole=True)
    for benchmark in benchmarks:
        for split in dataset.splits(benchmark):
            for question in dataset.read_questions(benchmark, split):
                theirs.add(_known(benchmark, question))
    own = likeness.Index(whole=False)
    for question in questions:
        if "giveaway" in rules and (answer := likeness.leaked_answer(question)):
            yield question.id, "giveaway", f"the question contains its answer {answer!r}"
            continue
        try:
            known = _known(folder, question)
            rule, reason = _likeness(known, theirs if benchmarks else None, own if "repeated" in rules else None)
        except UserError:  # an image that cannot be read: its question is skipped by name when it is played
            continue
        if rule:
            yield question.id, rule, reason


def _likeness(known: likeness.Known, theirs: likeness.Index | None, own: likeness.Index | None) -> tuple[str, str]:
    """Rule and reason for which a question is left out as like another one; it is added to `own` otherwise."""
    if theirs is not None:
        reason, other = theirs.like(known)
        if reason:
            return "benchmark", f"is {other} of a benchmark: {reason}"
    if own is not None:
        reason, other = own.like(known)
        if reason:
            return "repeated", f"repeats {other}: {reason}"
        own.add(known)
    return "", ""


def _known(folder: Path, question: Question) -> likeness.Known:
    return likeness.Known.of(question, functools.partial(_signature, folder / question.image))


def _signature(path: Path) -> likeness.Signature:
    return likeness.signature(images.read(path))


def benchmark_folder(given: str, options: StoreSpec, target: Path) -> Path:
    """The folder of a dataset in `against`, fetched or converted if need be.

    Args:
        given: a folder or file of this machine, or an s3:// address.
        options: of the run's store, which hold for an address.
        target: where it is put.

    Raises:
        UserError: there is no such dataset, or it cannot be read.
    """
    if "://" in given:
        return dataset_zip.fetch_dataset(given, options, target)
    if not Path(given).exists():
        raise UserError(
            f"no file or folder {given}", where="against", remedy="a path is relative to the working folder"
        )
    return dataset.as_folder(Path(given), None, target)
