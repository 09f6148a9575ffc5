"""`gog`: the one command of the project.

Each subcommand is a module of `commands/`, imported when it is called, so that `gog --help` costs nothing and a tool
server does not load the operator. Exit codes: 0 complete, 1 failed, 2 invalid input, 130 interrupted. Errors that a
user can mend are one sentence on stderr; anything else keeps its traceback.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import MutableMapping, Sequence
from typing import Any

from gog import catalog

PASS_ON = ("serve", "stage")
"""Commands whose further arguments belong to what they start."""
COMPLETE, FAILED, INVALID, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    arguments = list(sys.argv[1:] if argv is None else argv)
    given, rest = parser.parse_known_args(arguments)
    if rest and given.command not in PASS_ON:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    given.rest = rest
    forget_absent_authority(os.environ)
    command = importlib.import_module(f"gog_console.commands.{given.command}")
    return call(command.main, given)


def call(command: object, given: argparse.Namespace) -> int:
    """Runs a command; says a user's error in one sentence."""
    from gog.errors import UserError

    try:
        return command(given)  # type: ignore[operator]
    except UserError as error:
        print(f"gog: {error.sentence()}", file=sys.stderr)
        return INVALID
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # `gog logs … | head`
        sys.stderr.close()
        return COMPLETE


def forget_absent_authority(environment: MutableMapping[str, str]) -> None:
    """A store's Secret may hold a ca.crt, and a pod cannot say that a variable depends on it: where the file is not,
    the authorities that everybody trusts are meant."""
    if environment.get("AWS_CA_BUNDLE") and not os.path.exists(environment["AWS_CA_BUNDLE"]):
        del environment["AWS_CA_BUNDLE"]


Commands = Any
"""argparse's own name for what `add_subparsers` returns is private."""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gog",
        description="Train a multimodal model to look before it searches.",
        epilog="Start with: gog run examples/world.yaml",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _for_runs(commands)
    _for_pods(commands)
    _for_clusters(commands)
    return parser


def _for_runs(commands: Commands) -> None:
    """What a person calls about a run on this machine."""
    run = commands.add_parser("run", help="run a manifest on this machine, or go on with it", allow_abbrev=False)
    run.add_argument("file", metavar="FILE", help="a GoGRun, or a single stage")
    _metrics(run)
    _dir(run)
    _sets(run)

    validate = commands.add_parser("validate", help="check a manifest and say what it would do", allow_abbrev=False)
    validate.add_argument("file", metavar="FILE")
    _sets(validate)

    for name, help_ in (
        ("status", "list runs, or tell how one stands"),
        ("report", "write a run's report"),
        ("resume", "go on with a run that was interrupted, suspended, cancelled or has failed"),
        ("cancel", "end a run; its checkpoints stay"),
    ):
        one = commands.add_parser(name, help=help_, allow_abbrev=False)
        one.add_argument("name", metavar="NAME", nargs="?" if name == "status" else None, help="name of the run")
        if name == "resume":
            _metrics(one)
        if name == "status":
            how = one.add_mutually_exclusive_group()
            how.add_argument("-f", "--follow", action="store_true", help="redraw until it ends, or Ctrl-C")
            how.add_argument("--json", action="store_true", help="as JSON, for scripts")
        _dir(one)

    logs = commands.add_parser("logs", help="show what a run or one of its stages wrote", allow_abbrev=False)
    logs.add_argument("name", metavar="NAME[/STAGE]")
    logs.add_argument("-f", "--follow", action="store_true", help="go on as it grows")
    _dir(logs)

    _view(commands.add_parser("view", help="look at trajectories in a browser, and review them", allow_abbrev=False))


def _for_pods(commands: Commands) -> None:
    """What the control plane calls, here and in pods; by hand, too."""
    serve = commands.add_parser("serve", help="start one tool server", add_help=False, allow_abbrev=False)
    serve.add_argument("role", choices=[server.command for server in catalog.SERVERS])
    stage = commands.add_parser("stage", help="run one stage, as a pod does", allow_abbrev=False)
    stage.add_argument("kind", choices=catalog.STAGE_NAMES)
    stage.add_argument(
        "--config", required=True, metavar="FILE", help="its configuration; key=value and torchrun flags may follow"
    )
    data = commands.add_parser("data", help="make the embedded world's dataset", allow_abbrev=False)
    data.add_argument("--world", default="{}", metavar="JSON", help="its settings: seed, train, test")
    data.add_argument("--out", required=True, metavar="FOLDER")


def _for_clusters(commands: Commands) -> None:
    """What is installed in a cluster, or run there."""
    crds = commands.add_parser("crds", help="print the custom resource definitions for a cluster", allow_abbrev=False)
    crds.add_argument("--dir", metavar="DIR", help="write one file each there instead")
    crds.add_argument("--reference", action="store_true", help="print a page that tells every field instead")
    _operator(
        commands.add_parser("operator", help="run runs on a cluster, as the operator's pod does", allow_abbrev=False)
    )
    _moves(commands.add_parser("move", help="move checkpoints and datasets between stores", allow_abbrev=False))
    boards = commands.add_parser(
        "dashboards", help="write dashboards for Grafana and rules for Prometheus, or draw them", allow_abbrev=False
    )
    boards.add_argument("--dir", default=".", metavar="DIR", help="where to (default: here)")
    boards.add_argument("--rules", metavar="FILE", help="write the rules there instead")
    boards.add_argument("--prometheus", metavar="URL", help="draw images of what this one knows instead")
    boards.add_argument(
        "--hours", type=float, default=6.0, help="how many of the last hours an image shows (default: 6)"
    )


def _operator(parser: argparse.ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--namespace", action="append", metavar="NS", help="watch this namespace; may be repeated (default: its own)"
    )
    where.add_argument("--all-namespaces", action="store_true", help="watch the whole cluster")
    parser.add_argument("--workers", type=int, default=4, help="objects at work at once (default: 4)")
    parser.add_argument("--resync", type=float, default=60.0, metavar="SECONDS", help="how often everything is listed")
    parser.add_argument("--port", type=int, default=8080, help="of /healthz and /metrics (default: 8080)")
    parser.add_argument("--lease-namespace", metavar="NS", help="where its Lease is (default: its own)")


def _view(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target", metavar="RUN|PATH|URI", help="a run, a run folder, a store (s3://bucket/prefix) or an archive"
    )
    _dir(parser)
    parser.add_argument("--port", type=int, default=0, help="of the page, on this machine only (default: a free one)")
    parser.add_argument("--open", action="store_true", help="open it in the browser")
    parser.add_argument("--reviews", metavar="FILE", help="where decisions are appended; without it nothing is decided")
    parser.add_argument("--tokenizer", metavar="FILE", help="tokenizer.json of the model, to colour its words")
    _s3(parser)


def _moves(parser: argparse.ArgumentParser) -> None:
    moves = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    for name, help_ in (
        ("check", "look at a store's checkpoints: verify, promote, retire"),
        ("data", "make the embedded world in a store"),
        ("report", "write a run's report into its store"),
    ):
        one = moves.add_parser(name, help=help_, allow_abbrev=False)
        one.add_argument("--config", required=True, metavar="FILE", help="what to do, as the operator writes it")
    push = moves.add_parser("push", help="publish a dataset folder to a store", allow_abbrev=False)
    push.add_argument("folder", metavar="FOLDER")
    push.add_argument("uri", metavar="URI", help="s3://bucket/prefix, or a folder; credentials from the environment")
    _s3(push)


def _s3(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--endpoint-url", metavar="URL", help="of an S3 server that is not Amazon's")
    parser.add_argument("--region", metavar="NAME")
    parser.add_argument("--path-style", action="store_true", help="the bucket in the path, not in the host name")


def _dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dir", default="runs", metavar="DIR", help="where run folders are (default: runs)")


def _metrics(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--metrics-port",
        type=int,
        metavar="PORT",
        help="serve metrics for a Prometheus of this machine at /metrics, and /targets, which lists all pages (0: a free port)",
    )


def _sets(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set", action="append", default=[], metavar="PATH=VALUE", help="change a value: stages.grpo.steps=20"
    )


if __name__ == "__main__":
    sys.exit(main())
