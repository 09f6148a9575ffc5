"""What each process of a run has spent, as small objects in the run's store, so that budgets hold for the whole run.

A process replaces its own object every few seconds while it spends, and reads the others' if there is a budget. So
budgets include earlier stages and attempts, on one machine and on a cluster alike, without a server of their own. What
a killed process spent since its last report is lost.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable

from pydantic import ValidationError

from gog.calls.spend import Account, Spend
from gog.errors import UserError
from gog.spec import StageConfig
from gog.store import Store, Unavailable, open_store

FOLDER = "spend/"
SECONDS = 10.0
"""Seconds between two reports."""

log = logging.getLogger(__name__)


def read(store: Store, *, without: str = "") -> Spend:
    """What all processes of a run have reported. An object that is no report is ignored.

    Args:
        store: of the run.
        without: key of a report to leave out.
    """
    found = []
    for entry in store.objects(FOLDER):
        data = store.get_object(entry.key) if entry.key != without else None
        if data is not None:
            try:
                found.append(Spend.model_validate_json(data))
            except ValidationError:
                log.warning("%s is not a report of spending", entry.key)
    return Spend.sum_of(found)


class SpendLog:
    """Reports what an account spends. Its methods run in the account's event loop."""

    def __init__(self, open_store: Callable[[], Store], stage: str, account: Account) -> None:
        """
        Args:
            open_store: opens the run's store; called in a worker thread when there is something to read or to write.
            stage: key of the stage.
            account: what to report.
        """
        self._open_store, self._account = open_store, account
        self._store: Store | None = None
        self._key = f"{FOLDER}{stage}/{uuid.uuid4().hex}.json"
        self._written = b""
        self._exchanging = asyncio.Lock()  # otherwise an older report could replace the last one

    @classmethod
    def of_stage(cls, config: StageConfig, account: Account) -> SpendLog:
        """Reports to the store of a stage's run."""
        return cls(lambda: open_store(config.store), config.key, account)

    async def sync(self) -> None:
        """Writes the own report and reads those of others, as far as needed. Raises Unavailable, UserError."""
        async with self._exchanging:
            own = self._account.own
            is_due = self._account.is_limited or own.total().usd > 0
            data = own.model_dump_json().encode() if is_due and own.tools else b""
            if is_due and (self._account.is_limited or data != self._written):
                others = await asyncio.to_thread(self._exchange, data)
                if others is not None:
                    self._account.others = others

    async def run(self) -> None:
        """Reports until it is cancelled; a store that does not answer is tried again."""
        while True:
            await asyncio.sleep(SECONDS)
            await self.report()

    async def report(self) -> None:
        """As `sync`, but a store that does not answer is only logged."""
        try:
            await self.sync()
        except (Unavailable, UserError) as error:
            log.warning("cannot report spending: %s", error)

    def _exchange(self, data: bytes) -> Spend | None:
        self._store = self._store or self._open_store()
        if data and data != self._written:
            self._store.put_object(self._key, data, "application/json")
            self._written = data
        return read(self._store, without=self._key) if self._account.is_limited else None
