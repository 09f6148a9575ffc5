"""`gog validate FILE`: checks a manifest without touching anything, and prints what a run of it would do; or a dataset.

A manifest may be valid on one machine only, because a pod has none of the machine's folders. Without `--cluster` that is
a note; with it, an error. A base model, a dataset and demonstrations of this machine are checked as `gog run` checks them,
and so are losses and the options of back ends.
What is not installed or not here is never an error, because the manifest may be for elsewhere. A base model that is fetched,
and a dataset at hf://, are checked with `--remote` only, because everything else needs no network.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from gog import hub
from gog import spec as settings
from gog.errors import UserError
from gog.tracing import otlp
from gog_console import backend_options, loss_names
from gog_operator.api import manifest, problems, sequence
from gog_operator.api.objects import GoGRun, Object

DATASETS = (".parquet", ".pq", ".arrow", ".jsonl", ".ndjson")
"""Endings of files that are datasets; .json may be a manifest."""


def main(given: argparse.Namespace) -> int:
    path = Path(given.file)
    if path.is_dir() or _is_dataset(path):
        from gog_console import dataset_check  # with numpy, which a manifest of the embedded world does not need

        dataset_check.check(path, [Path(each) for each in given.against])
        return 0
    if given.against:
        raise UserError("is for a dataset", where="--against", remedy="name the folder of a dataset as FILE")
    thing = manifest.load(Path(given.file), given.set)
    refused = manifest.cluster_problems(thing)
    if refused and given.cluster:
        raise problems.joined([(each.where, each.what, each.remedy) for each in refused], where=given.file)
    loss_names.check(thing, given.file)
    missing = backend_options.check(thing, given.file) + check_inputs(thing, f"{given.file}: spec", remote=given.remote)
    missing += loss_names.notes(thing)
    print(f"{given.file}: {thing.kind} {thing.name} is valid")
    if isinstance(thing, GoGRun):
        print(f"stages: {' → '.join(step.key for step in sequence.steps(thing))}")
    for each in refused:
        print(f"note: kubectl apply would refuse it. {each.sentence()}")
    for sentence in missing:
        print(f"note: {sentence}")
    note_memory(thing, given.file)
    if getattr(thing.spec, "traces", None) is not None:
        note_missing_package()
    return 0


def _is_dataset(path: Path) -> bool:
    """Whether a file is a dataset, by its ending, or as Parquet by its first bytes."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return path.suffix in DATASETS or stream.read(4) == b"PAR1"


def note_memory(thing: Object, file: str) -> None:
    """Prints a note where the GPUs of a manifest do not suffice, or nothing is known about that.

    An estimate takes too long for a check, so the last one of the same configuration is used.
    """
    from gog_console import sizing  # with the control plane's templates of jobs

    if not sizing.names_gpus(thing):
        return
    found = sizing.known(sizing.request(sizing.plan(thing, gpus=None, default_gpus=1, gpu_bytes=0)))
    if found is None:
        print(f"note: whether it fits into the memory of its GPUs is not known yet; gog estimate {file} estimates it")
    elif not found["fits"]:
        print(f"note: on GPUs of {found['gpu_bytes'] / 1e9:g} GB it {found['verdict']}")


def check_inputs(thing: Object, where: str, *, remote: bool) -> list[str]:
    """Checks base model, dataset and demonstrations, as far as they are on this machine.

    Args:
        thing: the object
        where: its spec, for messages
        remote: whether to list the files of a base model, and of a dataset at hf://, that are elsewhere

    Returns:
        A sentence for each input that was not checked, and for what its user should know.

    Raises:
        UserError: one of them cannot be used.
    """
    model, data = getattr(thing.spec, "model", None), getattr(thing.spec, "data", None)
    uri = getattr(data, "uri", None) or ""
    elsewhere = getattr(data, "path", None) is None and not uri.startswith(("file://", hub.PREFIX))
    if getattr(model, "base", "tiny") == "tiny" and elsewhere and not _names_demonstrations(thing):
        return []
    from gog import base_source, mounts  # with numpy, which a manifest of the embedded world does not need
    from gog_operator import preflight

    notes, limits = [], None
    if isinstance(model, settings.ModelSpec) and model.base != preflight.SHIPPED_MODEL:
        folder = base_source.local(model.base)
        if folder.is_dir() if folder is not None else remote and not model.base.startswith(mounts.PREFIXES):
            preflight.check_model(model, f"{where}.model.base", getattr(thing.spec, "store", None))
            limits = preflight.limits_of(model)
        elif model.base.startswith(mounts.PREFIXES):
            notes.append(
                f"spec.model.base: {model.base} is checked by the stage that reads it, because only a pod has it"
            )
        elif folder is not None:
            notes.append(f"spec.model.base: there is no folder {folder} here, so the model is not checked")
        else:
            notes.append(f"spec.model.base: {model.base} is checked with --remote, and by the stage that fetches it")
    stages = preflight.stages(thing)
    if isinstance(data, settings.DataSpec) and (pool := preflight.local_data(data)) is not None:
        if pool.exists():
            notes += preflight.check_data(data, stages, f"{where}.data", limits=limits)
        else:
            field = "path" if data.path else "uri"
            notes.append(f"spec.data.{field}: there is no {pool} here, so the dataset is not checked")
    elif isinstance(data, settings.DataSpec) and uri.startswith(hub.PREFIX):
        if remote:
            preflight.check_data(data, stages, f"{where}.data")
        else:
            notes.append(f"spec.data.uri: {uri} is checked with --remote, and by the stage that fetches it")
    sft = stages.get("sft")
    if isinstance(sft, settings.SFTSettings) and sft.demonstrations not in (None, preflight.SHIPPED_DEMONSTRATIONS):
        if Path(sft.demonstrations).exists():
            preflight.check_demonstrations(sft.demonstrations, f"{where}.stages.sft")
        else:
            notes.append(
                f"spec.stages.sft.demonstrations: there is no {sft.demonstrations} here, so they are not checked"
            )
    return notes


def _names_demonstrations(thing: Object) -> bool:
    """Whether it names a file of demonstrations, or perhaps the shipped ones."""
    parts = (thing.spec, getattr(getattr(thing.spec, "stages", None), "sft", None))
    return any(getattr(part, "demonstrations", None) is not None for part in parts)


def note_missing_package() -> None:
    """Prints a note where traces need a package that is not installed."""
    try:
        otlp.require("spec.traces")
    except UserError as error:
        print(f"note: {error.sentence()}")
