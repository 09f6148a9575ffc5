"""Objects as YAML files, with the two guarantees of the Kubernetes API that the control plane relies on.

Writes are atomic: a temporary file is written and renamed. Stale writes are refused: each write carries the resource
version that it is based on. Check and write happen under one lock, because `gog cancel` in another terminal writes too.
A list reads the whole folder, so this is not meant for thousands of objects.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import yaml

from gog import locks
from gog.errors import UserError, unwritable
from gog_operator.api import objects
from gog_operator.api.objects import Object, Status
from gog_operator.cluster.interface import AlreadyExists, Conflict, Thing

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class ObjectFiles:
    """A folder of `<kind>.<name>.yaml`."""

    def __init__(self, folder: Path, parse: Callable[[Any], Object] = objects.parse) -> None:
        """
        Args:
            folder: The folder; it need not exist.
            parse: Makes an object of a document; raises ValueError, KeyError or TypeError. Only a reader that never
                writes may ignore parts of a document.
        """
        self.folder, self._parse = folder, parse
        self._read: dict[Path, tuple[tuple[int, int, int], Object]] = {}

    def get(self, kind: type[Thing], name: str) -> Thing | None:
        return cast(Thing | None, self._load(self._path(kind.__name__, name)))

    def list(self, kind: type[Thing]) -> tuple[Thing, ...]:
        found = (self._load(path) for path in sorted(self.folder.glob(f"{kind.__name__.lower()}.*.yaml")))
        return tuple(cast(Thing, each) for each in found if each is not None)

    def create(self, thing: Object, now: datetime | None = None) -> None:
        """Writes a new object with a uid. Raises AlreadyExists."""
        path = self._path(thing.kind, thing.name)
        with self._lock():
            if path.exists():
                raise AlreadyExists(f"{thing.kind} {thing.name}")
            fresh = {"uid": str(uuid.uuid4()), "creation_timestamp": now or datetime.now(UTC).replace(microsecond=0)}
            metadata = thing.metadata.model_copy(update=fresh)
            self._write(path, thing.model_copy(update={"metadata": metadata}), version=1)

    def patch_status(self, thing: Object, status: Status) -> None:
        """Replaces the status. Raises Conflict when the object has changed since it was read."""
        path = self._path(thing.kind, thing.name)
        with self._lock():
            current = self._load(path)
            if current is None or current.metadata.resource_version != thing.metadata.resource_version:
                raise Conflict(f"{thing.kind} {thing.name}")
            self._write(path, current.model_copy(update={"status": status}))

    def change(self, kind: str, name: str, edit: Callable[[dict[str, Any]], None]) -> bool:
        """Edits an object's document. A changed spec increments the generation.

        Args:
            kind: Kind of the object.
            name: Name of the object.
            edit: Modifies the document in place.

        Returns:
            False if the object does not exist.
        """
        path = self._path(kind, name)
        with self._lock():
            current = self._load(path)
            if current is None:
                return False
            document = objects.document(current)
            before = yaml.dump(document["spec"])
            edit(document)
            if yaml.dump(document["spec"]) != before:
                document["metadata"]["generation"] = current.metadata.generation + 1
            self._write(path, objects.parse(document))
        return True

    def patch(self, kind: str, name: str, *, spec: Mapping[str, Any], annotations: Mapping[str, str]) -> None:
        def edit(document: dict[str, Any]) -> None:
            document["spec"].update(spec)
            document["metadata"].setdefault("annotations", {}).update(annotations)

        self.change(kind, name, edit)

    def delete(self, kind: str, name: str) -> None:
        with self._lock():
            self._path(kind, name).unlink(missing_ok=True)

    def _path(self, kind: str, name: str) -> Path:
        return self.folder / f"{kind.lower()}.{name}.yaml"

    def _load(self, path: Path) -> Object | None:
        try:
            with path.open("rb") as stream:
                stat = os.fstat(stream.fileno())
                stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
                cached = self._read.get(path)
                if cached is not None and cached[0] == stamp:
                    return cached[1]
                thing = self._parse(yaml.load(stream, LOADER))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, RecursionError, yaml.YAMLError) as error:
            raise UserError(
                f"is not an object of gog: {str(error).splitlines()[0]}",
                where=str(path),
                remedy="it was changed by hand or by another version; remove the run folder to start afresh",
            ) from None
        self._read[path] = (stamp, thing)
        return thing

    def _write(self, path: Path, thing: Object, version: int | None = None) -> None:
        number = version or int(thing.metadata.resource_version or 0) + 1
        metadata = thing.metadata.model_copy(update={"resource_version": str(number)})
        document = objects.document(thing.model_copy(update={"metadata": metadata}))
        write_atomically(path, yaml.dump(document, Dumper=DUMPER, sort_keys=False, allow_unicode=True, width=120))

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        with as_user_error(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        with locks.held(handle):
            yield


def write_atomically(path: Path, text: str) -> None:
    """Replaces a file; readers see either the old or the new content. Raises UserError if it cannot be written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with as_user_error(path.parent):
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def as_user_error(where: Path) -> Iterator[None]:
    """Turns an OSError raised while writing into a UserError with a remedy. where: the folder that is written to."""
    try:
        yield
    except OSError as error:
        raise unwritable(error, where, remedy="choose another folder with --dir") from None
