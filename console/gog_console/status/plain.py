"""Plain lines, for logs and pipes: one for an event, one for a tenth of a stage's way."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from types import TracebackType

from gog_console import formatting
from gog_console.status import exit_message, phrases
from gog_operator import hints
from gog_operator.api.objects import Endpoint, GoGRun, Object, Progress, Stage
from gog_operator.cluster.local import LocalCluster
from gog_operator.plan.actions import Event


class Changes:
    """What is worth a line: remembers what was told."""

    def __init__(self) -> None:
        self._tenths: dict[str, int] = {}
        self._states: dict[str, str] = {}

    def tenth_passed(self, name: str, progress: Progress | None) -> bool:
        """Whether something has come a tenth of its way further; the last one is told by its end."""
        if progress is None or not progress.total:
            return False
        tenth, told = 10 * progress.step // progress.total, self._tenths.setdefault(name, 0)
        if not told < tenth < 10:
            return False
        self._tenths[name] = tenth
        return True

    def are_news(self, name: str, state: str, progress: Progress | None) -> bool:
        """Whether something stands otherwise than before, or has come a tenth further."""
        passed, changed = self.tenth_passed(name, progress), self._states.get(name) != state
        self._states[name] = state
        return passed or changed


class PlainDisplay:
    def __init__(self, cluster: LocalCluster, root: Object) -> None:
        self.cluster, self.root = cluster, root
        self._changes = Changes()
        self._began: set[str] = set()

    def __enter__(self) -> PlainDisplay:
        self.say(f"{self.root.name}  run folder {hints.shown(self.cluster.folder)}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def say(self, line: str) -> None:
        print(line, flush=True)

    def event(self, thing: Object, event: Event, now: datetime) -> None:
        if isinstance(thing, Stage) and event.reason == "Complete":
            done = self.cluster.get(type(thing), thing.name) or thing
            took = formatting.clock(phrases.seconds(done.status, now))
            self.say(f"✓ {thing.store_key}  {phrases.summary(done) or 'complete'}  {took}")
        elif not isinstance(thing, GoGRun):  # of which the last lines tell
            mark = "!" if event.warning else "✓" if isinstance(thing, Endpoint) else "·"
            self.say(f"{mark} {event.message}")

    def update(self) -> None:
        for stage in exit_message.stages_of(self.cluster, self.root):
            if stage.status.attempt and not stage.finished:
                self._tell(stage)

    def _tell(self, stage: Stage) -> None:
        name = f"{stage.name}/{stage.status.attempt}"
        if name not in self._began:
            self._began.add(name)
            again = f" (attempt {stage.status.attempt})" if stage.status.attempt > 1 else ""
            self.say(f"▸ {stage.store_key}{again}")
        if self._changes.tenth_passed(name, stage.status.progress):
            self.say(f"  {stage.store_key} {phrases.steps(stage.status.progress)}  {phrases.summary(stage)}")

    def stopping(self) -> None:
        self.say("interrupted: the stage is asked to end (once more to end it at once)")

    def finished(self, root: Object, report: Path | None) -> None:
        stream = sys.stderr if root.holds("Failed") else sys.stdout
        for line in exit_message.finished(self.cluster, root, report):
            print(line, file=stream, flush=True)

    def paused(self, root: Object) -> None:
        for line in exit_message.paused(self.cluster, root):
            self.say(line)
