"""What a run relies on from outside, looked at before anything of it is written or started.

A dataset with a torn line, a model folder of another architecture, a store that does not exist yet: each would end the
run at some stage, an hour in, with its servers up. Here it costs a second. Stages check for themselves again: they are
also run by hand, and things change.
"""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import urlsplit

from gog import base_model, dataset, store, trajectory_zip
from gog import spec as settings
from gog.errors import UserError
from gog.store import faults
from gog.tracing import otlp
from gog_operator.api.objects import GoGRun, Object, Stage

PATIENCE = 5.0
"""Seconds in which a server of somebody's must answer."""
DATASET = "data"
"""Key of a dataset in a store."""
SHIPPED_MODEL, SHIPPED_DEMONSTRATIONS = "tiny", "sample"


def check(thing: Object, where: str) -> None:
    """Raises UserError for the first thing that is not there or cannot be used."""
    where = f"{where}: spec"
    used = stages(thing)
    if (data := getattr(thing.spec, "data", None)) is not None:
        check_data(data, splits(used), f"{where}.data", getattr(thing.spec, "store", None))
    model = getattr(thing.spec, "model", None)
    if isinstance(model, settings.ModelSpec):  # an endpoint's model is a name
        check_model(model, f"{where}.model.base")
    for sft in used.values():
        if isinstance(sft, settings.SFTSettings):
            check_demonstrations(sft.demonstrations, f"{where}.stages.sft" if isinstance(thing, GoGRun) else where)
    if isinstance(thing, GoGRun):
        for name, field in settings.EndpointsSpec.model_fields.items():
            given = getattr(thing.spec.endpoints, name)
            if given is not None and given.url is not None:
                check_answers(given.url, f"{where}.endpoints.{field.alias}.url")
    if getattr(thing.spec, "traces", None) is not None:
        otlp.require(f"{where}.traces")
    if (kept := getattr(thing.spec, "store", None)) is not None:
        reachable(kept)


def reachable(kept: settings.StoreSpec) -> store.Store:
    """The store, which must answer now: at the start somebody is still looking. Raises UserError."""
    try:
        return store.open_store(kept, patience=faults.Patience(budget=PATIENCE))
    except store.Unavailable as error:
        raise UserError(str(error)) from None


def stages(thing: Object) -> dict[str, settings.Spec]:
    """Settings of the stages that the object means to run, by kind."""
    if isinstance(thing, Stage):
        return {thing.stage: thing.spec}
    if isinstance(thing, GoGRun):
        wanted = thing.spec.stages
        return {kind: getattr(wanted, kind) for kind in settings.STAGES if kind not in wanted.skip}
    return {}


def splits(used: dict[str, settings.Spec]) -> tuple[str, ...]:
    """The splits of the dataset that these stages read."""
    train = ("train",) if used.keys() & {"curate", "stratify", "grpo"} else ()
    return (*train, *(each.split for each in used.values() if isinstance(each, settings.EvaluateSettings)))


def check_data(
    data: settings.DataSpec, wanted: tuple[str, ...], where: str, kept: settings.StoreSpec | None = None
) -> None:
    """kept: the run's store, whose options hold for a dataset in a store, too."""
    if data.uri is not None and data.uri.startswith("s3://"):
        options = (kept or settings.StoreSpec(uri=data.uri)).model_copy(update={"uri": data.uri})
        if reachable(options).latest(DATASET) is None:
            raise UserError(
                "holds no dataset", where=f"{where}.uri: {data.uri}", remedy=f"`gog move push FOLDER {data.uri}`"
            )
        return
    given = data.path or (data.uri or "").removeprefix("file://")
    if not given:
        return
    if not Path(given).is_dir():
        field = "path" if data.path else "uri"
        raise UserError(f"no folder {given}", where=f"{where}.{field}", remedy="the path is relative to here")
    dataset.check(Path(given), wanted)


def check_model(model: settings.ModelSpec, where: str) -> None:
    if model.base == SHIPPED_MODEL:
        return
    if model.base.startswith("s3://"):  # fetched and checked by the stage: it may be tens of gigabytes
        return
    base_model.check(Path(model.base), where=where)


def check_answers(url: str, where: str) -> None:
    """Whether somebody listens at an address; what is said there is the tool's own business."""
    try:
        address = urlsplit(url)
        port = address.port or (443 if address.scheme == "https" else 80)
        socket.create_connection((address.hostname or "", port), timeout=PATIENCE).close()
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or error
        raise UserError(f"nothing answers at {url}: {cause}", where=where, remedy="is the server up?") from None


def check_demonstrations(given: str | None, where: str) -> None:
    if given is None or given == SHIPPED_DEMONSTRATIONS:
        return
    if not Path(given).is_file():
        raise UserError(f"no file {given}", where=f"{where}.demonstrations", remedy="the path is relative to here")
    trajectory_zip.Archive(Path(given)).trajectories()
