"""Settings of the recipe evaluate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from gog import benchmarks
from gog.spec.base import POLICIES, Spec
from gog.spec.endpoints import ModelEndpoint
from gog.spec.stages import EngineSettings

if TYPE_CHECKING:
    PolicyName = str
else:
    PolicyName = Literal[tuple(POLICIES)]


class BenchmarkSettings(Spec):
    """One benchmark of an evaluation."""

    split: str = Field(max_length=63, description="Questions to answer: those in `<split>.jsonl` of the dataset.")
    name: str | None = Field(None, max_length=63, description="Its name in tables. Default: that of the split [ours].")
    size: int | None = Field(
        None,
        ge=1,
        description="Number of questions that the file must have. Default: that of the public benchmark of this name; the "
        "files of others are not counted [ours].",
    )

    @property
    def called(self) -> str:
        """Its name."""
        return self.name or self.split

    @property
    def expected(self) -> int | None:
        """Number of questions that it must have; None for any."""
        public = benchmarks.named(self.called)
        return self.size or (benchmarks.SIZES[public] if public else None)


class EvaluateSettings(EngineSettings):
    """How policies are compared on held-out questions."""

    split: str = Field(
        "test", max_length=63, description="Questions to answer: those in `<split>.jsonl` of the dataset."
    )
    questions: int | None = Field(
        None, ge=1, description="Number of questions of each benchmark, from the first on. Default: all."
    )
    benchmarks: tuple[BenchmarkSettings, ...] = Field(
        (),
        max_length=16,
        description="Several benchmarks, in place of `split`: every policy answers all of them, each has its own rows, and the "
        "means over them are macro (equal weight for each) and micro (for each question). Default: `split` alone [ours].",
    )
    policies: tuple[PolicyName, ...] = Field(
        ("direct", "whole-image", "sft", "grpo"),
        min_length=1,
        max_length=16,
        description="Policies to compare. direct: no tools; whole-image: image search of the whole image only; "
        "first-candidate: searches the best-scored candidate without seeing it (all three with the SFT weights); "
        "prompted: the base model; full-search: the base model with the results of a whole-image search and a text search, "
        "which it does not choose; sft; grpo: the trained adapters; endpoint: the model of `endpoint`, with all tools; "
        "endpoint-direct: the same without tools.",
    )
    endpoint: ModelEndpoint | None = Field(
        None,
        description="Model of the policies endpoint and endpoint-direct, which gog does not train. Default: none [ours].",
    )
    samples: int = Field(
        1,
        ge=1,
        le=64,
        description="Times that each question is answered: its verdict is then the mean of its answers', and pass@k is "
        "estimated for k up to this number. More than one needs a temperature above 0 [ours].",
    )
    temperature: float = Field(0.0, ge=0, description="Sampling temperature; 0 takes the most probable token [ours].")
    bootstrap: int = Field(10_000, ge=100, description="Bootstrap resamples for confidence intervals [ours].")
    keep_trajectories: int = Field(
        60, ge=0, description="Trajectories of each policy that are kept for the report [ours]."
    )

    @model_validator(mode="after")
    def _its_policies_have_an_endpoint(self) -> EvaluateSettings:
        if self.endpoint is None and not {"endpoint", "endpoint-direct"}.isdisjoint(self.policies):
            raise ValueError("policies endpoint and endpoint-direct need endpoint: {url: …, model: …}")
        return self

    @model_validator(mode="after")
    def _benchmarks_have_names_of_their_own(self) -> EvaluateSettings:
        names = [each.called for each in self.benchmarks]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two benchmarks are called {twice}: give each a name of its own")
        return self

    @model_validator(mode="after")
    def _samples_differ(self) -> EvaluateSettings:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError("samples above 1 need a temperature above 0: at 0 all answers to a question are the same")
        return self

    @property
    def compared_on(self) -> tuple[BenchmarkSettings, ...]:
        """The benchmarks whose questions are answered."""
        return self.benchmarks or (BenchmarkSettings(split=self.split),)
