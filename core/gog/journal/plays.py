"""The journal of a play in a store: its objects, read on resume, and deleted when a checkpoint holds their result."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from gog.images import Image
from gog.journal import records
from gog.journal.chains import Chains, Found
from gog.store import Store
from gog.store.parts import together

ROOT = "journal"
"""Folder of all journals in a store."""
MAX_OBJECT = 1 << 28
"""Bytes of an object at most; a larger one is not one of ours and is never read."""
AT_ONCE = 4
"""Objects that are read together."""
_OBJECT = re.compile(r"(?P<generation>\d{4,9})-(?P<writer>[0-9a-f]{8}-\d{5})-(?P<number>\d{8})")


@dataclass(frozen=True)
class Play:
    """One policy on one step's questions."""

    stage: str
    """Key of the stage."""
    policy: str
    """Name of the policy."""
    step: int
    """Step that is played."""
    digest: str
    """Of everything that decides its trajectories, in hex."""

    @property
    def siblings(self) -> str:
        """Folder of all plays of this policy and step, whatever decided them."""
        return f"{ROOT}/{self.stage}/{self.policy}-{self.step:09d}/"

    @property
    def prefix(self) -> str:
        """Folder of its objects."""
        return f"{self.siblings}{self.digest}/"

    def key(self, generation: int, attempt: str, rank: int, number: int) -> str:
        """Key of an object.

        Args:
            generation: counts the attempts at the play, from 1; a later one is read later.
            attempt: 8 hex digits that keep processes apart that chose the same generation.
            rank: of the writing process.
            number: of its object, from 0.
        """
        return f"{self.prefix}{generation:04d}-{attempt}-{rank:05d}-{number:08d}"


@dataclass
class Reader:
    """Reads the objects of a play."""

    store: Store
    """Where they are."""
    keys: Sequence[str]
    """Their keys, of `listed`."""
    chains: Chains
    """Takes their records."""
    _places: dict[str, str] = field(default_factory=dict)
    """Key of an object that holds an image, by content hash. Images are decoded when they are needed."""

    def read(self) -> None:
        """Reads all records that are intact, attempt after attempt."""
        for writer in self._writers():
            for key, data in self._contents(writer):
                frames, intact = records.frames(data)
                for each in frames:
                    self._take(each, key)
                if not intact:
                    break  # what came after the damage continues records that are lost

    def _writers(self) -> Iterator[list[str]]:
        """The keys of each writer's objects, up to the first that is missing."""
        for _, found in itertools.groupby(sorted(self.keys), lambda key: key.rpartition("-")[0]):
            keys = list(found)
            yield [key for number, key in enumerate(keys) if int(key.rpartition("-")[2]) == number]

    def _contents(self, keys: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        for start in range(0, len(keys), AT_ONCE):
            some = keys[start : start + AT_ONCE]
            yield from zip(some, (data or b"" for data in together(self.store.get_object, some)), strict=True)

    def _take(self, found: records.Frame, key: str) -> None:
        if found.kind != records.RECORD:
            image = records.read_image(found)
            if image is not None:
                self._places.setdefault(image.hash, key)
            return
        try:
            envelope, body = records.read_record(found.payload)
        except ValueError:
            return
        self.chains.add(envelope, found.digest, body)

    def images(self, wanted: Iterable[str]) -> dict[str, Image]:
        """The images with these content hashes, as far as the journal holds them."""
        needed = set(wanted) & self._places.keys()
        found: dict[str, Image] = {}
        for _, data in self._contents(sorted({self._places[each] for each in needed})):
            for each in records.frames(data)[0]:
                image = None if each.kind == records.RECORD else records.read_image(each)
                if image is not None and image.hash in needed:
                    found[image.hash] = image
        return found

    def found(self, question: str, sample: int) -> Found | None:
        """What there is of a trajectory; None if there is nothing."""
        return self.chains.found(question, sample)


def listed(store: Store, play: Play) -> tuple[list[str], int]:
    """The keys of a play's objects, and the last generation that wrote. Deletes journals of the step that differ.

    Those were written with other settings or other weights, and would stay until the next checkpoint.
    """
    ours, others, generation = [], set(), 0
    for entry in store.objects(play.siblings):
        folder, _, name = entry.key.rpartition("/")
        if f"{folder}/" != play.prefix:
            others.add(folder)
            continue
        matched = _OBJECT.fullmatch(name)
        if matched and entry.size <= MAX_OBJECT:
            ours.append(entry.key)
            generation = max(generation, int(matched["generation"]))
    for folder in sorted(others):
        store.delete_objects(f"{folder}/")
    return ours, generation


def prune(store: Store, stage: str, step: int | None = None) -> None:
    """Deletes journals that a checkpoint made superfluous.

    Args:
        store: where they are.
        stage: key of the stage.
        step: the last step whose journals are deleted; None for all of them.
    """
    folders = {entry.key.rpartition("/")[0].rpartition("/")[0] for entry in store.objects(f"{ROOT}/{stage}/")}
    for folder in sorted(folders):
        number = folder.rpartition("-")[2]
        if step is None or not number.isdecimal() or int(number) <= step:
            store.delete_objects(f"{folder}/")


def sweep(store: Store, before: datetime) -> int:
    """Deletes the journals of plays to which nothing was appended since `before`, such as those of a cancelled run.

    What is lost is work that a later attempt repeats, so `before` must lie further back than any pause of a play that
    is under way.

    Returns:
        The number of plays.
    """
    newest: dict[str, datetime] = {}
    for entry in store.objects(f"{ROOT}/"):
        folder = entry.key.rpartition("/")[0]
        newest[folder] = max(newest.get(folder, entry.modified), entry.modified)
    old = sorted(folder for folder, modified in newest.items() if modified < before)
    for folder in old:
        store.delete_objects(f"{folder}/")
    return len(old)
