"""Which runs write into a store: each process leaves `writers/<uid>.json` there before it writes anything else.

Problem: the artifacts of a deleted run may be erased only if no other run wrote below the same address, and names of runs
repeat: in other namespaces and clusters, and after a deletion. Decision: the control plane gives each process the uid of the
object that it belongs to. A run of one machine that writes to a bucket has none, and leaves its name. Readers leave nothing.
An entry is removed by nothing but the erasure of the run's artifacts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gog.errors import UserError
from gog.store.checkpoints import Store

FOLDER = "writers"
VARIABLE = "GOG_STORE_WRITER"
"""Environment variable of a process with its Writer as JSON; the control plane sets it."""
_KEY = re.compile(rf"{FOLDER}/(?P<uid>[A-Za-z0-9-]{{1,100}})\.json")


class Writer(BaseModel):
    """A run, or a stage without a run, that writes into a store."""

    model_config = ConfigDict(frozen=True)

    uid: str = Field(pattern=r"^[A-Za-z0-9-]{1,100}$", description="Distinguishes it from all others.")
    kind: str = Field(max_length=63, description="Kind of the object.")
    namespace: str = Field("", max_length=63, description="Its namespace; empty on one machine.")
    name: str = Field(max_length=253, description="Its name.")

    @property
    def key(self) -> str:
        """Key of its entry."""
        return f"{FOLDER}/{self.uid}.json"

    def __str__(self) -> str:
        place = f"{self.namespace}/{self.name}" if self.namespace else f"{self.name}, on one machine"
        return f"{self.kind} {place} (uid {self.uid})"


def of(environment: Mapping[str, str]) -> Writer | None:
    """The writer that a process belongs to; None where the control plane set none. Raises UserError if it is no writer."""
    text = environment.get(VARIABLE)
    if not text:
        return None
    try:
        return Writer.model_validate_json(text)
    except ValidationError:
        remedy = "leave it out, or let the operator set it"
        raise UserError("does not name a writer as JSON", where=VARIABLE, remedy=remedy) from None


def register(store: Store, environment: Mapping[str, str], run: str = "") -> None:
    """Leaves the entry of this process's writer, once.

    Args:
        store: what it is about to write to.
        environment: of the process.
        run: name of a run of one machine, which is registered in buckets only.

    Raises:
        UserError, Unavailable: the store cannot be written.
    """
    writer = of(environment)
    if writer is None and run and store.where.startswith("s3://"):
        writer = Writer(uid=f"local-{run}", kind="GoGRun", name=run)
    if writer is not None:
        store.backend.put_if_absent(writer.key, writer.model_dump_json().encode())


def all_of(store: Store) -> dict[str, Writer]:
    """The registered writers by uid. An entry that cannot be read counts, as one of unknown kind and name."""
    found = {}
    for entry in store.backend.entries(f"{FOLDER}/"):
        matched = _KEY.fullmatch(entry.key)
        value = store.backend.read(entry.key)
        if matched is None or value is None:
            continue
        try:
            found[matched["uid"]] = Writer.model_validate_json(value.data)
        except ValidationError:
            found[matched["uid"]] = Writer(uid=matched["uid"], kind="object", name="unknown")
    return found
