"""What a status records of attempts: how the newest ended, and how often what must succeed in the end has failed."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from gog.spec import Spec
from gog_operator.api.meta import Message


class AttemptEnd(Spec):
    """How an attempt ended."""

    attempt: int = Field(description="Number of the attempt.")
    message: Message = Field(
        "", description="How it ended: `invalid input: …`, `exit 1: …`, `suspended at checkpoint sft/5`."
    )


class ToolCheck(Spec):
    """The check of a run's tools."""

    number: int = Field(0, description="Number of the newest check; written before its job is created.")
    waited_seconds: float = Field(
        0.0, description="Seconds of checks and delays since the run was created or resumed; ends at the patience."
    )
    retry_time: datetime | None = Field(None, description="When the next check starts, after a fault that may pass.")


class Erasure(Spec):
    """Attempts to erase the artifacts of a run that is being deleted."""

    failures: int = Field(0, description="Number of failed attempts.")
    retry_time: datetime | None = Field(None, description="When the next attempt starts.")


class Preparation(Spec):
    """Attempts to fetch sources or to make the dataset that failed and may succeed later."""

    failures: int = Field(0, description="Number of failed attempts in a row.")
    retry_time: datetime | None = Field(None, description="When the next attempt starts.")


class StoreCheck(Spec):
    """Looks at the store that failed since the attempt ended."""

    failures: int = Field(0, description="Number of failed looks.")
    retry_time: datetime | None = Field(None, description="When the store is looked at again.")


class CanaryStatus(Spec):
    """The version that an agent tries, and what was decided about earlier ones."""

    version: str = Field("", max_length=128, description="Version that answers a share of the chats; empty for none.")
    since: datetime | None = Field(None, description="When it was first asked for.")
    looks: int = Field(0, description="Times at which it was tested.")
    previous: str = Field("", max_length=128, description="Version that was served before the present one.")
    rejected: str = Field("", max_length=128, description="Newest version that was rolled back; it is not tried again.")
