"""What every stage does around its method: its store, its data, its progress, its metric log.

With several ranks each has a Stage and a work folder of its own. What all ranks of a machine need (dataset, earlier
checkpoints, base model) is made once in the common folder. Only rank 0 logs, reports and commits.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gog import (
    catalog,
    dataset,
    dataset_source,
    exclusion,
    folders,
    journal,
    metrics,
    outage,
    progress,
    store,
    trajectory_zip,
)
from gog.errors import UserError
from gog.spec import NEEDS, ModelSpec, StageConfig
from gog.store import writers
from gog.tracing import stages as traces
from gog_recipes.rollout import journals
from gog_recipes.runtime import base, data, interruption, monitor, relay, resumption, termination
from gog_recipes.runtime.metric_log import MetricLog
from gog_recipes.runtime.ranks import SINGLE, Ranks

QUANTIZATION = "base_quantization"
"""Setting that decides what the base model computes."""


class Stage:
    """One attempt at a stage, for one rank.

    Args:
        config: of the stage
        ranks: the processes of the attempt, this one among them

    Raises:
        UserError: the newest checkpoint under the stage's key was made by another run or with other settings.
    """

    def __init__(self, config: StageConfig, ranks: Ranks = SINGLE) -> None:
        self.config = config
        self.key = config.key
        self.ranks = ranks
        self.interruption = interruption.PROCESS
        self.common = Path(config.workdir) if config.workdir else Path(tempfile.mkdtemp(prefix=f"gog-{self.key}-"))
        self.workdir = self.common if ranks.is_main else self.common / f"rank-{ranks.rank}"
        self.workdir.mkdir(parents=True, exist_ok=True)
        self.tracer = traces.begin(config, ranks.rank, ranks.size, lambda: ranks.broadcast(uuid.uuid4().hex), self.log)
        self.store = store.open_store(config.store)
        if ranks.is_main:
            writers.register(self.store, os.environ, config.run)
        self.dataset = ""
        self._data_record: dict[str, str] | None = None
        newest = self._newest = self._newest_of_ours()
        self.checkpoint = _checkpoint_of(newest) if newest else None
        self._reported = (newest.step, int(newest.meta.get("total", newest.step))) if newest else (0, 0)
        self._metrics: dict[str, Any] = {}
        self._base: base.Base | None = None
        self._waiting: dict[str, str] | None = None
        self._waited_for = "the service"
        self._watch = outage.Watch(config.tools.outage, self.report_waiting)
        self.metric_log = MetricLog(self.workdir / "metrics.jsonl")
        metrics.record_progress(self.key, *self._reported, now=time.time())
        if newest is not None:
            metrics.record_checkpoint(self.key, newest.timestamp)
        self.monitor = monitor.begin(self.workdir, self.progress) if ranks.is_main else None
        if "waiting" in (progress.read(self.workdir) or {}):  # of an attempt that gave up
            self._write_progress()

    def _newest_of_ours(self) -> store.Manifest | None:
        """The checkpoint that the stage resumes from, which must be its own. Raises UserError for another's."""
        newest = self.store.latest(self.key)
        if newest is not None:
            resumption.require_same(newest, self.settings(), self.config.store.uri)
        return newest

    @property
    def base(self) -> base.Base:
        """The base model, checked; fetched first if it is not on this machine. All ranks at once, which also compare
        their settings: one with others would change what the stage learns.

        Raises:
            UserError: it cannot be fetched or used, or ranks differ in it or in their settings.
        """
        if self._base is None:
            self.ranks.require_same(self.settings(), remedy="start all ranks with one configuration")
            self._base = base.locate(
                self.config.model,
                options=self.config.store,
                common=self.common,
                ranks=self.ranks,
                earlier=self._earlier(),
            )
        return self._base

    @property
    def model(self) -> ModelSpec:
        """The model with its base as a folder of this machine. All ranks at once."""
        return self.base.spec

    def _earlier(self) -> list[store.Manifest]:
        """The stage's own newest checkpoint, and those that it starts from, as far as they exist."""
        own = self.store.latest(self.key)
        kinds = [kind for kind in {*self.config.inputs, *NEEDS[self.config.kind]} if self.has_input(kind)]
        return [*([own] if own else []), *(self.input(kind) for kind in sorted(kinds))]

    def _of_same_data(self) -> Iterator[store.Manifest]:
        """The same, then the newest of every stage: all stages of a run read one dataset."""
        yield from self._earlier()
        yield from (found for kind in catalog.STAGE_NAMES if (found := self.store.latest(kind)) is not None)

    def input(self, kind: str) -> store.Manifest:
        """The checkpoint of an earlier stage that this one starts from. Raises UserError if there is none."""
        return self.store.resolve(self.config.inputs.get(kind, kind))

    def is_done(self, *splits: str) -> bool:
        """Whether the stage, which commits once, has committed. Raises UserError if that was with another dataset.

        Args:
            splits: of the dataset, from which the stage reads its questions.
        """
        if self._newest is None:
            return False
        self.questions_of(*splits)
        if self.ranks.is_main:
            journal.prune(self.store, self.key)  # of a process that was killed between the two
        self.log("already complete")
        return True

    def has_input(self, kind: str) -> bool:
        """Whether there is a checkpoint of an earlier stage, or the configuration names one."""
        return kind in self.config.inputs or self.store.latest(kind) is not None

    def folder(self, manifest: store.Manifest) -> Path:
        """A folder with a checkpoint's files, verified. Raises UserError where its adapter is of another base model.

        An adapter may be used beside a base that is quantized otherwise than in its training, which the log reports.
        """
        self.base.require(manifest, self.log)
        self._compare_quantization(manifest)
        target = self.common / "inputs" / manifest.ref.replace("/", "-")
        return folders.once(target, lambda fresh: self.store.fetch(manifest, fresh))

    def _compare_quantization(self, manifest: store.Manifest) -> None:
        there, own = (manifest.meta.get("settings", {}).get(QUANTIZATION), getattr(self.config, QUANTIZATION, None))
        if there is not None and own is not None and there != own:
            self.log(
                f"checkpoint {manifest.ref} was trained with {QUANTIZATION} {there} and is used with {own}: the policy "
                "computes something else than in training; set it alike in all stages"
            )

    def archive(self, manifest: store.Manifest) -> trajectory_zip.Archive:
        """The trajectories of a checkpoint."""
        return trajectory_zip.Archive(self.store.open(manifest, "trajectories.zip"))

    def questions(self, split: str) -> tuple[Path, list[dataset.Question]]:
        """The dataset's folder, and its questions of a split. Raises UserError for a dataset that cannot be used."""
        folder, (found,) = self.questions_of(split)
        return folder, found

    def questions_of(self, *splits: str) -> tuple[Path, list[list[dataset.Question]]]:
        """The dataset's folder, and its questions of each split. Raises UserError for a dataset that cannot be used."""
        found = data.locate(
            self.config.data,
            options=self.config.store,
            common=self.common,
            ranks=self.ranks,
            earlier=self._of_same_data(),
        )
        folder, self._data_record = found.folder, found.record
        questions = [dataset.read_questions(folder, split) for split in splits]
        digest = " ".join(dataset.digest(folder, split, each) for split, each in zip(splits, questions, strict=True))
        self.require_dataset(f"dataset ({', '.join(splits)})", digest)
        return folder, questions

    def require_dataset(self, what: str, digest: str) -> None:
        """Takes note of what the stage learns from. All ranks at once.

        Args:
            what: it is, for messages.
            digest: of all of it.

        Raises:
            UserError: ranks differ in it, or the stage's newest checkpoint was made with another one.
        """
        self.ranks.require_same({what: digest}, remedy="give every pod the same dataset")
        self.dataset = digest
        there = self._newest.meta.get("dataset") if self._newest else None
        if there not in (None, digest):
            assert self._newest is not None
            raise UserError(
                f"checkpoint {self._newest.ref} was made with another dataset",
                where=self.config.store.uri,
                remedy="name another store or another run, or give the dataset of that checkpoint",
            )

    def log(self, line: str) -> None:
        """Logs a line; rank 0 only."""
        if self.ranks.is_main:
            print(f"{self.key}: {line}", flush=True)

    def skip(self, what: str, reason: str) -> None:
        """Logs and counts a question or demonstration that cannot be used, with its id."""
        self.log(f"{what} is skipped: {reason}")
        if self.ranks.is_main:
            metrics.record_skipped(self.key)

    def record_step(self, **line: Any) -> None:
        """A step's figures, by the keys of gog.step_metrics and more: a line of the metric log, and the gauges."""
        self.metric_log.append(**line)
        metrics.record_step(self.config.kind, self.key, line)

    def report(self, step: int, total: int, **figures: Any) -> None:
        """Reports the stage's progress.

        Args:
            step: steps done
            total: steps planned
            figures: newest figures by name, and downsampled series
        """
        metrics.record_progress(self.key, step, total, now=None if step == self._reported[0] else time.time())
        self._reported, self._metrics = (step, total), figures
        self._write_progress()

    def report_waiting(self, waiting: outage.Waiting | None) -> None:
        """Reports the outage that the stage waits for, with the time when it gives up; None: it works again."""
        self._waiting = None if waiting is None else waiting.progress(time.time())
        if waiting is None:
            self.log(f"{self._waited_for} works again")
        else:
            self._waited_for = waiting.service
            self.log(f"waits for {waiting.service}, for {waiting.seconds_left:.0f} s at most: {waiting.reason}")
        self._write_progress()

    def watch(self) -> outage.Watch:
        """Makes the calls of this stage's tools and of its policy wait for outages, which it reports as progress. Always
        the same, because what it reports last is what the stage waits for."""
        return self._watch

    def replay(self) -> exclusion.Replay:
        """Plays again what failures of tools or the judge spoiled; its waits are this stage's progress."""
        return exclusion.Replay(
            self.config.tools.outage.patience_seconds,
            self.report_waiting,
            clock=lambda: self.ranks.broadcast(time.monotonic()),  # all ranks must give up together
            sleep=self.interruption.sleep,
        )

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Inside, a request to end of any rank reaches all of them within a second, sets `interruption.requested` and cuts
        waits short: the stage ends by itself. All ranks at once."""
        with self.interruption.deferred(), relay.running(self.ranks, self.interruption):
            yield

    def is_interrupted(self) -> bool:
        """Whether any rank was asked to end. All ranks at once."""
        return any(self.ranks.gather(self.interruption.requested))

    def _write_progress(self) -> None:
        if self.ranks.is_main:
            progress.report(self.workdir, *self._reported, self._metrics, self.checkpoint, self._waiting)

    def progress(self) -> dict[str, Any]:
        """The stage's progress; a newly started one is as far as its checkpoint."""
        return progress.document(*self._reported, self._metrics, self.checkpoint, self._waiting)

    def journals(
        self, parents: Sequence[store.Manifest], *, needs_model: bool = True, ahead: int = 0
    ) -> journals.Journals:
        """The journals of the stage's plays.

        Args:
            parents: checkpoints whose weights the plays start from.
            needs_model: whether the base model samples them.
            ahead: steps of which plays may be open beside that of an earlier step.
        """
        settings = resumption.decisive(self.settings())
        weights = [{name: blob.hash for name, blob in each.files.items()} for each in parents]
        base = self.base.identity.document() if needs_model else {}
        decided_by = journals.digest_of([settings, weights, self.dataset, base])
        return journals.Journals(self.store, self.key, decided_by, journals.pause_of(self.config.store.uri), ahead)

    def settings(self) -> dict[str, Any]:
        """The settings in force that decide the stage's result, without folders and addresses."""
        places = {"store", "endpoints", "backends", "workdir", "inputs", "data", "traces"}
        return self.config.model_dump(mode="json", exclude=places)

    def publish(
        self,
        step: int,
        files: Mapping[str, Path],
        *,
        meta: Mapping[str, Any],
        parents: list[store.Manifest],
        complete: bool = True,
        own: Mapping[str, Path] | None = None,
    ) -> None:
        """Commits a checkpoint. All ranks at once.

        Args:
            step: steps done
            files: of rank 0, by name
            meta: figures for readers
            parents: checkpoints of earlier stages that it was made from
            complete: whether it is the stage's last, from which the control plane knows that the stage is complete
            own: further files of each rank, which pods do not share, by names that differ between ranks
        """
        mine = {**(files if self.ranks.is_main else {}), **(own or {})}
        blobs: dict[str, store.Blob] = {}
        for staged in self.ranks.gather(self.store.stage_blobs(mine)):
            blobs |= staged
        if not self.ranks.is_main:
            return
        refs = tuple(parent.ref for parent in parents)
        everything = {**meta, "complete": complete, "settings": self.settings()}
        if self.dataset:
            everything["dataset"] = self.dataset
        if self._data_record is not None:
            everything[dataset_source.RECORD] = self._data_record
        manifest = self.store.commit(self.key, step, blobs, meta=everything, parents=refs)
        self.checkpoint = _checkpoint_of(manifest)
        journal.prune(self.store, self.key, None if complete else step)
        self.report(*self._reported, **self._metrics)
        self.log(f"checkpoint {manifest.ref} committed")

    def end(self) -> None:
        """Ends an attempt that completed: the last spans, the termination message, the last scrape."""
        self.tracer.end()
        if self.ranks.is_main:
            termination.leave(progress.shorten(self.progress()))
        monitor.end(self.monitor)


def _checkpoint_of(manifest: store.Manifest) -> dict[str, Any]:
    """A checkpoint in the progress document. One without `complete` in its meta is not known to be the last."""
    return {"ref": manifest.ref, "complete": bool(manifest.meta.get("complete"))}
