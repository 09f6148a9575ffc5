"""`gog chat NAME`: the policy of a run of this machine, with its tools, in the browser.

Starts the run's tools, its policy (`chat_policy`) and an agent over both (`gog serve agent`), and stops them at Ctrl-C. The caps of an
episode, and how tools are called, are those of the run's last stage that plays episodes, with the preset of its model
family: a tiny model that is shown crops of another size than in training is wrong most of the time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import webbrowser
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from gog import catalog, store
from gog import spec as settings
from gog.errors import UserError
from gog_console import chat_policy, cli, one_server, run_files, tool_servers
from gog_console.chat_policy import Served
from gog_operator.api.objects import GoGRun

TRAINED = ("grpo", "sft")
"""Stages whose newest checkpoint is served, the first that has one."""
PLAYS = ("evaluate", "grpo", "stratify")
"""Stages whose caps are used, the first that was started."""
SECONDS = 60.0
"""In which the agent must be ready."""


def main(given: argparse.Namespace) -> int:
    folder = Path(given.dir) / given.name
    run = run_files.find(folder)
    if not isinstance(run, GoGRun):
        raise UserError(f"is a {run.kind}", where=given.name, remedy="name a run")
    kept = run.spec.store or settings.StoreSpec(uri=f"file://{(folder / 'store').resolve()}")
    version = given.checkpoint or newest(store.open_store(kept), given.name)
    with contextlib.ExitStack() as running:
        tools = running.enter_context(tool_servers.started(with_data(run, folder)))
        if tools.failures:
            role, why = next(iter(tools.failures.items()))
            raise UserError(f"its server does not start: {why}", where=f"endpoints.{role}")
        policy = running.enter_context(chat_policy.started(run, kept, version))
        line = agent_line(run, folder, policy, tools.urls, given.port)
        url = running.enter_context(one_server.started("agent", line, seconds=SECONDS, where=given.name))
        print(f"{version} of {given.name}: {url}  (Ctrl-C ends it)", flush=True)
        if given.open:
            webbrowser.open(url)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
    return cli.COMPLETE


def newest(kept: store.Store, name: str) -> str:
    """The checkpoint to serve. Raises UserError where nothing was trained yet."""
    for stage in TRAINED:
        found = kept.latest(stage)
        if found is not None:
            return found.ref
    raise UserError("has no trained checkpoint yet", where=name, remedy="wait for sft, or name one by --checkpoint")


def with_data(run: GoGRun, folder: Path) -> GoGRun:
    """The run with the dataset that its folder holds, which is not made again."""
    if run.spec.data.world is None or not (folder / "data").is_dir():
        return run
    data = settings.DataSpec(path=str((folder / "data").resolve()))
    return run.model_copy(update={"spec": run.spec.model_copy(update={"data": data})})


def used(folder: Path) -> dict[str, Any]:
    """The whole configuration of the newest stage of the run that plays episodes, its family's preset included."""
    for stage in PLAYS:
        path = folder / "work" / stage / "final.yaml"
        if path.is_file():
            found = yaml.safe_load(path.read_text(encoding="utf-8"))
            return found if isinstance(found, dict) else {}
    return {}


def caps(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Caps of an episode, as a stage has them."""
    return {name: configuration[name] for name in settings.AgentSettings.model_fields if name in configuration}


def limits(run: GoGRun, configuration: Mapping[str, Any]) -> str:
    """How tools are called and how large crops are, as in a stage; without its recording, which a chat must not change."""
    given = configuration.get("tools") or run.spec.tools.model_dump(mode="json", exclude_unset=True)
    return json.dumps({name: value for name, value in given.items() if name != "cache"})


def agent_line(run: GoGRun, folder: Path, policy: Served, urls: Mapping[str, str], port: int) -> list[str]:
    """Arguments of the agent's server."""
    offered = {tool.name: urls[tool.name] for tool in catalog.TOOLS if tool.callable and tool.name in urls}
    configuration = used(folder)
    return [
        "--policy", policy.url, "--model", policy.model, "--tools", json.dumps(offered),
        "--settings", json.dumps(caps(configuration)), "--limits", limits(run, configuration),
        "--style", run.spec.model.style, "--name", run.name, "--port", str(port),
    ]  # fmt: skip
