"""Opens a recording by what `tools.cache.path` names: an SQLite file, or a prefix of a store."""

from __future__ import annotations

import os
from collections.abc import Mapping

from gog import mounts
from gog.calls.recording import Recording
from gog.calls.store_recording import StoreRecording
from gog.errors import UserError
from gog.spec import StoreSpec, recording_paths
from gog.store import Patience

AnyRecording = Recording | StoreRecording


def open_recording(
    path: str,
    store: StoreSpec | None = None,
    *,
    must_exist: bool = False,
    where: str = recording_paths.FIELD,
    patience: Patience | None = None,
    environment: Mapping[str, str] = os.environ,
) -> AnyRecording:
    """A recording, which is made if there is none.

    Args:
        path: path of an SQLite file, `pvc://claim/file`, or `s3://` or `file://` of a store's prefix.
        store: whose options hold for a prefix of the same scheme; None for those of the environment.
        must_exist: only read it, and refuse one that does not exist.
        where: what named the path, for messages.
        patience: how long requests to a bucket are retried. Default: two minutes.
        environment: with the folders of mounted volumes.

    Raises:
        UserError: the path names no recording, or the recording cannot be used.
        Unavailable: the store does not answer.
    """
    if fault := recording_paths.fault(path):
        raise UserError(fault, where=f"{where}: {path}", remedy=recording_paths.REMEDY)
    if recording_paths.is_prefix(path):
        return StoreRecording(_options(path, store), must_exist=must_exist, patience=patience)
    file = mounts.file(path, environment)
    if file.is_dir():
        raise UserError("is a folder", where=f"{where}: {path}", remedy=recording_paths.REMEDY)
    return Recording(file, must_exist=must_exist)


def _options(path: str, store: StoreSpec | None) -> StoreSpec:
    """The store at a prefix. A server's options are those of the run's store where both are buckets."""
    if store is None or path.partition("://")[0] != store.uri.partition("://")[0]:
        return StoreSpec(uri=path)
    return store.model_copy(update={"uri": path})
