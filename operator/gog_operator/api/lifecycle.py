"""The part of a stage's spec that the control plane reads, and not the recipe."""

from __future__ import annotations

from pydantic import Field

from gog import spec as settings

MANAGED_BY = (
    "Controller that manages the object; gog ignores an object of another one. Default: gog.dev/operator, which is gog."
)
SERVICE_ACCOUNT = "Service account of the pods, on a cluster; gives them credentials without a Secret. Default: none."


class Lifecycle(settings.Placement, settings.Patched):
    """What the control plane, not the recipe, reads of a stage."""

    suspend: bool = Field(False, description="Stop at the last checkpoint and wait.")
    backoff_limit: int = Field(3, ge=0, le=100, description="Number of failed attempts that are retried.")
    active_deadline_seconds: int | None = Field(
        None, ge=1, description="Seconds that one attempt may take, from its first running pod. Default: no limit."
    )
    queue_deadline_seconds: int | None = Field(
        None,
        ge=1,
        description="Seconds that one attempt may wait for its first running pod, on a cluster. Default: no limit.",
    )
    ttl_seconds_after_finished: int | None = Field(
        None,
        ge=0,
        description="Seconds after which a finished stage is deleted, on a cluster; the contents of the store are kept. "
        "Default: never.",
    )
    job_ttl_seconds: int | None = Field(
        None,
        ge=0,
        description="Seconds after which the ended jobs of a finished stage are deleted, on a cluster, with their pods and logs; "
        "its status stays. Default: the installation's (the chart's jobs.ttlSeconds).",
    )
    managed_by: str | None = Field(None, max_length=63, description=MANAGED_BY)
    scheduling: settings.SchedulingSpec = Field(
        settings.SchedulingSpec(), description="Scheduling of its pods, on a cluster."
    )
    service_account_name: settings.KubeName | None = Field(None, description=SERVICE_ACCOUNT)
    image: str | None = Field(
        None, max_length=512, description="Image of its pods. Default: the operator's trainer image."
    )
    retention: settings.RetentionSpec | None = Field(None, description="Which checkpoints are kept. Default: all.")
    endpoint_secrets: dict[settings.Text, settings.KubeName] = Field(
        default_factory=dict,
        max_length=8,
        description="Secret with the API key of an endpoint that requires one, by its name under `endpoints`. Default: none.",
    )
    promote_to: settings.StoreSpec | None = Field(
        None, description="Store to which the last checkpoint is copied after it was verified. Default: none."
    )
