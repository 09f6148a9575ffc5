"""Checks a run's external inputs before anything is written or started.

Otherwise a truncated line in a dataset, a model folder of another architecture or a missing bucket would fail the run
after an hour, with its servers running. Stages repeat the cheap checks, because users also start stages directly.
Of a model or a dataset that is fetched only the names of its files are checked; its content is checked where it is used.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from gog import (
    base_model,
    base_source,
    benchmarks,
    dataset,
    dataset_zip,
    hub,
    image_limits,
    mounts,
    reviews,
    store,
    trajectory_zip,
)
from gog import spec as settings
from gog.dataset import formats, overlap
from gog.errors import ServiceDown, UserError
from gog.store import faults
from gog.tracing import otlp
from gog_operator.api.objects import GoGRun, Object, Stage

PATIENCE = 5.0
"""Seconds that a store or server has to answer."""
GPUS = ("nvidia[0-9]*", "kfd", "dxg", "dri/renderD*", "accel/*")
"""Devices below /dev of machines with a GPU or another accelerator."""
SHIPPED_MODEL, SHIPPED_DEMONSTRATIONS = "tiny", "sample"


def check(thing: Object, where: str) -> list[str]:
    """Checks everything that an object of a manifest refers to.

    Args:
        thing: The object.
        where: Its manifest, with which messages begin.

    Returns:
        A sentence for each thing that a run can use and its user should know.

    Raises:
        UserError: an input is missing or unusable. Names the first one, or several lines of a dataset.
    """
    where = f"{where}: spec"
    used, notes = stages(thing), list[str]()
    if (data := getattr(thing.spec, "data", None)) is not None:
        model = getattr(thing.spec, "model", None)
        limits = limits_of(model) if isinstance(model, settings.ModelSpec) else None
        notes = check_data(data, used, f"{where}.data", getattr(thing.spec, "store", None), limits)
    model = getattr(thing.spec, "model", None)
    if isinstance(model, settings.ModelSpec):  # an endpoint's model is a name
        check_model(model, f"{where}.model.base", getattr(thing.spec, "store", None))
    for kind, stage in used.items():
        place = f"{where}.stages.{kind}" if isinstance(thing, GoGRun) else where
        if isinstance(stage, settings.SFTSettings):
            check_demonstrations(stage.demonstrations, place)
            check_reviews(stage.reviews, place)
        if isinstance(stage, settings.CurateSettings):
            check_against(stage.against, place)
    if isinstance(thing, GoGRun):
        is_replay = thing.spec.tools.cache.is_replay  # which calls the policy's server only
        for name, field in settings.EndpointsSpec.model_fields.items():
            given = getattr(thing.spec.endpoints, name)
            if given is not None and given.url is not None and (name == "policy" or not is_replay):
                for url in given.url.split(",") if name == "policy" else (given.url,):  # replicas
                    check_answers(url.strip(), f"{where}.endpoints.{field.alias}.url")
        check_vllm(thing.spec.endpoints.policy, thing.spec.model, f"{where}.endpoints.policy")
        check_vllm(getattr(thing.spec.endpoints, "judge"), None, f"{where}.endpoints.judge")  # noqa: B009  made from the catalogue
    if getattr(thing.spec, "traces", None) is not None:
        otlp.require(f"{where}.traces")
    if (kept := getattr(thing.spec, "store", None)) is not None:
        reachable(kept)
    return notes


def reachable(kept: settings.StoreSpec) -> store.Store:
    """Opens the store. It must respond within PATIENCE seconds, because a user is waiting.

    Raises:
        UserError: it does not answer, or cannot be used.
    """
    try:
        return store.open_store(kept, patience=faults.Patience(budget=PATIENCE))
    except store.Unavailable as error:
        raise UserError(str(error)) from None


def stages(thing: Object) -> dict[str, settings.Spec]:
    """Settings of the stages that the object will run, by kind."""
    if isinstance(thing, Stage):
        return {thing.stage: thing.spec}
    if isinstance(thing, GoGRun):
        wanted = thing.spec.stages
        return {kind: getattr(wanted, kind) for kind in settings.STAGES if kind not in wanted.skip}
    return {}


def splits(used: dict[str, settings.Spec]) -> tuple[str, ...]:
    """The splits of the dataset that these stages read."""
    train = (overlap.TRAIN,) if _learns(used) else ()
    return (*train, *(each.split for each in compared_on(used)))


def _learns(used: dict[str, settings.Spec]) -> bool:
    """Whether these stages read the questions of `train`."""
    return bool(used.keys() & {"curate", "stratify", "grpo"})


def compared_on(used: dict[str, settings.Spec]) -> tuple[settings.BenchmarkSettings, ...]:
    """The benchmarks that these stages answer."""
    return next((each.compared_on for each in used.values() if isinstance(each, settings.EvaluateSettings)), ())


def local_data(data: settings.DataSpec) -> Path | None:
    """Where a dataset is on this machine; None for one that is elsewhere or is generated."""
    given = data.path or (data.uri if data.uri and data.uri.startswith("file://") else "")
    return Path(given.removeprefix("file://")) if given else None


def check_data(
    data: settings.DataSpec,
    used: dict[str, settings.Spec],
    where: str,
    own: settings.StoreSpec | None = None,
    limits: image_limits.ImageLimits | None = None,
) -> list[str]:
    """Checks that a dataset exists; of one on this machine every line and image, sizes of benchmarks, and that it does not
    train on what it evaluates.

    Args:
        data: Location of the dataset.
        used: Settings of the stages that read it, by kind.
        where: Field of the manifest, for messages.
        own: The run's store, whose options also apply to a dataset in a store.
        limits: Image sizes that the model accepts; None for those of Qwen-VL.

    Returns:
        A sentence for each question that is perhaps an evaluated one, as far as they are shown.

    Raises:
        UserError: there is no dataset, or lines and images that a run cannot use, or questions that are both trained on
            and evaluated; or its server does not answer within PATIENCE seconds.
    """
    if data.uri is not None and (address := hub.parse_dataset(data.uri)) is not None:
        with _answering(f"{where}.uri"):
            hub.listing(address)
        return []
    if data.uri is not None and data.uri.startswith("s3://"):
        options = (own or settings.StoreSpec(uri=data.uri)).model_copy(update={"uri": data.uri})
        if reachable(options).latest(dataset_zip.KEY) is None:
            raise UserError(
                "holds no dataset", where=f"{where}.uri: {data.uri}", remedy=f"`gog move push FOLDER {data.uri}`"
            )
        return []
    if data.uri is not None:
        mounts.folder(data.uri)  # refuses a volume, which only a pod has
    given = local_data(data)
    if given is None:
        return []
    if not given.exists():
        field = "path" if data.path else "uri"
        raise UserError(
            f"no file or folder {given}", where=f"{where}.{field}", remedy="a path is relative to this folder"
        )
    name = data.format or formats.recognise(given)  # once, because it lists every file of the folder
    dataset.check(given, splits(used), format=name, limits=limits or image_limits.QWEN_VL)
    _check_sizes(given, name, compared_on(used), where)
    return _check_overlap(given, name, used, where)


def _check_sizes(path: Path, format: str, wanted: Sequence[settings.BenchmarkSettings], where: str) -> None:
    """Raises UserError where a benchmark has another number of questions than it must have."""
    for each in wanted:
        if each.expected is not None:
            found = sum(1 for _ in formats.read(formats.load(format), path, each.split))
            benchmarks.check(each.called, found, each.expected, where=f"{where}: {each.split}.jsonl")


def _check_overlap(path: Path, format: str, used: dict[str, settings.Spec], where: str) -> list[str]:
    """Sentences about questions of `train` that are like evaluated ones. Raises UserError for those that are the same."""
    evaluated = [each.split for each in compared_on(used)]
    if not _learns(used) or not evaluated:
        return []
    found = overlap.find(path, evaluated, format=format)
    if same := [each for each in found.shared if each.is_same]:
        raise overlap.refusal(same, where)
    notes = [f"{where}: evaluate asks {overlap.TRAIN}, so its figures show what was remembered"]
    return [*(notes if overlap.TRAIN in evaluated else []), *overlap.sentences(found)]


def limits_of(model: settings.ModelSpec) -> image_limits.ImageLimits:
    """Image sizes that a base model accepts; those of Qwen-VL if it is not on this machine."""
    folder = base_source.local(model.base)
    return image_limits.of_model(folder) if folder is not None else image_limits.QWEN_VL


def check_model(model: settings.ModelSpec, where: str, own: settings.StoreSpec | None = None) -> None:
    """Checks a base model: a folder whole, one that is fetched by the names of its files.

    What is inside a model of tens of gigabytes is checked by the stage that fetches it.

    Args:
        model: The model.
        where: Field of the manifest, for messages.
        own: The run's store, whose options also apply to a model in a store.

    Raises:
        UserError: it is missing or incomplete, or its server does not answer within PATIENCE seconds.
    """
    if model.base == SHIPPED_MODEL:
        return
    if (folder := base_source.local(model.base) or mounts.folder(model.base)) is not None:
        base_model.check(folder, where=where)
        return
    with _answering(where):
        if (address := hub.parse(model.base)) is not None:
            base_model.check_listing(hub.listing(address), model.base)
        else:
            options = own or settings.StoreSpec(uri=model.base)
            names = store.list_model(options, model.base, faults.Patience(budget=PATIENCE))
            base_model.check_listing(names, model.base)


@contextlib.contextmanager
def _answering(where: str) -> Iterator[None]:
    """Turns a store or a Hub that does not answer into a UserError, because a user is waiting. where: field."""
    try:
        yield
    except store.Unavailable as error:
        raise UserError(str(error), where=where) from None
    except ServiceDown as error:  # whose sentence is about the attempts of a stage
        raise UserError(
            f"{error.service}: {error.reason}",
            where=where,
            remedy="check the network and HF_ENDPOINT, and try again",
        ) from None


def check_answers(url: str, where: str) -> None:
    """Checks that a server accepts connections at a URL; sends no request. Raises UserError."""
    try:
        address = urlsplit(url)
        port = address.port or (443 if address.scheme == "https" else 80)
        socket.create_connection((address.hostname or "", port), timeout=PATIENCE).close()
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or error
        raise UserError(f"nothing answers at {url}: {cause}", where=where, remedy="is the server up?") from None


def check_vllm(server: settings.ModelServerSpec | None, model: settings.ModelSpec | None, where: str) -> None:
    """Checks that the run can start its vLLM on this machine, and that the vLLM can apply the policy's adapters.

    Args:
        server: The server of the policy or of the judge.
        model: The base model of a policy; None for a judge, which has no adapters.
        where: Field of the manifest, for messages.

    Raises:
        UserError: the program is missing, or the model has experts and the machine no GPU.
    """
    if server is None or server.runtime != "vllm":
        return
    program = (shlex.split(os.environ.get(settings.VLLM_PROGRAM, "")) or ["vllm"])[0]
    if shutil.which(program) is None:
        raise UserError(
            f"no program {program}",
            where=f"{where}.runtime",
            remedy=f"install vLLM in an environment of its own and name it: {settings.VLLM_PROGRAM}=/folder/bin/vllm",
        )
    if (
        model is not None
        and model.has_experts
        and not any(found for pattern in GPUS for found in Path("/dev").glob(pattern))
    ):
        raise UserError(
            "on a CPU, vLLM dies when it applies adapters to experts, and this machine has no GPU",
            where=f"{where}.runtime",
            remedy="sample with engine: transformers, or give the url of a vLLM that runs on GPUs",
        )


def check_demonstrations(given: str | None, where: str) -> None:
    """Checks that a file of demonstrations exists and can be read. Raises UserError."""
    if given is None or given == SHIPPED_DEMONSTRATIONS:
        return
    if not Path(given).is_file():
        raise UserError(f"no file {given}", where=f"{where}.demonstrations", remedy="a path is relative to this folder")
    trajectory_zip.Archive(Path(given)).trajectories()


def check_reviews(given: str | None, where: str) -> None:
    """Checks that a file of review decisions exists and can be read whole. Raises UserError."""
    if given is not None:
        if not Path(given).is_file():
            raise UserError(f"no file {given}", where=f"{where}.reviews", remedy="a path is relative to this folder")
        reviews.read(Path(given))


def check_against(given: Sequence[str], where: str) -> None:
    """Checks that the datasets of this machine that a curation is compared with exist. Raises UserError."""
    for each in given:
        if "://" not in each and not Path(each).exists():
            raise UserError(
                f"no file or folder {each}", where=f"{where}.against", remedy="a path is relative to this folder"
            )
