"""Targets of the viewer: a run folder, a store, a single archive, or trajectories that another project wrote.

A source lists its archives and the state of its run; it is listed repeatedly, because a run may be in progress. Nothing
is written to a source, so a store is opened without the writers' probe: a viewer's credentials may be read-only.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from pydantic import ValidationError

from gog import store, validation
from gog.errors import UserError
from gog.spec import StoreSpec
from gog.store.address import bucket_and_prefix
from gog.store.s3 import S3Backend
from gog_console import resources
from gog_console.report import stages
from gog_console.report.model import kind_of
from gog_console.viewer import dumps
from gog_console.viewer.foreign import archive
from gog_console.viewer.lines import Archive
from gog_operator.api.objects import Object

NAME = "trajectories.zip"
TOLERATED = (UserError, OSError, ValueError, KeyError, TypeError, AttributeError)
"""Exceptions that a damaged or foreign store can cause while it is listed."""


@dataclass(frozen=True)
class Found:
    """An archive of trajectories."""

    key: str
    """Store key of the stage."""
    step: int
    """Step of the checkpoint."""
    identity: str
    """Changes with the content."""
    open: Callable[[], Path]
    """Fetches and verifies the archive; returns its local path. Raises UserError."""
    read: Callable[[Path], Archive] = Archive
    """Opens what `open` returned. Raises UserError."""

    @property
    def ref(self) -> str:
        """The checkpoint: `grpo/120`."""
        return f"{self.key}/{self.step}"


@dataclass(frozen=True)
class Listing:
    """Content of a source at one moment."""

    archives: tuple[Found, ...]
    """Its archives."""
    problems: tuple[tuple[str, str], ...] = ()
    """What could not be read: (where, reason)."""
    state: str = ""
    """State of the run; empty for a store."""
    progress: tuple[str, ...] = ()
    """Progress of the active stages: `grpo 42 of 60`."""


@dataclass(frozen=True)
class Source:
    """A target of the viewer."""

    name: str
    """Title."""
    address: str
    """Identifies the source, and with it its index."""
    list: Callable[[], Listing]
    """Lists the content now."""
    near: bool = True
    """Whether listing is cheap, as on a local disk."""


def resolve(target: str, runs: Path, options: StoreSpec | None = None, images: Path | None = None) -> Source:
    """Finds the source that a command-line argument names.

    Args:
        target: name of a run, path, or URI.
        runs: folder of run folders.
        options: options of an S3 store; its own URI is ignored.
        images: folder of images that other projects' trajectories name.

    Raises:
        UserError: nothing was found; names the known runs.
    """
    if target.startswith(("s3://", "file://")):
        return of_store(opened(_spec(target, options)), target)
    for folder in (Path(target), runs / target):
        if (folder / "objects").is_dir():
            return of_run(folder)
        if (folder / "manifests").is_dir():
            return of_store(store.Store(folder), folder.name)
    if name := dumps.recognise(Path(target)):
        return of_dump(Path(target), name, images)
    if Path(target).is_file():
        return of_file(Path(target))
    known = ", ".join(sorted(each.parent.name for each in runs.glob("*/objects"))) or "none"
    raise UserError(
        f"no run, store or archive {target!r}, nor anything that {', '.join(dumps.names())} wrote",
        where=str(runs),
        remedy=f"runs there: {known}",
    )


def opened(spec: StoreSpec) -> store.Store:
    """A store opened for reading, without the writers' probe."""
    if spec.uri.startswith("file://"):
        address = urlparse(spec.uri)
        return store.Store(Path(unquote(address.netloc + address.path)).absolute())
    return store.Store(S3Backend(spec, *bucket_and_prefix(spec.uri), store.Patience()))


def of_run(folder: Path) -> Source:
    """Source of a run folder: its own store, or the one that its manifest names."""
    found, _ = resources.read(folder / "objects")
    kept = _store_of(folder, found)
    return Source(folder.resolve().name, kept.where, lambda: _run_listing(folder, kept), near=_is_near(kept))


def of_store(kept: store.Store, name: str) -> Source:
    """Source of a store."""
    return Source(name, kept.where, lambda: _listing(kept), near=_is_near(kept))


def of_file(path: Path) -> Source:
    """Source of a single archive or JSONL file, whose stage is unknown."""
    path = path.resolve()

    def listed() -> Listing:
        try:
            identity = _identity(str(path), path)
        except OSError as error:
            return Listing((), ((str(path), f"cannot be read: {error.strerror}"),))
        return Listing((Found(kind_of(path.parent.name) or path.stem, 0, identity, lambda: path),))

    return Source(path.name, str(path), listed)


def of_dump(path: Path, name: str, images: Path | None = None) -> Source:
    """Source of what another project wrote: a file, or a folder of them.

    Args:
        path: the file or folder.
        name: of the reader in `gog_console.viewer.dumps`.
        images: folder of the images that rows name, besides the dump's own.
    """
    path, reader, scratch = path.resolve(), dumps.load(name), tempfile.TemporaryDirectory(prefix="gog-view-")

    def found(file: Path) -> Found:
        identity = _identity(f"{name} {dumps.VERSION} {file}", file)
        folders = [each for each in (file.parent, images, path if path.is_dir() else None, file.parent.parent) if each]
        return Found(
            file.parent.name or file.stem,
            reader.step(file),
            identity,
            lambda: archive.as_lines(file, Path(scratch.name), identity),
            lambda lines: archive.Rows(lines, reader, file, folders),
        )

    def listed() -> Listing:
        try:
            return Listing(tuple(map(found, dumps.files(reader, path))))
        except OSError as error:
            return Listing((), ((str(path), f"cannot be read: {error.strerror}"),))

    return Source(path.name, f"{name} {path}", listed)


def _identity(name: str, file: Path) -> str:
    """Changes when the file does. Raises OSError."""
    stat = file.stat()
    return hashlib.blake2b(f"{name} {stat.st_size} {stat.st_mtime_ns}".encode(), digest_size=16).hexdigest()


def _run_listing(folder: Path, kept: store.Store) -> Listing:
    found, problems = resources.read(folder / "objects")
    listing = _listing(kept)
    state, message = stages.condition(resources.root_of(found))
    progress = [
        f"{stage.key} {stage.step} of {stage.total}"
        for stage in map(stages.row, resources.stages_of(found))
        if stage.running and stage.total
    ]
    shown = f"{state}: {message}" if message and state == "Failed" else state
    unreadable = tuple((problem.where, problem.what) for problem in problems)
    return Listing(listing.archives, (*unreadable, *listing.problems), shown, tuple(progress))


def _listing(kept: store.Store) -> Listing:
    """Archives of all checkpoints; a damaged manifest is a problem of its own checkpoint only."""
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


def _store_of(folder: Path, found: Sequence[Object]) -> store.Store:
    run = resources.run_of(found)
    if (folder / "store").is_dir() or run is None or run.spec.store is None:
        return store.Store((folder / "store").absolute())
    return opened(run.spec.store)


def _spec(uri: str, options: StoreSpec | None) -> StoreSpec:
    given = options.model_dump(exclude_unset=True, exclude={"uri"}) if options else {}
    return validated({**given, "uri": uri}, uri)


def validated(fields: dict[str, Any], where: str) -> StoreSpec:
    """A store's spec from fields. Raises UserError, located at `where`."""
    try:
        return StoreSpec.model_validate(fields)
    except ValidationError as error:
        raise UserError(f"not a store: {validation.first_sentence(error)}", where=where) from None


def _is_near(kept: store.Store) -> bool:
    return not kept.where.startswith("s3://")


def _words(error: Exception) -> str:
    return (error.what if isinstance(error, UserError) else f"{type(error).__name__}: {error}")[:300]
