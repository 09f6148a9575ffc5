"""How tools are called, and which answers are kept."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from gog.spec.base import Spec


class CacheSpec(Spec):
    """Answers of tools, by content. Failures are never kept."""

    mode: Literal["off", "live", "record", "replay-or-live", "replay-strict"] = Field(
        "live",
        description="live: in memory, for this process; record: also to `path`; replay-or-live: from `path`, asking for "
        "what is missing and recording it; replay-strict: a miss is a failure.",
    )
    path: str | None = Field(
        None,
        max_length=1024,
        description="SQLite file of the recorded answers. Needed by every mode but off and live. Default: none.",
    )
    max_entries: int = Field(200_000, ge=1, description="In memory; the least recently used go first.")

    @model_validator(mode="after")
    def _recording_needs_a_file(self) -> CacheSpec:
        if self.mode in ("record", "replay-or-live", "replay-strict") and not self.path:
            raise ValueError(f"mode {self.mode} needs a path")
        return self


class ToolsSpec(Spec):
    """How tools are called: one policy for all of them."""

    concurrency: int = Field(4, ge=1, le=1024, description="Calls in flight per tool and process [paper: 4 threads].")
    attempts: int = Field(3, ge=1, le=10, description="Tries per call, the first included [ours].")
    deadline_seconds: float = Field(10.0, gt=0, description="Seconds that one attempt may take [ours].")
    budget_seconds: float = Field(30.0, gt=0, description="Seconds that one call may take with its retries [ours].")
    backoff_seconds: float = Field(
        0.2, ge=0, description="Seconds before the first retry, doubled for each further one, jittered [ours]."
    )
    breaker_failures: int = Field(20, ge=1, description="Failed attempts in a row that open the breaker [ours].")
    breaker_seconds: float = Field(
        5.0, gt=0, description="Seconds that an open breaker refuses before it tries again [ours]."
    )
    top: int = Field(5, ge=1, le=50, description="Results asked of a search [peer].")
    max_candidates: int = Field(5, ge=1, le=20, description="Candidates shown per grounding call [ours].")
    min_box_side: int = Field(4, ge=1, description="Pixels; smaller boxes are dropped [peer: 30 for photographs].")
    max_box_aspect: float = Field(
        100.0, ge=1, description="Longer side by shorter side; longer boxes are dropped [peer]."
    )
    overlap: float = Field(0.7, gt=0, le=1, description="Boxes that overlap more (IoU) count as one [ours].")
    pad: int = Field(2, ge=0, description="Pixels added around a box before it is cut out [ours].")
    crop_side: int | None = Field(
        None,
        ge=1,
        description="Cut squares and bring them to this side, in pixels [ours]. Default: the box is cut as it is; 28 in the "
        "tiny preset.",
    )
    cache: CacheSpec = Field(CacheSpec(), description="Answers of tools, by content. Failures are never kept.")
