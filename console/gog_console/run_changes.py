"""Changes to a run folder that is not driven at the moment: adopting a manifest, reopening an ended run.

The caller holds the run's lock.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gog import store
from gog.errors import UserError
from gog_console import run_files
from gog_operator import hints
from gog_operator.api import objects
from gog_operator.api.lifecycle import Lifecycle
from gog_operator.api.meta import CANCEL
from gog_operator.api.objects import KINDS, STAGE_KINDS, GoGRun, Object, Stage, ToolServer
from gog_operator.cluster.files import ObjectFiles

LIFECYCLE = tuple(field.alias or name for name, field in Lifecycle.model_fields.items())
"""Fields of a spec that may change between two starts of a run."""


def adopt(files: ObjectFiles, thing: Object, folder: Path) -> Object:
    """The folder's object for a manifest: a new one, or the existing one with the same settings.

    Args:
        files: objects of the run folder.
        thing: the manifest.
        folder: the run folder, for the message.

    Raises:
        UserError: the folder holds a run with other settings.
    """
    root = run_files.root_of(files)
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
            remedy=f"`{hints.call('resume', folder)}` resumes that one; for a new run change metadata.name or --dir",
        )
    wanted = objects.document(thing)["spec"]
    if objects.document(root)["spec"] != wanted:
        files.change(root.kind, root.name, lambda document: document.update(spec=wanted))
    return files.get(type(root), root.name) or root


def differences(there: Object, wanted: Object) -> list[str]:
    """Dotted paths in which the settings of two objects differ, at most five; `LIFECYCLE` fields are not compared."""
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
    """Removes what ended or paused a run: failures, a cancellation, a suspension. Returns whether there was any."""
    things = [each for kind in KINDS.values() for each in files.list(kind)]
    closed = [each for each in things if each.holds("Failed") or each.cancelled or _suspended(each)]
    for each in closed:
        files.change(each.kind, each.name, _open_again)
    if closed:
        forget_servers(files)
    return bool(closed)


def renew_patience(files: ObjectFiles) -> None:
    """Forgets how long a run has waited for tools that were down: a person who starts it again may have repaired them."""
    for run in files.list(GoGRun):
        if not run.finished and run.status.tool_check.number:
            files.change(run.kind, run.name, lambda document: document["status"].pop("toolCheck"))


def repeat_lost(files: ObjectFiles) -> list[str]:
    """Reopens complete stages whose checkpoint is no longer in the store, for example because a corrupt one was deleted.

    Unfinished stages that the run owns are deleted; the run creates them again when their inputs exist.

    Returns:
        Store keys of the reopened stages.
    """
    stages = [each for kind in STAGE_KINDS.values() for each in files.list(kind) if isinstance(each, Stage)]
    lost = [each for each in stages if each.holds("Complete") and not _is_kept(each)]
    for each in lost:
        files.change(each.kind, each.name, _reset_completion)
    for each in stages if lost else ():
        if not each.finished and each.metadata.owner_references:
            files.delete(each.kind, each.name)
    return [each.store_key for each in lost]


def _is_kept(stage: Stage) -> bool:
    _, _, step = stage.status.checkpoint.rpartition("/")
    return int(step) in store.open_store(stage.spec.store).steps(stage.store_key)


def _reset_completion(document: dict[str, Any]) -> None:
    status = document["status"]
    status["conditions"] = [each for each in status["conditions"] if each["type"] != "Complete"]
    for key in ("completionTime", "checkpoint", "failures"):
        status.pop(key, None)


def forget_servers(files: ObjectFiles) -> None:
    """Deletes the ToolServers that a run owns; it creates new ones when it needs them."""
    for tool_server in files.list(ToolServer):
        if tool_server.metadata.owner_references:
            files.delete(tool_server.kind, tool_server.name)


def _suspended(thing: Object) -> bool:
    return bool(getattr(thing.spec, "suspend", False))


def _open_again(document: dict[str, Any]) -> None:
    document["metadata"].get("annotations", {}).pop(CANCEL, None)
    if document["spec"].get("suspend"):
        document["spec"]["suspend"] = False
    status = document.setdefault("status", {})
    status["conditions"] = [
        each for each in status.get("conditions", []) if each["type"] not in ("Failed", "ToolsChecked")
    ]
    for key in ("completionTime", "retryTime", "failures", "toolCheck"):
        status.pop(key, None)
