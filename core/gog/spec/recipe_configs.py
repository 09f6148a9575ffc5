"""The complete configuration of a recipe: the settings of its stage, and those that every stage has."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from gog import catalog
from gog.spec.base import MAX_SEED, SERVER, Name, Spec, Text
from gog.spec.curation import CurateSettings
from gog.spec.evaluation import EvaluateSettings
from gog.spec.sources import DataSpec, ModelSpec, StoreSpec
from gog.spec.stages import AgentSettings, GRPOSettings, SFTSettings, StratifySettings
from gog.spec.tools import ToolsSpec
from gog.spec.traces import StageTracesSpec


class StageConfig(Spec):
    """Settings that every stage has. The spec of a stage's custom resource and the YAML of its recipe are these and the
    stage's own."""

    kind: ClassVar[str] = ""

    run: Name = Field("run", description="Name of the run, in logs and traces.")
    stage: str = Field("", max_length=63, description="Key of the stage's checkpoints in the store. Default: its kind.")
    seed: int = Field(0, ge=0, le=MAX_SEED, description="Seed of sampling, order and initialisation.")
    model: ModelSpec = Field(description="The base model, for which LoRA adapters are trained.")
    data: DataSpec = Field(description="The dataset: exactly one of world, path, uri.")
    store: StoreSpec = Field(description="Store that checkpoints are read from and written to.")
    inputs: dict[Text, Text] = Field(
        default_factory=dict,
        max_length=16,
        description="Checkpoints of earlier stages, by kind: `sft: sft/180`, or `sft: sft` for the newest.",
    )
    endpoints: dict[Text, Annotated[str, Field(pattern=SERVER, max_length=1024)]] = Field(
        default_factory=dict,
        max_length=16,
        description=f"URL of each tool, or the name of its ToolServer, by tool: {', '.join(catalog.TOOL_NAMES)}.",
    )
    backends: dict[Text, Text] = Field(
        default_factory=dict,
        max_length=16,
        description="Identity of what answers each tool, part of the keys of recorded answers: back end and data of a server "
        "that gog starts. Default: the tool's URL.",
    )
    judge_model: str = Field(
        "",
        max_length=253,
        description="Model to request from the judge's server, where it has several. Default: that of its ToolServer, else the "
        "server's only one.",
    )
    tools: ToolsSpec = Field(ToolsSpec(), description="How tools and the judge are called.")
    traces: StageTracesSpec | None = Field(None, description="Collector that traces are sent to. Default: no traces.")
    workdir: str | None = Field(
        None,
        max_length=1024,
        description="Scratch folder for progress and logs. Default: a temporary folder; on a cluster /work.",
    )

    @property
    def key(self) -> str:
        """Key of the stage's checkpoints in the store."""
        return self.stage or self.kind


class CurateConfig(CurateSettings, AgentSettings, StageConfig):
    """Configuration of the recipe curate."""

    kind: ClassVar[str] = "curate"


class SFTConfig(SFTSettings, StageConfig):
    """Configuration of the recipe sft."""

    kind: ClassVar[str] = "sft"


class StratifyConfig(StratifySettings, AgentSettings, StageConfig):
    """Configuration of the recipe stratify."""

    kind: ClassVar[str] = "stratify"


class GRPOConfig(GRPOSettings, AgentSettings, StageConfig):
    """Configuration of the recipe grpo."""

    kind: ClassVar[str] = "grpo"


class EvaluateConfig(EvaluateSettings, AgentSettings, StageConfig):
    """Configuration of the recipe evaluate."""

    kind: ClassVar[str] = "evaluate"


CONFIGS: dict[str, type[StageConfig]] = {
    cls.kind: cls for cls in (CurateConfig, SFTConfig, StratifyConfig, GRPOConfig, EvaluateConfig)
}
"""Class of each recipe's configuration, by stage."""
NEEDS: dict[str, tuple[str, ...]] = {stage.name: stage.needs for stage in catalog.STAGES}
"""Stages whose checkpoints a stage starts from."""
NEEDS_TOOLS: dict[str, bool] = {stage.name: stage.uses_tools for stage in catalog.STAGES}
"""Whether a stage calls tools and the judge."""
