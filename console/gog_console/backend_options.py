"""The options of a manifest's back ends: checked by the signatures of their factories, in the tool servers' package.

A server would refuse them too, but minutes later, and on a cluster in a pod. The package is found by its name, because the
console imports no tool server. Back ends that need torch, and those from outside gog, are asked in a process of their own,
because the console runs as long as the run does. One that is not installed here is not checked: the manifest may be for
elsewhere.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gog import catalog, wording
from gog.errors import UserError
from gog.spec import EndpointSpec
from gog_operator.api import problems
from gog_operator.api.objects import GoGRun, Object, ToolServer

PACKAGE, BACKENDS = "gog_tools", "gog_tools.serving.backends"
PATIENCE = 120.0
"""Seconds in which a back end must be imported."""


def check(thing: Object, where: str) -> list[str]:
    """Checks name and options of every back end that a manifest chooses.

    Args:
        thing: the object.
        where: its manifest, for messages.

    Returns:
        A sentence for each back end that was not checked.

    Raises:
        UserError: a back end that does not exist, and options that it does not take.
    """
    found, notes = [], []
    for path, role, given in _chosen(thing):
        _check_name(role, given.backend, f"{where}: {path}.backend")
        known = _described(role, given.backend, given.options)
        if known["missing"]:
            notes.append(f"{path}: {known['missing']}, so its options are not checked here")
        found += [(f"{path}.options.{name}".rstrip("."), what, remedy) for name, what, remedy in known["problems"]]
    if found:
        raise problems.joined(found, where=where)
    return notes


def absolute(role: str, endpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Options of an endpoint with the absolute paths of the files and folders that they name.

    Args:
        role: the endpoint's role.
        endpoint: its part of a manifest.
    """
    options = dict(endpoint.get("options") or {})
    if not options or endpoint.get("runtime") == "vllm":
        return options
    names = _described(role, endpoint.get("backend", "world"), options)["local"]
    for name in names:
        given = options.get(name)
        if isinstance(given, str) and "://" not in given and Path(given).exists():
            options[name] = str(Path(given).absolute())
    return options


def _chosen(thing: Object) -> Iterator[tuple[str, str, EndpointSpec]]:
    """Path, role and settings of each server that gog would start with another back end than the world's, or options."""
    if isinstance(thing, ToolServer):
        given = [("spec", thing.spec.role, thing.spec)]
    elif isinstance(thing, GoGRun):
        own = thing.spec.endpoints
        roles = {server.name: getattr(own, server.field) for server in catalog.SERVERS}
        given = [(f"spec.endpoints.{role}", role, each) for role, each in roles.items() if each is not None]
    else:
        return
    for path, role, each in given:
        is_ours = each.url is None and getattr(each, "runtime", "gog") == "gog"
        if is_ours and (each.backend != "world" or each.options):
            yield path, role, each


def _check_name(role: str, name: str, where: str) -> None:
    known = catalog.SERVER_BY_NAME[role].backends
    if name not in known and ":" not in name:
        remedy = f"{wording.guess(name, list(known))}; or module:factory".removeprefix("; ")
        raise UserError(f"no back end {name!r}", where=where, remedy=remedy)


def _described(role: str, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What the tool servers' package says of a back end and its options (`backends.describe`)."""
    if importlib.util.find_spec(PACKAGE) is None:
        return {"missing": f"{PACKAGE} is not installed here", "problems": [], "local": []}
    server = catalog.SERVER_BY_NAME[role]
    if name in server.backends and name not in server.torch_backends and role != "policy":
        return dict(importlib.import_module(BACKENDS).describe(server.command, name, options))
    return _asked(json.dumps([server.command, name, options]))


@functools.cache
def _asked(arguments: str) -> dict[str, Any]:
    """The answer of a process of its own. arguments: of `backends.describe`, as JSON."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", BACKENDS], input=arguments, capture_output=True, text=True, timeout=PATIENCE
        )
        return dict(json.loads(done.stdout.splitlines()[-1]))
    except (subprocess.TimeoutExpired, IndexError, ValueError):  # one from outside may print, or end the process
        return {"missing": f"back end {json.loads(arguments)[1]!r} cannot be read", "problems": [], "local": []}
