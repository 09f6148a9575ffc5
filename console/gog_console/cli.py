"""`gog`: the command line of the project.

Each subcommand is a module of `commands/` that is imported when it is called, so `gog --help` is fast and a tool server
does not import the operator. Exit codes: 0 complete, 1 failed, 2 invalid input, 130 interrupted. A user error is one
sentence on stderr; any other error keeps its traceback.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import sys
from collections.abc import MutableMapping, Sequence
from typing import Any

from gog import catalog
from gog_console import output

PASS_ON = ("serve", "stage")
"""Commands that pass unknown arguments on to the program they start."""
COMPLETE, FAILED, INVALID, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    parser = build_parser()
    arguments = list(sys.argv[1:] if argv is None else argv)
    given, rest = parser.parse_known_args(arguments)
    if rest and given.command not in PASS_ON:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    given.rest = [*rest, "--help"] if getattr(given, "help_of_role", False) else rest
    forget_absent_authority(os.environ)
    output.replace_unencodable()
    command = importlib.import_module(f"gog_console.commands.{given.command}")
    return call(command.main, given)


def call(command: object, given: argparse.Namespace) -> int:
    """Runs a command and prints a user error as one sentence. Returns the exit code."""
    from gog.errors import UserError

    try:
        code = command(given)  # type: ignore[operator]
        sys.stdout.flush()  # here, where a failure can still become an exit code
        return int(code)
    except UserError as error:
        print(f"gog: {error.sentence()}", file=sys.stderr)
        return INVALID
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader has what it wanted: `gog logs … | head`
        output.discard(sys.stdout)
        return COMPLETE
    except OSError as error:
        if not _is_output(error):
            raise
        output.discard(sys.stdout)
        print(f"gog: the output cannot be written: {error.strerror}", file=sys.stderr)
        return FAILED


def _is_output(error: OSError) -> bool:
    """Whether a failed write concerns standard output, which has no file name, rather than a file."""
    return error.filename is None and error.errno in (errno.ENOSPC, errno.EIO, errno.EDQUOT)


def forget_absent_authority(environment: MutableMapping[str, str]) -> None:
    """Removes AWS_CA_BUNDLE when its file does not exist, so that the authorities of SSL_CERT_FILE apply, else the system's.

    The ca.crt of a store's Secret is optional, and a pod spec cannot make a variable depend on it.
    """
    if environment.get("AWS_CA_BUNDLE") and not os.path.exists(environment["AWS_CA_BUNDLE"]):
        del environment["AWS_CA_BUNDLE"]
        if environment.get("SSL_CERT_FILE"):
            environment["AWS_CA_BUNDLE"] = environment["SSL_CERT_FILE"]


Commands = Any
"""Type of `add_subparsers()`, whose name is private to argparse."""


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gog",
        description="Train a multimodal model to look before it searches.",
        epilog="Start with: gog run examples/world.yaml",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _to_start(commands)
    _for_runs(commands)
    _for_tools(commands)
    _for_pods(commands)
    _for_clusters(commands)
    return parser


def _to_start(commands: Commands) -> None:
    """Commands that take a manifest: what it would do, and doing it on this machine."""
    run = commands.add_parser("run", help="run a manifest on this machine, or resume its run", allow_abbrev=False)
    run.add_argument("file", metavar="FILE", help="a GoGRun, or a single stage")
    _metrics(run)
    _dir(run)
    _sets(run)

    validate = commands.add_parser(
        "validate", help="check a manifest and list its stages, or check a dataset", allow_abbrev=False
    )
    validate.add_argument("file", metavar="FILE", help="a manifest, or a dataset: a folder, .jsonl, .parquet or .arrow")
    validate.add_argument(
        "--against", action="append", default=[], metavar="DATASET", help="refuse a dataset with questions of this one"
    )
    validate.add_argument("--cluster", action="store_true", help="refuse what kubectl apply would refuse")
    validate.add_argument(
        "--remote",
        action="store_true",
        help="also list the files of a base model, or of a dataset at hf://, over the network",
    )
    _sets(validate)

    _import(commands.add_parser("import", help="convert a dataset of another project", allow_abbrev=False))

    size = commands.add_parser("estimate", help="estimate the memory that a run needs on each GPU", allow_abbrev=False)
    size.add_argument("file", metavar="FILE")
    size.add_argument(
        "--gpus", type=int, metavar="N", help="GPUs of each stage (default: those of its workers, else 8)"
    )
    size.add_argument("--gpu-memory", type=float, default=80, metavar="GB", help="memory of a GPU (default: 80)")
    size.add_argument("--model", metavar="NAME", help="a folder or a published model in place of the manifest's base")
    size.add_argument("--json", action="store_true", help="as JSON, for programs")
    _sets(size)


def _import(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", metavar="KIND", help="format, module:factory, or auto: recognised by content")
    parser.add_argument("source", metavar="SRC", help="file, folder or hf://datasets/org/name[@revision][/folder]")
    parser.add_argument("target", metavar="DST", help="new folder")
    parser.add_argument("--images", metavar="FOLDER", help="folder of the image files that rows name")
    parser.add_argument(
        "--split", action="append", default=[], metavar="NAME[=AS]", help="import this split only, under another name"
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="MARK=VALUE", help="import rows with this mark: language=EN"
    )
    parser.add_argument("--leave-out", action="store_true", help="import in spite of faulty rows, without them")


def _for_runs(commands: Commands) -> None:
    """Commands for runs that were started on this machine, and for what they leave."""
    for name, help_ in (
        ("status", "list runs, or show one in detail"),
        ("report", "write a run's report"),
        ("resume", "resume a run that was interrupted, suspended, cancelled or failed"),
        ("cancel", "end a run; its checkpoints stay"),
    ):
        one = commands.add_parser(name, help=help_, allow_abbrev=False)
        one.add_argument("name", metavar="NAME", nargs="?" if name == "status" else None, help="name of the run")
        if name == "resume":
            _metrics(one)
        if name == "status":
            how = one.add_mutually_exclusive_group()
            how.add_argument("-f", "--follow", action="store_true", help="follow until it ends, or Ctrl-C")
            how.add_argument("--json", action="store_true", help="as JSON, for scripts")
        _dir(one)

    logs = commands.add_parser("logs", help="show the logs of a run or of one of its stages", allow_abbrev=False)
    logs.add_argument("name", metavar="NAME[/STAGE]")
    logs.add_argument("-f", "--follow", action="store_true", help="follow the log")
    _dir(logs)

    export = commands.add_parser("export", help="write a trained policy as one float32 model", allow_abbrev=False)
    export.add_argument("checkpoint", metavar="CHECKPOINT", help="grpo/120, or a stage for its newest")
    export.add_argument("--store", required=True, metavar="URI", help="store of the run: a folder or an address")
    export.add_argument(
        "--base", required=True, metavar="MODEL", help="base model of the run, as its manifest names it"
    )
    export.add_argument("--out", required=True, metavar="FOLDER", help="new folder, in Hugging Face form")

    chat = commands.add_parser("chat", help="try the policy of a run in the browser", allow_abbrev=False)
    chat.add_argument("name", metavar="NAME", help="name of the run")
    chat.add_argument("--checkpoint", metavar="STAGE/STEP", help="default: the newest of grpo, or else of sft")
    chat.add_argument("--port", type=int, default=0, help="port on the loopback interface (default: a free port)")
    chat.add_argument("--open", action="store_true", help="open it in the browser")
    _dir(chat)
    rollback = commands.add_parser("rollback", help="let an agent serve its version before", allow_abbrev=False)
    rollback.add_argument("name", metavar="NAME", help="name of the agent")
    rollback.add_argument("version", metavar="VERSION", nargs="?", help="default: the one that is tried, or is served")
    _dir(rollback)
    compare = commands.add_parser("compare", help="compare the evaluations of runs", allow_abbrev=False)
    compare.add_argument("names", metavar="NAME", nargs="+", help="runs; those that differ in the seed only are seeds")
    compare.add_argument("--out", metavar="FILE", help="the drawing (default: DIR/compare.html)")
    compare.add_argument("--json", action="store_true", help="as JSON, for programs; draws nothing")
    _dir(compare)
    tables = commands.add_parser("tables", help="recompute published tables of results", allow_abbrev=False)
    tables.add_argument("--paper", action="store_true", help="the paper's main table; marks what cannot be right")
    tables.add_argument("--json", action="store_true", help="as JSON, for programs")

    _view(commands.add_parser("view", help="view and review trajectories in a browser", allow_abbrev=False))


def _for_tools(commands: Commands) -> None:
    """Commands for the tools of runs: their data, their recorded answers, and whether they work."""
    index = commands.add_parser("index", help="index images for image search by an encoder", allow_abbrev=False)
    index.add_argument("what", choices=("build",), help="build the index of a folder")
    index.add_argument("arguments", nargs=argparse.REMAINDER, help="see gog index build --help")
    _recordings(
        commands.add_parser("recording", help="export and import recorded answers of tools", allow_abbrev=False)
    )
    _tools(commands.add_parser("tools", help="call every tool of a manifest once", allow_abbrev=False))
    _judge(commands.add_parser("judge", help="compare a judge with labelled answers", allow_abbrev=False))


class _ServeHelp(argparse.Action):
    """`gog serve --help` is answered here, `gog serve ROLE --help` by the role's server."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *_: Any) -> None:
        if getattr(namespace, "role", None) is None:
            parser.print_help()
            parser.exit()
        namespace.help_of_role = True


def _for_pods(commands: Commands) -> None:
    """Commands that the control plane runs, on this machine and in pods; they also work by hand."""
    serve = commands.add_parser("serve", help="start one server", add_help=False, allow_abbrev=False)
    serve.add_argument("role", choices=[server.command for server in catalog.SERVED])
    serve.add_argument("-h", "--help", action=_ServeHelp, nargs=0, help="show this help, or that of a role's server")
    stage = commands.add_parser("stage", help="run one stage, as a pod does", allow_abbrev=False)
    stage.add_argument("kind", choices=catalog.STAGE_NAMES)
    stage.add_argument(
        "--config", required=True, metavar="FILE", help="its configuration; key=value and torchrun flags may follow"
    )
    data = commands.add_parser("data", help="generate the dataset of the embedded world", allow_abbrev=False)
    data.add_argument("--world", default="{}", metavar="JSON", help="its settings: seed, train, test")
    data.add_argument("--out", required=True, metavar="FOLDER")


def _for_clusters(commands: Commands) -> None:
    """Commands for clusters."""
    crds = commands.add_parser("crds", help="print the custom resource definitions for a cluster", allow_abbrev=False)
    crds.add_argument("--dir", metavar="DIR", help="write one file per kind into this folder instead")
    crds.add_argument("--reference", action="store_true", help="print the reference of all fields instead")
    _operator(
        commands.add_parser(
            "operator", help="reconcile runs on a cluster, as the operator's pod does", allow_abbrev=False
        )
    )
    _moves(commands.add_parser("move", help="move checkpoints and datasets between stores", allow_abbrev=False))
    boards = commands.add_parser(
        "dashboards", help="write Grafana dashboards and Prometheus rules, or draw the dashboards", allow_abbrev=False
    )
    boards.add_argument("--dir", default=".", metavar="DIR", help="output folder (default: .)")
    boards.add_argument("--rules", metavar="FILE", help="write the rules to this file instead")
    boards.add_argument("--prometheus", metavar="URL", help="draw images from this Prometheus server instead")
    boards.add_argument("--hours", type=float, default=6.0, help="hours that an image covers (default: 6)")


def _operator(parser: argparse.ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--namespace", action="append", metavar="NS", help="watch this namespace; may be repeated (default: its own)"
    )
    where.add_argument("--all-namespaces", action="store_true", help="watch the whole cluster")
    parser.add_argument("--workers", type=int, default=4, help="objects reconciled at once (default: 4)")
    parser.add_argument("--resync", type=float, default=60.0, metavar="SECONDS", help="interval of full listings")
    parser.add_argument("--port", type=int, default=8080, help="port of /healthz (default: 8080)")
    parser.add_argument("--metrics-port", type=int, metavar="PORT", help="port of /metrics (default: that of /healthz)")
    parser.add_argument(
        "--log-format", choices=("text", "json"), default="text", help="form of the log's lines (default: text)"
    )
    parser.add_argument("--lease-namespace", metavar="NS", help="namespace of the Lease (default: its own)")
    parser.add_argument(
        "--lease-name",
        default="gog-operator",
        metavar="NAME",
        help="of operators that replace each other (default: gog-operator)",
    )


def _view(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target",
        metavar="RUN|PATH|URI",
        help="a run, a run folder, a store (s3://bucket/prefix), an archive, or what verl, TRL or OpenSearch-VL wrote",
    )
    _dir(parser)
    parser.add_argument("--images", metavar="FOLDER", help="images that trajectories of other projects name")
    parser.add_argument("--port", type=int, default=0, help="port on the loopback interface (default: a free port)")
    parser.add_argument("--open", action="store_true", help="open it in the browser")
    parser.add_argument(
        "--reviews", metavar="FILE", help="append review decisions to this file; without it reviewing is off"
    )
    parser.add_argument("--tokenizer", metavar="FILE", help="tokenizer.json of the model, to show its tokens")
    _s3(parser)


def _judge(parser: argparse.ArgumentParser) -> None:
    whats = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    one = whats.add_parser("calibrate", help="agreement by kind, false Yes and false No", allow_abbrev=False)
    one.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        help="JSON lines: question, answers, answer, correct, kind (default: the shipped cases)",
    )
    one.add_argument(
        "--near-misses", action="store_true", help="the shipped near misses instead, over a thousand short answers"
    )
    one.add_argument("--manifest", metavar="FILE", help="the judge of this GoGRun, called as it says")
    one.add_argument("--backend", metavar="NAME", help="a back end of gog serve judge (default: match)")
    one.add_argument("--options", metavar="JSON", help="options of the back end")
    one.add_argument("--url", help="an existing server; its key is in JUDGE_GOG_API_KEY")
    one.add_argument("--model", help="model to request from it")
    one.add_argument("--votes", type=int, help="verdicts per answer (default: 1)")
    one.add_argument("--json", action="store_true", help="as JSON, for programs")


def _tools(parser: argparse.ArgumentParser) -> None:
    whats = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    check = whats.add_parser(
        "check", help="latency, version, cost and answer of each, and what is wrong", allow_abbrev=False
    )
    check.add_argument("file", metavar="FILE", nargs="?", help="the manifest of a GoGRun")
    check.add_argument("--config", metavar="FILE", help="what to call, as the operator wrote it")
    check.add_argument("-o", "--output", choices=("text", "json"), default="text", help="form of the output")
    check.add_argument("--json", action="store_const", const="json", dest="output", help="the same as -o json")
    _sets(check)


def _recordings(parser: argparse.ArgumentParser) -> None:
    whats = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    export = whats.add_parser("export", help="write a recording into one file", allow_abbrev=False)
    named = "as tools.cache.path names it: an SQLite file, or s3:// or file:// of a store's prefix"
    export.add_argument("recording", metavar="RECORDING", help=named)
    export.add_argument("out", metavar="FILE", help="the new file")
    into = whats.add_parser("import", help="add the answers of such a file to a recording", allow_abbrev=False)
    into.add_argument("file", metavar="FILE", help="a file that export wrote")
    into.add_argument("recording", metavar="RECORDING", help="as of export; made if it does not exist")
    inspect = whats.add_parser("inspect", help="show hash, tools and times of either", allow_abbrev=False)
    inspect.add_argument("file", metavar="FILE", help="a recording, or a file that export wrote")
    for each in (export, into, inspect):
        _s3(each)


def _moves(parser: argparse.ArgumentParser) -> None:
    moves = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    for name, help_ in (
        ("check", "verify, promote and retire checkpoints of a store"),
        ("data", "generate the embedded world in a store"),
        ("report", "write a run's report into its store"),
        ("publish", "publish a policy as a version of an agent, if its evaluation passes the gate"),
        ("fetch", "fetch the base model and the dataset of a run into a volume"),
        ("erase", "erase what a deleted run wrote into its store"),
    ):
        one = moves.add_parser(name, help=help_, allow_abbrev=False)
        one.add_argument("--config", required=True, metavar="FILE", help="configuration that the operator wrote")
    push = moves.add_parser("push", help="upload a dataset to a store", allow_abbrev=False)
    push.add_argument("folder", metavar="FOLDER", help="dataset folder, or a file in another format")
    push.add_argument("--format", metavar="NAME", help="format name or module:factory (default: detected)")
    push.add_argument("uri", metavar="URI", help="s3://bucket/prefix, or a folder; credentials from the environment")
    _s3(push)
    model = moves.add_parser("model", help="fetch a base model into a folder", allow_abbrev=False)
    model.add_argument("address", metavar="ADDRESS", help="hf://org/name[@revision] or s3://bucket/prefix")
    model.add_argument("folder", metavar="FOLDER", help="folder below which the model gets a folder of its own")
    model.add_argument("--link", metavar="NAME", help="name of a link to it in FOLDER (default: none)")
    model.add_argument("--any", action="store_true", help="accept a model that stages cannot train, as a judge may be")
    model.add_argument("--store", metavar="JSON", help="options of the server, as spec.store of a manifest has them")
    _s3(model)


def _s3(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--endpoint-url", metavar="URL", help="URL of an S3 server other than AWS")
    parser.add_argument("--region", metavar="NAME")
    parser.add_argument("--path-style", action="store_true", help="use path-style addressing")


def _dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dir", default="runs", metavar="DIR", help="folder of run folders (default: runs)")


def _metrics(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--metrics-port",
        type=int,
        metavar="PORT",
        help="serve Prometheus metrics at /metrics, and the pages of all processes at /targets (0: a free port)",
    )


def _sets(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set", action="append", default=[], metavar="PATH=VALUE", help="override a value: stages.grpo.steps=20"
    )


if __name__ == "__main__":
    sys.exit(main())
