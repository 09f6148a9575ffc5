"""How a run is described: one typed model that manifests, custom resources and recipe configurations all embed.

A field's description is its documentation everywhere (`kubectl explain`, `gog validate`, the docs); it says unit and
source, and the default where that is no plain value (a plain one is added where descriptions are shown). Marks: [paper]
the authors' README or a reading note of the paper, [brief] the method as it was described to us, [peer] DeepMMSearch-R1
or MMSearch-R1, whose recipe the paper's matches value for value, [ours] our assumption. Manifests write camelCase,
recipe YAML writes snake_case; both parse into the same class. Settings that a model family needs otherwise (a tiny model
learns at a thousand times the rate) live in `gog_recipes/configs/<family>/<stage>.yaml`, not here. Every text, list and
map is bounded: the API server refuses rules about what it cannot bound.
"""

from __future__ import annotations

from gog.spec.base import POLICIES, STAGES, TOOLS, Gaze, Level, Name, Quantity, Share, Spec, StageName, Text
from gog.spec.endpoints import KEY, EndpointSpec, EndpointsSpec, FailureInjection, key_variable
from gog.spec.pods import (
    LabelKey,
    LabelValue,
    Placement,
    ResourceName,
    ResourcesSpec,
    SchedulingSpec,
    TolerationSpec,
    WorkersSpec,
)
from gog.spec.recipe_configs import (
    CONFIGS,
    NEEDS,
    NEEDS_TOOLS,
    CurateConfig,
    EvaluateConfig,
    GRPOConfig,
    SFTConfig,
    StageConfig,
    StratifyConfig,
)
from gog.spec.runs import GRPO, SFT, Arm, Curate, Evaluate, ImagesSpec, RunSpec, Stages, Stratify
from gog.spec.sources import DataSpec, ModelSpec, RetentionSpec, StoreSpec, WorldSpec
from gog.spec.stages import (
    AgentSettings,
    CurateSettings,
    EvaluateSettings,
    GRPOSettings,
    LoraSettings,
    OptimizerSettings,
    SFTSettings,
    StratifySettings,
)
from gog.spec.tools import CacheSpec, CallPolicy, JudgePolicy, OutageSpec, ToolPolicy, ToolsSpec
from gog.spec.traces import StageTracesSpec, TracesSpec

__all__ = [
    "CONFIGS",
    "GRPO",
    "KEY",
    "NEEDS",
    "NEEDS_TOOLS",
    "POLICIES",
    "SFT",
    "STAGES",
    "TOOLS",
    "AgentSettings",
    "Arm",
    "CacheSpec",
    "CallPolicy",
    "Curate",
    "CurateConfig",
    "CurateSettings",
    "DataSpec",
    "EndpointSpec",
    "EndpointsSpec",
    "Evaluate",
    "EvaluateConfig",
    "EvaluateSettings",
    "FailureInjection",
    "GRPOConfig",
    "GRPOSettings",
    "Gaze",
    "ImagesSpec",
    "JudgePolicy",
    "LabelKey",
    "LabelValue",
    "Level",
    "LoraSettings",
    "ModelSpec",
    "Name",
    "OptimizerSettings",
    "OutageSpec",
    "Placement",
    "Quantity",
    "ResourceName",
    "ResourcesSpec",
    "RetentionSpec",
    "RunSpec",
    "SFTConfig",
    "SFTSettings",
    "SchedulingSpec",
    "Share",
    "Spec",
    "StageConfig",
    "StageName",
    "StageTracesSpec",
    "Stages",
    "StoreSpec",
    "Stratify",
    "StratifyConfig",
    "StratifySettings",
    "Text",
    "TolerationSpec",
    "ToolPolicy",
    "ToolsSpec",
    "TracesSpec",
    "WorkersSpec",
    "WorldSpec",
    "key_variable",
]
