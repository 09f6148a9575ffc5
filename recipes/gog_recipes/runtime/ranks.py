"""Several processes of one stage: which one this is, and what they tell each other.

torchrun starts the same recipe in every process (a rank) and says in the environment who is who. Work is dealt out
(rank r takes every size-th piece from r on) and what came of it is collected in its own order, so that a step is about
the same questions and rows however many ranks there are. What is told travels by gloo, on the CPU.

A lone process has no group: everything here hands back what it was given, and torch is not even imported.
Models are spread over ranks elsewhere (`parallel`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from gog.errors import UserError

T = TypeVar("T")
Figure = TypeVar("Figure", int, float)


@dataclass(frozen=True)
class Ranks:
    """This process among `size`. Whatever returns something of all ranks must be called by all of them."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the one that logs, reports and commits."""
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
        torch.distributed.all_gather_object(found, item)
        return found

    def unshard(self, own: Sequence[T]) -> list[T]:
        """All items again, in the order they had before `part`."""
        parts = self.gather(list(own))
        found: list[Any] = [None] * sum(len(part) for part in parts)
        for rank, part in enumerate(parts):
            found[rank :: self.size] = part
        return found

    def broadcast(self, item: T) -> T:
        """The leader's item, for what must not differ though every rank looks for itself."""
        return self.gather(item)[0]

    def all_reduce_sum(self, figure: Figure) -> Figure:
        """The sum over ranks."""
        return sum(self.gather(figure))

    def share(self, count: int) -> float:
        """This rank's part of what all ranks have counted; exactly 1 for a lone process."""
        return count / sum(self.gather(count))

    def require(self, count: int, setting: str) -> None:
        """Raises UserError when a step has less to do than there are ranks."""
        if count < self.size:
            raise UserError(
                f"{setting} is {count}, which leaves some of {self.size} processes without work",
                where=setting,
                remedy=f"raise it to {self.size} or more, or start fewer processes",
            )


SINGLE = Ranks()


def init(device: Any) -> Ranks:
    """Meets the other processes that torchrun started; SINGLE when it started none or one."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return SINGLE
    import torch.distributed

    backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
    torch.distributed.init_process_group(backend)
    return Ranks(torch.distributed.get_rank(), size)


def shutdown(ranks: Ranks) -> None:
    """Parts from the others, after everything is committed."""
    if ranks.size > 1:
        import torch.distributed

        torch.distributed.destroy_process_group()


def refuse_several(kind: str) -> None:
    """Raises UserError where torchrun started more than one process for a stage that is one."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size > 1:
        raise UserError(
            f"{kind} is one process, and {size} were started",
            where=f"stages.{kind}.workers",
            remedy="set replicas and processes to 1",
        )
