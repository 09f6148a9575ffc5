"""The questions that a curation leaves out before anything is spent on them: benchmarks', repeated ones, giveaways."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

from gog import dataset, dataset_zip, images
from gog.dataset import Question, likeness
from gog.errors import UserError
from gog.spec import StoreSpec


def known(benchmarks: Sequence[Path]) -> likeness.Index | None:
    """The questions of the datasets in `against`; None without any.

    Args:
        benchmarks: folders of datasets whose questions must not occur.

    Raises:
        UserError: a line or an image of them cannot be read.
    """
    found = likeness.Index(whole=True)
    for benchmark in benchmarks:
        for split in dataset.splits(benchmark):
            for question in dataset.read_questions(benchmark, split):
                found.add(_known(benchmark, question))
    return found if benchmarks else None


def screen(
    folder: Path, questions: Sequence[Question], rules: Sequence[str], theirs: likeness.Index | None
) -> Iterator[tuple[Question, str, str]]:
    """The questions to leave out.

    Args:
        folder: of the dataset.
        questions: of it, in the order in which the first of two like ones is kept.
        rules: names of `curation.POOL_RULES` that are checked.
        theirs: the questions that must not occur.

    Yields:
        Question, rule and reason.
    """
    own = likeness.Index(whole=False) if "repeated" in rules else None
    for question in questions:
        if "giveaway" in rules and (answer := likeness.leaked_answer(question)):
            yield question, "giveaway", f"the question contains its answer {answer!r}"
            continue
        try:
            rule, reason = _likeness(_known(folder, question), theirs, own)
        except UserError:  # an image that cannot be read: its question is skipped by name when it is played
            continue
        if rule:
            yield question, rule, reason


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
