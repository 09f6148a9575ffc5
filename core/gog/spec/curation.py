"""Settings of the recipe curate."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from gog.spec.base import Spec, Text
from gog.spec.endpoints import ModelEndpoint

VerifyRule = Literal["giveaway", "repeated", "format", "answer", "crop", "leak", "evidence"]
"""Names of the rules in gog.curation."""


class CurateSettings(Spec):
    """How demonstrations are made, and which of them are kept."""

    trajectories: int = Field(
        5750, ge=1, description="Number of trajectories to make, at most [brief: GoG-Instruct has 5,750]."
    )
    candidates: int | None = Field(
        None,
        ge=1,
        description="Questions that are drawn for them; more than trajectories where rules leave some out. Default: as many "
        "as trajectories [ours].",
    )
    teacher: Literal["scripted", "endpoint"] = Field(
        "scripted",
        description="scripted: follows the evidence marks of the dataset; endpoint: the model of `endpoint` plays through the "
        "run's tools, with the prompt of the policy [ours].",
    )
    teacher_accuracy: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Fraction of demonstrations without a mistake; the embedded world uses 0.5, in place of a teacher "
        "that is good but careless, so that RL has something to improve [ours].",
    )
    endpoint: ModelEndpoint | None = Field(
        None, description="Model of the teacher endpoint and of the uncertainty filter. Default: none [ours]."
    )
    attempts: int = Field(
        1,
        ge=1,
        le=64,
        description="Episodes that the teacher endpoint plays per question; the first that breaks no rule is kept [ours].",
    )
    temperature: float = Field(0.7, ge=0, description="Sampling temperature of the model of `endpoint` [ours].")
    uncertainty_samples: int = Field(
        4,
        ge=0,
        le=64,
        description="Answers without search that the model of `endpoint` gives to each question; a question that it answers "
        "right every time is left out. 0: no filter; without `endpoint` there is none [paper: 4].",
    )
    verify: tuple[VerifyRule, ...] = Field(
        ("giveaway", "repeated", "format", "answer", "crop", "leak", "evidence"),
        max_length=7,
        description="Rules that a demonstration must not break. giveaway: the question contains its answer; repeated: another "
        "question is the same; format: a malformed turn, or no answer; answer: the judge found it wrong; crop: the last gaze "
        "is at another object than marked; leak: the answer is written before a result shows it; evidence: no result "
        "contains the answer. None in the tiny preset [ours, after the checks by humans in the paper].",
    )
    search_share: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Fraction of demonstrations that search; those of which there are too many are left out. Default: as "
        "they come; the paper has 0.565 [ours].",
    )
    against: tuple[Text, ...] = Field(
        (),
        max_length=32,
        description="Datasets whose questions must not be learned from, such as the benchmarks of the evaluation: folders, or "
        "s3:// addresses as of `data.uri`. Default: none [ours].",
    )

    @model_validator(mode="after")
    def _a_teacher_has_what_it_needs(self) -> Self:
        if self.teacher == "endpoint" and self.endpoint is None:
            raise ValueError("teacher endpoint needs endpoint: {url: …, model: …}")
        if self.teacher == "scripted" and self.attempts > 1:
            raise ValueError(
                "attempts is of the teacher endpoint: the scripted one plays a question the same way each time"
            )
        return self
