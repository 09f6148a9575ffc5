"""Opening the stores of a move: the run's own, and one to promote to, perhaps with credentials of its own.

Credentials come from the environment. Those of a second store are there under the same names behind a prefix, which
is how a pod is given two Secrets; they take the place of the first ones while that store is opened, for boto3 looks
them up then and keeps them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, MutableMapping
from pathlib import Path

from gog import store
from gog.spec import StoreSpec

PREFIX = "GOG_TARGET_"
AUTHORITY = "AWS_CA_BUNDLE"


def open_own(spec: StoreSpec, environment: MutableMapping[str, str]) -> store.Store:
    """Raises UserError, store.Unavailable."""
    return store.open_store(_trusting(spec, environment))


def open_target(spec: StoreSpec, environment: MutableMapping[str, str]) -> store.Store:
    """Raises UserError, store.Unavailable."""
    with _own_credentials(environment):
        return store.open_store(_trusting(spec, environment))


def _trusting(spec: StoreSpec, environment: MutableMapping[str, str]) -> StoreSpec:
    """The store with the authority that its Secret holds, named for good: the environment may change."""
    if spec.ca_bundle is not None or not Path(environment.get(AUTHORITY, "")).is_file():
        return spec
    return spec.model_copy(update={"ca_bundle": environment[AUTHORITY]})


@contextlib.contextmanager
def _own_credentials(environment: MutableMapping[str, str]) -> Iterator[None]:
    own = {name.removeprefix(PREFIX): value for name, value in environment.items() if name.startswith(PREFIX)}
    if not own:
        yield
        return
    before = {name: value for name, value in environment.items() if name.startswith("AWS_")}
    for name in before:
        del environment[name]
    environment.update(own)
    try:
        yield
    finally:
        for name in own:
            environment.pop(name, None)
        environment.update(before)
