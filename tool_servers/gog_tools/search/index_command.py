"""`gog index build`: the arguments of a build, checked before anything is fetched or loaded."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from pydantic import ValidationError

from gog import base_source, folders, validation
from gog.errors import ServiceDown, UserError
from gog.spec import StoreSpec
from gog_tools.search import encoder as encoders
from gog_tools.search import index_build, index_metadata, index_store, nearest
from gog_tools.search.index_file import Manifest
from gog_tools.serving import inputs


def main(argv: list[str]) -> int:
    """`gog index build`. Returns the exit code."""
    parser = argparse.ArgumentParser("gog index build", description="Build the embedding index of a folder of images.")
    parser.add_argument(
        "folder", metavar="DIR", help=f"images at any depth, or their s3:// prefix; {index_metadata.FILE} names titles"
    )
    parser.add_argument("--encoder", required=True, metavar="MODEL", help="folder, s3:// or hf://org/name")
    parser.add_argument(
        "--out",
        required=True,
        metavar="FOLDER",
        help="the index, or a store (s3:// or file://) that it is published in; a build that stopped is continued",
    )
    parser.add_argument("--replace", action="store_true", help="replace an index by another encoder")
    parser.add_argument("--device", default="cpu", help="torch device: auto, cpu, cuda, cuda:1 (default: cpu)")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="type of the weights")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="images in a pass (default: 32)")
    parser.add_argument(
        "--exact-limit",
        type=int,
        default=nearest.EXACT_LIMIT,
        metavar="N",
        help=f"images up to which search is exact (default: {nearest.EXACT_LIMIT:,}); more need usearch",
    )
    parser.add_argument("--endpoint-url", metavar="URL", help="URL of an S3 server other than AWS")
    parser.add_argument("--region", metavar="NAME", help="region of the bucket")
    parser.add_argument("--path-style", action="store_true", help="use path-style addressing")
    parser.add_argument("--store", metavar="JSON", help="all options of the S3 server: a manifest's spec.store")
    try:
        given = parser.parse_args(argv)
    except SystemExit as end:  # argparse has printed why
        return int(end.code or 0)
    try:
        manifest = _build(given)
    except UserError as error:
        print(f"gog index build: {error.sentence()}", file=sys.stderr)
        return 2
    except (ServiceDown, ConnectionError) as error:
        print(f"gog index build: {error}", file=sys.stderr)
        return 1
    print(f"{given.out}: {manifest.images:,} images, {manifest.skipped:,} skipped, hash {manifest.hash}")
    print(f"encoder {manifest.encoder.name} (fingerprint {manifest.encoder.fingerprint})")
    return 0


def _build(given: argparse.Namespace) -> Manifest:
    for name in ("batch_size", "exact_limit"):
        if getattr(given, name) < 1:
            raise UserError("must be at least 1", where=f"--{name.replace('_', '-')}")
    options = _options(given)
    remote = given.out if index_store.is_address(given.out) else None
    out = Path(given.out) if remote is None else index_store.place("build", remote)
    folder = _folder(given.folder, options)
    index_build.check(folder, given.exact_limit)
    with folders.locked(out), tempfile.TemporaryDirectory(prefix="gog-index-") as scratch:
        if remote is not None:
            index_store.begin(remote, options, out)
        encoder = encoders.load(
            given.encoder, store=options, scratch=Path(scratch), device=given.device, dtype=given.dtype
        )
        manifest = index_build.build(
            folder,
            out,
            encoder,
            batch=given.batch_size,
            exact_limit=given.exact_limit,
            replace=given.replace,
            report=_report,
        )
        if remote is not None:
            _report(f"published as {index_store.publish(out, manifest, remote, options)}")
    return manifest


def _report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _folder(name: str, options: StoreSpec | None) -> Path:
    """The folder of images; fetched from a bucket if it is there."""
    if name.startswith("s3://"):
        _report(f"fetches the images of {name}")
        return index_store.images(name, options)
    return Path(name) if (local := base_source.local(name)) is None else local


def _options(given: argparse.Namespace) -> StoreSpec | None:
    """Options of the S3 server; None where none are given. Raises UserError."""
    if given.store is not None:
        return inputs.store_spec(given.store)
    single = {"endpoint_url": given.endpoint_url, "region": given.region, "path_style": given.path_style or None}
    single = {name: value for name, value in single.items() if value is not None}
    try:
        return StoreSpec.model_validate({"uri": "s3://any", **single}) if single else None
    except ValidationError as error:
        field, cause = validation.first_problem(error)
        remedy = "give http://host:port" if field == "endpoint_url" else ""
        raise UserError(cause, where=f"--{field.replace('_', '-')}", remedy=remedy) from None
