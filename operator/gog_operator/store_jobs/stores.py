"""Opens the stores of a store job: the run's own, and one to promote to, which may have other credentials.

Credentials come from the environment. Those of the second store have the same names with a prefix, so that a pod can
have two Secrets. They replace the first ones while the second store is opened, because boto3 reads and keeps them then.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path

from gog import api_keys, store
from gog.spec import StoreSpec
from gog.store import writers

PREFIX = "GOG_TARGET_"
"""Prefix of the second store's credentials in the environment."""
AUTHORITY, SYSTEM = "AWS_CA_BUNDLE", "SSL_CERT_FILE"
"""Variables with the file of the authorities that the store trusts, and of those that everything else trusts."""


def open_own(spec: StoreSpec, environment: MutableMapping[str, str]) -> store.Store:
    """The run's store, with the entry of its writer. Raises UserError, store.Unavailable."""
    return _registered(store.open_store(trusting(spec, environment)), environment)


def open_target(spec: StoreSpec, environment: MutableMapping[str, str]) -> store.Store:
    """The store to promote to, with the entry of its writer. Raises UserError, store.Unavailable."""
    with _target_credentials(environment):
        return _registered(store.open_store(trusting(spec, environment)), environment)


def open_to_erase(spec: StoreSpec, environment: MutableMapping[str, str]) -> store.Store:
    """The run's store, without a new entry. Raises UserError, store.Unavailable."""
    return store.open_store(trusting(spec, environment))


def _registered(opened: store.Store, environment: Mapping[str, str]) -> store.Store:
    writers.register(opened, environment)
    return opened


def trusting(spec: StoreSpec, environment: MutableMapping[str, str]) -> StoreSpec:
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
    if not Path(own.get(AUTHORITY, "")).is_file():  # the Secret has no ca.crt
        own.pop(AUTHORITY, None)
        own |= {AUTHORITY: environment[SYSTEM]} if environment.get(SYSTEM) else {}
    before = {
        name: value for name, value in environment.items() if name.startswith("AWS_") or name == api_keys.STORE_KEYS
    }
    for name in before:
        del environment[name]
    environment.update(own)
    try:
        yield
    finally:
        for name in own:
            environment.pop(name, None)
        environment.update(before)
