"""Opens the stores of a store job: the run's own, and one to promote to, which may have other credentials.

Credentials come from the environment. Those of the second store have the same names with a prefix, so that a pod can
have two Secrets. They replace the first ones while the second store is opened, because boto3 reads and keeps them then.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, MutableMapping
from pathlib import Path

from gog import store
from gog.spec import StoreSpec

PREFIX = "GOG_TARGET_"
"""Prefix of the second store's credentials in the environment."""
AUTHORITY = "AWS_CA_BUNDLE"


def open_own(spec: StoreSpec, environment: MutableMapping[str, str]) -> store.Store:
    """The run's store. Raises UserError, store.Unavailable."""
    return store.open_store(_trusting(spec, environment))


def open_target(spec: StoreSpec, environment: MutableMapping[str, str]) -> store.Store:
    """The store to promote to. Raises UserError, store.Unavailable."""
    with _target_credentials(environment):
        return store.open_store(_trusting(spec, environment))


def _trusting(spec: StoreSpec, environment: MutableMapping[str, str]) -> StoreSpec:
    """The store with the path of its Secret's certificate authority, because the environment changes later."""
    if spec.ca_bundle is not None or not Path(environment.get(AUTHORITY, "")).is_file():
        return spec
    return spec.model_copy(update={"ca_bundle": environment[AUTHORITY]})


@contextlib.contextmanager
def _target_credentials(environment: MutableMapping[str, str]) -> Iterator[None]:
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
