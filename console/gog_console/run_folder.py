"""A run folder seen from outside: which object it is about, whether a manifest fits it, how a run is opened again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gog import store
from gog.errors import UserError
from gog_operator import hints
from gog_operator.api import objects
from gog_operator.api.meta import CANCEL
from gog_operator.api.objects import KINDS, STAGE_KINDS, Endpoint, Lifecycle, Object, Stage
from gog_operator.cluster.files import ObjectFiles

LIFECYCLE = tuple(field.alias or name for name, field in Lifecycle.model_fields.items())


def find(folder: Path) -> Object:
    """The object that the folder is about: the one that nobody owns. Raises UserError."""
    root = root_of(ObjectFiles(folder / "objects"))
    if root is None:
        known = ", ".join(each.name for each in all_in(folder.parent)) or "none"
        raise UserError(f"no run {folder.name!r}", where=str(folder.parent), remedy=f"runs there: {known}")
    return root


def root_of(files: ObjectFiles) -> Object | None:
    things = (each for kind in KINDS.values() for each in files.list(kind))
    return next((each for each in things if not each.metadata.owner_references), None)


def all_in(parent: Path) -> list[Path]:
    """Run folders, by name."""
    return sorted(each for each in parent.glob("*") if (each / "objects").is_dir()) if parent.is_dir() else []


def adopt(files: ObjectFiles, thing: Object, folder: Path) -> Object:
    """The folder's object for a manifest: created, or there already with the same settings. Raises UserError."""
    root = root_of(files)
    if root is None:
        files.create(thing)
        created = files.get(type(thing), thing.name)
        assert created is not None
        return created
    differing = differences(root, thing)
    if differing:
        raise UserError(
            f"holds a run with another manifest (different: {', '.join(differing)})",
            where=str(folder),
            remedy=f"`{hints.call('resume', folder)}` goes on with that one; for a new run change metadata.name or --dir",
        )
    wanted = objects.document(thing)["spec"]
    if objects.document(root)["spec"] != wanted:
        files.change(root.kind, root.name, lambda document: document.update(spec=wanted))
    return files.get(type(root), root.name) or root


def differences(there: Object, wanted: Object) -> list[str]:
    """Dotted paths in which two objects' settings differ; what may change during a run is not looked at."""
    if there.key != wanted.key:
        return ["kind" if there.kind != wanted.kind else "metadata.name"]
    old, new = (
        {key: value for key, value in objects.document(each)["spec"].items() if key not in LIFECYCLE}
        for each in (there, wanted)
    )
    return _differing(old, new, "spec")[:5]


def _differing(old: Any, new: Any, path: str) -> list[str]:
    if isinstance(old, dict) or isinstance(new, dict):
        old, new = old or {}, new or {}
    if isinstance(old, dict) and isinstance(new, dict) and (old or new):
        keys = list(dict.fromkeys([*old, *new]))
        return [found for key in keys for found in _differing(old.get(key), new.get(key), f"{path}.{key}")]
    return [] if old == new else [path]


def reopen(files: ObjectFiles) -> bool:
    """Takes back what ended or held a run: a failure, a cancellation, a suspension. Whether there was any of them."""
    things = [each for kind in KINDS.values() for each in files.list(kind)]
    closed = [each for each in things if each.holds("Failed") or each.cancelled or _suspended(each)]
    for each in closed:
        files.change(each.kind, each.name, _open_again)
    if closed:
        forget_servers(files)
    return bool(closed)


def repeat_lost(files: ObjectFiles) -> list[str]:
    """Opens complete stages again whose checkpoint was taken out of the store, as a corrupt one has to be. Their keys.

    Unfinished stages are taken away: they are made anew once what they start from is there again.
    """
    stages = [each for kind in STAGE_KINDS.values() for each in files.list(kind) if isinstance(each, Stage)]
    lost = [each for each in stages if each.holds("Complete") and not _is_kept(each)]
    for each in lost:
        files.change(each.kind, each.name, _do_again)
    for each in stages if lost else ():
        if not each.finished and each.metadata.owner_references:
            files.delete(each.kind, each.name)
    return [each.store_key for each in lost]


def _is_kept(stage: Stage) -> bool:
    _, _, step = stage.status.checkpoint.rpartition("/")
    return int(step) in store.open_store(stage.spec.store).steps(stage.store_key)


def _do_again(document: dict[str, Any]) -> None:
    status = document["status"]
    status["conditions"] = [each for each in status["conditions"] if each["type"] != "Complete"]
    for key in ("completionTime", "checkpoint", "failures"):
        status.pop(key, None)


def forget_servers(files: ObjectFiles) -> None:
    """Takes the endpoints that a run owns away: it makes new ones when it needs them."""
    for endpoint in files.list(Endpoint):
        if endpoint.metadata.owner_references:
            files.delete(endpoint.kind, endpoint.name)


def _suspended(thing: Object) -> bool:
    return bool(getattr(thing.spec, "suspend", False))


def _open_again(document: dict[str, Any]) -> None:
    document["metadata"].get("annotations", {}).pop(CANCEL, None)
    if document["spec"].get("suspend"):
        document["spec"]["suspend"] = False
    status = document.setdefault("status", {})
    status["conditions"] = [each for each in status.get("conditions", []) if each["type"] != "Failed"]
    for key in ("completionTime", "retryTime", "failures"):
        status.pop(key, None)
