"""The live display: one line a stage, on a terminal.

It is redrawn from the objects after each pass, so it cannot disagree with them. Warnings are printed above it and remain.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gog import catalog
from gog_console import estimate, formatting
from gog_console.status import exit_message, phrases
from gog_operator import hints
from gog_operator.api import sequence
from gog_operator.api.objects import KINDS, GoGRun, Object, Stage, ToolServer
from gog_operator.cluster.local import LocalCluster
from gog_operator.local_loop import utc_now
from gog_operator.plan.actions import Event

REDRAW_SECONDS = 0.4


class LiveDisplay:
    """Display for a terminal."""

    def __init__(
        self,
        cluster: LocalCluster,
        root: Object,
        estimates: Mapping[str, float] | None = None,
        console: Console | None = None,
    ) -> None:
        self.cluster, self.root, self.estimates = cluster, root, estimates or {}
        self.console = console or Console(highlight=False)
        self.began = utc_now()
        self.tools_seconds: float | None = None
        self.note = ""
        self.drawn = 0.0
        self.tool_servers: tuple[ToolServer, ...] = ()
        self.planned = [step.key for step in sequence.steps(root)] if isinstance(root, GoGRun) else []
        self.live = Live(console=self.console, auto_refresh=False, transient=False)

    def __enter__(self) -> LiveDisplay:
        self.console.print(f"[bold]{self.root.name}[/]  run folder {hints.shown(self.cluster.folder)}")
        if self.estimates:
            self.console.print(estimate.headline(self.estimates), style="dim")
        self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.note = ""
        self.draw()
        self.live.stop()

    def event(self, thing: Object, event: Event, now: datetime) -> None:
        if event.warning and (not isinstance(thing, GoGRun) or event.reason in phrases.TOOLS):
            self.console.print(f"[yellow]![/] {event.message}", soft_wrap=True)

    def update(self) -> None:
        """Redraws, at most a few times per second, because drawing costs more than a pass of the control loop."""
        if time.monotonic() - self.drawn >= REDRAW_SECONDS:
            self.draw()

    def draw(self) -> None:
        self.drawn = time.monotonic()
        self.live.update(self.image(utc_now()), refresh=True)

    def stopping(self) -> None:
        self.note = "Stopping: the stage saves a checkpoint. Press Ctrl-C again to end it at once."
        self.draw()

    def finished(self, root: Object, report: Path | None) -> None:
        self._print(exit_message.finished(self.cluster, root, report))

    def paused(self, root: Object) -> None:
        self._print(exit_message.paused(self.cluster, root))

    def _print(self, lines: list[str]) -> None:
        for line in lines:
            self.console.print(line, markup=False, soft_wrap=True)

    def image(self, now: datetime) -> RenderableType:
        """The whole display at a moment."""
        grid = Table.grid(padding=(0, 1))
        for column in ("mark", "name", "summary", "bar", "steps"):
            grid.add_column(column, no_wrap=column != "summary")
        grid.add_column("time", justify="right", no_wrap=True)
        self._tools(grid, now)
        stages = {stage.store_key: stage for stage in exit_message.stages_of(self.cluster, self.root)}
        for key in dict.fromkeys([*self.planned, *stages]):
            self._stage(grid, key, stages.get(key), now)
        note = self.note or " ".join(filter(None, (self._left(stages, now), self._hint(list(stages.values())))))
        return Group(grid, Text(note, style="dim")) if note else grid

    def _tools(self, grid: Table, now: datetime) -> None:
        tool_servers = self.cluster.list(ToolServer) or self.tool_servers  # those of a finished run are deleted
        self.tool_servers = tool_servers
        if not tool_servers:
            if self._preparing():
                grid.add_row("[cyan]▸[/]", "data", "generating the dataset", "", "", self._elapsed(now))
            return
        ready = [each for each in tool_servers if each.holds("Ready")]
        if len(ready) == len(tool_servers) and self.tools_seconds is None:
            self.tools_seconds = (now - self.began).total_seconds()
        addresses = "  ".join(_address(each) for each in tool_servers)
        mark = "[green]✓[/]" if len(ready) == len(tool_servers) else "[cyan]▸[/]"
        took = formatting.clock(self.tools_seconds) if self.tools_seconds is not None else self._elapsed(now)
        grid.add_row(mark, "tools", addresses, "", "", took)

    def _preparing(self) -> bool:
        root = self.cluster.get(KINDS[self.root.kind], self.root.name)
        return root is not None and phrases.state(root) == "PreparingData"

    def _elapsed(self, now: datetime) -> str:
        return formatting.clock(max((now - self.began).total_seconds(), 0))

    def _stage(self, grid: Table, key: str, stage: Stage | None, now: datetime) -> None:
        if stage is None:
            grid.add_row("", f"[dim]{key}[/]")
            return
        took = formatting.clock(phrases.seconds(stage.status, now)) if stage.status.start_time else ""
        grid.add_row(_mark(stage), key, _note(stage), _bar(stage), phrases.steps(stage.status.progress), took)

    def _left(self, stages: Mapping[str, Stage], now: datetime) -> str:
        """`About 3:20 left.`; empty without an estimate, and at the end."""
        spent = {key: phrases.seconds(stage.status, now) for key, stage in stages.items()}
        done = {key for key, stage in stages.items() if stage.holds("Complete")}
        left = estimate.remaining(self.estimates, spent, done)
        return f"About {formatting.estimate(left)} left." if left else ""

    def _hint(self, stages: list[Stage]) -> str:
        current = next((each for each in stages if not each.finished and each.status.attempt), None)
        if current is None:
            return ""
        step = current.status.checkpoint.rpartition("/")[2]
        where = f" from step {step}" if step else ""
        return f"Ctrl-C is safe: `{hints.call('resume', self.cluster.folder)}` resumes{where}."


def _address(tool_server: ToolServer) -> str:
    role = catalog.SERVER_BY_NAME[tool_server.spec.role].title
    if not tool_server.holds("Ready"):
        return f"{role} …"
    return f"{role} :{tool_server.status.port}" if tool_server.status.port else f"{role} {tool_server.status.url}"


def _mark(stage: Stage) -> str:
    colour = "green" if stage.holds("Complete") else "red" if stage.holds("Failed") else "cyan"
    return f"[{colour}]{phrases.mark(stage)}[/]"


def _note(stage: Stage) -> Text:
    """Failure of a stage, what blocks it, or its results."""
    if stage.holds("Failed"):
        return Text(phrases.failure(stage), style="red")
    ready = stage.condition("Ready")
    if ready is not None and ready.status == "False" and not stage.holds("Complete"):
        return Text(ready.message, style="yellow")
    again = f" (attempt {stage.status.attempt})" if stage.status.attempt > 1 else ""
    return Text(phrases.summary(stage) + again)


def _bar(stage: Stage) -> RenderableType:
    progress = stage.status.progress
    if progress is None or not progress.total or stage.holds("Complete"):
        return ""
    return ProgressBar(total=progress.total, completed=progress.step, width=20)
