"""The processes of one stage: which one this is, and what they exchange.

torchrun starts the same recipe in every process (a rank) and describes the group in the environment. Items are
divided (rank r takes every size-th one, starting with item r) and results are put back into the order of the items, so a step
is about the same questions and rows for any number of ranks. Objects are exchanged by gloo, on the CPU.

A single process has no group: every function here returns its argument, and torch is not even imported. Sharding of
the model is elsewhere (`parallel`).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from gog import catalog
from gog.errors import UserError

SECONDS = 1800.0
"""How long a rank waits for the others where no tool is down, before it takes one for dead: gloo's default."""

T = TypeVar("T")
Figure = TypeVar("Figure", int, float)


@dataclass(frozen=True)
class Ranks:
    """This process among others. A method that returns something of all ranks must be called by all of them."""

    rank: int = 0
    """Number of this process, from 0."""
    size: int = 1
    """Number of processes."""
    waiting: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext
    """Entered while this process waits for the others: measures the time."""

    @property
    def is_main(self) -> bool:
        """Whether this is the process that logs, reports and commits."""
        return self.rank == 0

    def shard(self, items: Sequence[T]) -> list[T]:
        """This rank's share of the items."""
        return list(items[self.rank :: self.size])

    def gather(self, item: T) -> list[T]:
        """Every rank's item, by rank, on every rank."""
        if self.size == 1:
            return [item]
        import torch.distributed

        found: list[Any] = [None] * self.size
        with self.waiting():
            torch.distributed.all_gather_object(found, item)
        return found

    def unshard(self, own: Sequence[T]) -> list[T]:
        """All items, in the order that they had before `shard`."""
        parts = self.gather(list(own))
        found: list[Any] = [None] * sum(len(part) for part in parts)
        for rank, part in enumerate(parts):
            found[rank :: self.size] = part
        return found

    def broadcast(self, item: T) -> T:
        """Rank 0's item, for values that every rank reads for itself and that must not differ."""
        return self.gather(item)[0]

    def all_reduce_sum(self, figure: Figure) -> Figure:
        """The sum over ranks."""
        return sum(self.gather(figure))

    def require_same(self, values: Mapping[str, Any], *, remedy: str) -> None:
        """Raises UserError, on every rank, where ranks differ in what must be the same on all. All ranks at once.

        Args:
            values: this rank's values, by what they are
            remedy: what the user can do
        """
        every = self.gather(dict(values))
        for rank, theirs in enumerate(every):
            differing = sorted(name for name in {**every[0], **theirs} if every[0].get(name) != theirs.get(name))
            if differing:
                raise UserError(
                    f"rank {rank} and rank 0 differ in {', '.join(differing)}", where="ranks", remedy=remedy
                )

    def require(self, count: int, setting: str) -> None:
        """Raises UserError when a step has fewer items than there are ranks."""
        if count < self.size:
            raise UserError(
                f"{setting} is {count}, which leaves some of {self.size} processes without work",
                where=setting,
                remedy=f"raise it to {self.size} or more, or start fewer processes",
            )


SINGLE = Ranks()


def init(
    device: Any,
    waiting: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
    *,
    patience_seconds: float = 0.0,
) -> Ranks:
    """Joins the other processes that torchrun started; SINGLE when it started one or none.

    Args:
        device: torch device of this process's model
        waiting: entered while this process waits for the others
        patience_seconds: how long a process may wait for one tool that is down, while the others wait for that process
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return SINGLE
    import torch.distributed

    backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
    # An outage may be noticed by one rank alone, and one tool may fail after another has come back.
    timeout = timedelta(seconds=SECONDS + patience_seconds * len(catalog.TOOLS))
    torch.distributed.init_process_group(backend, timeout=timeout)
    return Ranks(torch.distributed.get_rank(), size, waiting)


def shutdown(ranks: Ranks) -> None:
    """Leaves the group, after everything is committed."""
    if ranks.size > 1:
        import torch.distributed

        torch.distributed.destroy_process_group()


def refuse_several(kind: str) -> None:
    """Raises UserError where torchrun started several processes of a stage that runs as one."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size > 1:
        raise UserError(
            f"{kind} is one process, and {size} were started",
            where=f"stages.{kind}.workers",
            remedy="set replicas and processes to 1",
        )
