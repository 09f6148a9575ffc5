"""A recipe's whole configuration: its stage's settings, and what every stage needs to know besides."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from gog import catalog
from gog.spec.base import Name, Spec, Text
from gog.spec.sources import DataSpec, ModelSpec, StoreSpec
from gog.spec.stages import AgentSettings, CurateSettings, EvaluateSettings, GRPOSettings, SFTSettings, StratifySettings
from gog.spec.tools import ToolsSpec
from gog.spec.traces import StageTracesSpec


class StageConfig(Spec):
    """What every stage needs to know besides its own settings. The spec of a stage's custom resource and its recipe's
    YAML are this plus the settings."""

    kind: ClassVar[str] = ""

    run: Name = Field("run", description="Name of the run; label of metrics.")
    stage: str = Field("", max_length=63, description="Key of the stage's checkpoints in the store. Default: its kind.")
    seed: int = Field(0, ge=0, description="Seeds sampling, order and initialisation.")
    model: ModelSpec = Field(description="The base model, which LoRA adapters are trained for.")
    data: DataSpec = Field(description="Where the questions are: exactly one of world, path, uri.")
    store: StoreSpec = Field(description="Where checkpoints are read from and go to.")
    inputs: dict[Text, Text] = Field(
        default_factory=dict,
        max_length=16,
        description="Checkpoints of earlier stages by kind: `sft: sft/180`, or `sft: sft` for the newest.",
    )
    endpoints: dict[Text, Text] = Field(
        default_factory=dict,
        max_length=16,
        description=f"URL of each tool, or the name of its Endpoint, by tool: {', '.join(catalog.TOOL_NAMES)}.",
    )
    backends: dict[Text, Text] = Field(
        default_factory=dict,
        max_length=16,
        description="What answers each tool, as part of the keys of recorded answers: back end and data of a server that "
        "gog starts. Default: the tool's URL.",
    )
    judge_model: str = Field(
        "",
        max_length=253,
        description="Model to ask the judge for, where its server has several. Default: that of its Endpoint, else its "
        "only one.",
    )
    tools: ToolsSpec = Field(ToolsSpec(), description="How tools and the judge are called.")
    traces: StageTracesSpec | None = Field(None, description="Where traces go. Default: there are none.")
    workdir: str | None = Field(
        None,
        max_length=1024,
        description="Scratch folder for progress and logs. Default: a temporary one; on a cluster /work.",
    )

    @property
    def key(self) -> str:
        return self.stage or self.kind


class CurateConfig(CurateSettings, AgentSettings, StageConfig):
    kind: ClassVar[str] = "curate"


class SFTConfig(SFTSettings, StageConfig):
    kind: ClassVar[str] = "sft"


class StratifyConfig(StratifySettings, AgentSettings, StageConfig):
    kind: ClassVar[str] = "stratify"


class GRPOConfig(GRPOSettings, AgentSettings, StageConfig):
    kind: ClassVar[str] = "grpo"


class EvaluateConfig(EvaluateSettings, AgentSettings, StageConfig):
    kind: ClassVar[str] = "evaluate"


CONFIGS: dict[str, type[StageConfig]] = {
    cls.kind: cls for cls in (CurateConfig, SFTConfig, StratifyConfig, GRPOConfig, EvaluateConfig)
}
NEEDS: dict[str, tuple[str, ...]] = {stage.name: stage.needs for stage in catalog.STAGES}
"""Which stages' checkpoints a stage starts from."""
NEEDS_TOOLS: dict[str, bool] = {stage.name: stage.uses_tools for stage in catalog.STAGES}
