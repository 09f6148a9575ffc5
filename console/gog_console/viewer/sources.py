"""What can be looked at: a run folder, a store, a single archive.

A place tells which archives there are now, under what name, and in what state its run is; it is asked again and again,
because a run goes on. Nothing is written to a place, so a store is read without the probe that writers make: a
viewer's credentials may be read-only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from pydantic import ValidationError

from gog import store
from gog.errors import UserError
from gog.spec import StoreSpec
from gog.store.address import bucket_and_prefix
from gog.store.s3 import S3Backend
from gog_console.report import objects
from gog_console.report.model import kind_of

NAME = "trajectories.zip"
TOLERATED = (UserError, OSError, ValueError, KeyError, TypeError, AttributeError)
"""What a torn or foreign store can raise while it is listed."""


@dataclass(frozen=True)
class Found:
    """An archive. identity changes with its content; open() brings it onto this machine, verified, or raises UserError."""

    key: str
    step: int
    identity: str
    open: Callable[[], Path]

    @property
    def ref(self) -> str:
        return f"{self.key}/{self.step}"


@dataclass(frozen=True)
class Listing:
    """What a place holds at the moment. problems: what could not be read, in a sentence each by where it is."""

    archives: tuple[Found, ...]
    problems: tuple[tuple[str, str], ...] = ()
    state: str = ""
    progress: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """Something to look at. address: tells places apart; near: whether asking costs nothing."""

    name: str
    address: str
    list: Callable[[], Listing]
    near: bool = True


def resolve(target: str, runs: Path, options: StoreSpec | None = None) -> Source:
    """A run's name, a path or an address -> Source. Raises UserError with what was looked for.

    options: of an S3 store (endpoint and so on); its own address is not looked at.
    """
    if target.startswith(("s3://", "file://")):
        return of_store(opened(_spec(target, options)), target)
    for folder in (Path(target), runs / target):
        if (folder / "objects").is_dir():
            return of_run(folder)
        if (folder / "manifests").is_dir():
            return of_store(store.Store(folder), folder.name)
    if Path(target).is_file():
        return of_file(Path(target))
    known = ", ".join(sorted(each.parent.name for each in runs.glob("*/objects"))) or "none"
    raise UserError(
        f"nothing to look at: no run, store or archive {target!r}", where=str(runs), remedy=f"runs there: {known}"
    )


def opened(spec: StoreSpec) -> store.Store:
    """A store to read from; unlike a writer's it is not probed."""
    if spec.uri.startswith("file://"):
        address = urlparse(spec.uri)
        return store.Store(Path(unquote(address.netloc + address.path)).absolute())
    return store.Store(S3Backend(spec, *bucket_and_prefix(spec.uri), store.Patience()))


def of_run(folder: Path) -> Source:
    """A run folder: its own store or the one that its manifest names."""
    found, _ = objects.read(folder / "objects")
    kept = _store_of(folder, found)
    return Source(folder.resolve().name, kept.where, lambda: _run_listing(folder, kept), near=_is_near(kept))


def of_store(kept: store.Store, name: str) -> Source:
    return Source(name, kept.where, lambda: _listing(kept), near=_is_near(kept))


def of_file(path: Path) -> Source:
    """A single archive or JSONL file; which stage wrote it is not known."""
    path = path.resolve()

    def listed() -> Listing:
        try:
            stat = path.stat()
        except OSError as error:
            return Listing((), ((str(path), f"cannot be read: {error.strerror}"),))
        identity = hashlib.blake2b(f"{path} {stat.st_size} {stat.st_mtime_ns}".encode(), digest_size=16).hexdigest()
        return Listing((Found(kind_of(path.parent.name) or path.stem, 0, identity, lambda: path),))

    return Source(path.name, str(path), listed)


def _run_listing(folder: Path, kept: store.Store) -> Listing:
    found, problems = objects.read(folder / "objects")
    listing = _listing(kept)
    state, message = objects.condition(objects.root_of(found))
    progress = [
        f"{stage.key} {stage.step} of {stage.total}"
        for stage in objects.stages_of(found)
        if stage.running and stage.total
    ]
    told = f"{state}: {message}" if message and state == "Failed" else state
    said = tuple((problem.where, problem.what) for problem in problems)
    return Listing(listing.archives, (*said, *listing.problems), told, tuple(progress))


def _listing(kept: store.Store) -> Listing:
    """Every checkpoint's archive; a manifest that is torn costs its own."""
    found: list[Found] = []
    problems: list[tuple[str, str]] = []
    try:
        pairs = [(key, step) for key in kept.stages() for step in kept.steps(key)]
    except TOLERATED as error:
        return Listing((), ((kept.where, _words(error)),))
    for key, step in pairs:
        try:
            manifest = kept.manifest(key, step)
            if NAME in manifest.files:
                found.append(Found(key, step, manifest.files[NAME].hash, _opener(kept, manifest)))
        except TOLERATED as error:
            problems.append((f"{key}/{step}", _words(error)))
    return Listing(tuple(found), tuple(problems))


def _opener(kept: store.Store, manifest: store.Manifest) -> Callable[[], Path]:
    return lambda: kept.open(manifest, NAME)


def _store_of(folder: Path, found: Sequence[objects.Object]) -> store.Store:
    spec = objects.table(objects.table(objects.run_of(found).get("spec")).get("store"))
    if (folder / "store").is_dir() or not spec.get("uri"):
        return store.Store((folder / "store").absolute())
    return opened(validated(dict(spec), str(folder)))


def _spec(uri: str, options: StoreSpec | None) -> StoreSpec:
    given = options.model_dump(exclude_unset=True, exclude={"uri"}) if options else {}
    return validated({**given, "uri": uri}, uri)


def validated(fields: dict[str, Any], where: str) -> StoreSpec:
    """A store's spec from fields. Raises UserError that names `where`."""
    try:
        return StoreSpec.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"not a store: {'.'.join(map(str, first['loc']))} {first['msg']}", where=where) from None


def _is_near(kept: store.Store) -> bool:
    return not kept.where.startswith("s3://")


def _words(error: Exception) -> str:
    return (error.what if isinstance(error, UserError) else f"{type(error).__name__}: {error}")[:300]
