"""Plain lines for logs and pipes: one per event, and one per tenth of a stage's steps."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType

from gog_console import estimate, formatting
from gog_console.status import exit_message, phrases
from gog_operator import hints
from gog_operator.api.objects import GoGRun, Object, Progress, Stage
from gog_operator.cluster.local import LocalCluster
from gog_operator.plan.actions import Event


class Changes:
    """Decides what is worth a line, by remembering what was printed."""

    def __init__(self) -> None:
        self._tenths: dict[str, int] = {}
        self._states: dict[str, str] = {}

    def tenth_passed(self, name: str, progress: Progress | None) -> bool:
        """Whether another tenth of the steps is done; the last one is left to the completion event."""
        if progress is None or not progress.total:
            return False
        tenth, printed = 10 * progress.step // progress.total, self._tenths.setdefault(name, 0)
        if not printed < tenth < 10:
            return False
        self._tenths[name] = tenth
        return True

    def has_changed(self, name: str, state: str, progress: Progress | None) -> bool:
        """Whether the state differs from the last one, or another tenth of the steps is done."""
        passed, changed = self.tenth_passed(name, progress), self._states.get(name) != state
        self._states[name] = state
        return passed or changed


class PlainDisplay:
    """Display for outputs that are not a terminal."""

    def __init__(self, cluster: LocalCluster, root: Object, estimates: Mapping[str, float] | None = None) -> None:
        self.cluster, self.root, self.estimates = cluster, root, estimates or {}
        self._changes = Changes()
        self._began: set[str] = set()

    def __enter__(self) -> PlainDisplay:
        self.print(f"{self.root.name}  run folder {hints.shown(self.cluster.folder)}")
        if self.estimates:
            self.print(f"{self.root.name}  {estimate.headline(self.estimates)}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def print(self, line: str) -> None:
        """Prints one line at once."""
        print(line, flush=True)

    def event(self, thing: Object, event: Event, now: datetime) -> None:
        if isinstance(thing, Stage) and event.reason == "Complete":
            done = self.cluster.get(type(thing), thing.name) or thing
            took = formatting.clock(phrases.seconds(done.status, now))
            self.print(f"✓ {thing.store_key}  {phrases.summary(done) or 'complete'}  {took}")
        elif not isinstance(thing, GoGRun) or event.reason in phrases.TOOLS:  # the last lines report the run itself
            mark = "!" if event.warning else "·" if isinstance(thing, Stage) else "✓"
            self.print(f"{mark} {event.message}")

    def update(self) -> None:
        for stage in exit_message.stages_of(self.cluster, self.root):
            if stage.status.attempt and not stage.finished:
                self._print_stage(stage)

    def _print_stage(self, stage: Stage) -> None:
        name = f"{stage.name}/{stage.status.attempt}"
        if name not in self._began:
            self._began.add(name)
            again = f" (attempt {stage.status.attempt})" if stage.status.attempt > 1 else ""
            self.print(f"▸ {stage.store_key}{again}")
        if self._changes.tenth_passed(name, stage.status.progress):
            self.print(f"  {stage.store_key} {phrases.steps(stage.status.progress)}  {phrases.summary(stage)}")

    def stopping(self) -> None:
        self.print("interrupted: stopping the stage (interrupt again to end it at once)")

    def finished(self, root: Object, report: Path | None) -> None:
        stream = sys.stderr if root.holds("Failed") else sys.stdout
        for line in exit_message.finished(self.cluster, root, report):
            print(line, file=stream, flush=True)

    def paused(self, root: Object) -> None:
        for line in exit_message.paused(self.cluster, root):
            self.print(line)
