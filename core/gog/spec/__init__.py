"""The description of a run: typed models that manifests, custom resources and recipe configurations embed.

The description of a field is its documentation everywhere (`kubectl explain`, `gog validate`, docs/reference.md). It
gives unit and source, and the default unless that is a plain value; plain defaults are added to displayed descriptions.
Sources: [paper] the authors' README or a reading note of the paper; [brief] a description of the method; [peer]
DeepMMSearch-R1 or MMSearch-R1, whose recipe the paper's matches value for value; [ours] our assumption. Manifests write
camelCase, recipe YAML snake_case; both parse into the same classes. What a model family needs otherwise (a tiny model
learns at a thousand times the rate) is in `gog_recipes/configs/<family>/<stage>.yaml`. Every text, list and map is
bounded, because the API server refuses rules about unbounded ones.
"""

from __future__ import annotations

from gog.spec.base import POLICIES, STAGES, TOOLS, Gaze, KubeName, Level, Name, Quantity, Share, Spec, StageName, Text
from gog.spec.curation import CurateSettings
from gog.spec.endpoints import (
    KEY,
    VLLM_PROGRAM,
    EndpointSpec,
    EndpointsSpec,
    FailureInjection,
    JudgeEndpointSpec,
    ModelEndpoint,
    ModelServerSpec,
    PolicyEndpointSpec,
    key_variable,
)
from gog.spec.evaluation import BenchmarkSettings, EvaluateSettings
from gog.spec.pod_patches import Patched, PodPatch
from gog.spec.pods import (
    GPU_RESOURCE,
    LabelKey,
    LabelValue,
    Placement,
    ResourceName,
    ResourcesSpec,
    SchedulingSpec,
    TolerationSpec,
    WorkersSpec,
)
from gog.spec.profiling import ProfileSettings
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
from gog.spec.serving import AgentServeSpec, AgentSpec, CanarySpec, ChatLimits, GateSpec, ServeSpec
from gog.spec.sources import (
    DataSpec,
    FetchedSources,
    ModelCacheSpec,
    ModelSpec,
    PixelBounds,
    RetentionSpec,
    StoreSpec,
    WorldSpec,
)
from gog.spec.stages import (
    AgentSettings,
    EngineSettings,
    GRPOSettings,
    LoraSettings,
    Offload,
    OptimizerSettings,
    Quantization,
    SFTSettings,
    StratifySettings,
    ThumbnailSettings,
)
from gog.spec.tools import (
    BudgetSpec,
    CacheSpec,
    CallPolicy,
    FallbackSpec,
    JudgePolicy,
    OutageSpec,
    PolicyServerSpec,
    ToolPolicy,
    ToolsSpec,
)
from gog.spec.traces import StageTracesSpec, TracesSpec

__all__ = [
    "CONFIGS",
    "GPU_RESOURCE",
    "GRPO",
    "KEY",
    "NEEDS",
    "NEEDS_TOOLS",
    "POLICIES",
    "SFT",
    "STAGES",
    "TOOLS",
    "VLLM_PROGRAM",
    "AgentServeSpec",
    "AgentSettings",
    "AgentSpec",
    "Arm",
    "BenchmarkSettings",
    "BudgetSpec",
    "CacheSpec",
    "CallPolicy",
    "CanarySpec",
    "ChatLimits",
    "Curate",
    "CurateConfig",
    "CurateSettings",
    "DataSpec",
    "EndpointSpec",
    "EndpointsSpec",
    "EngineSettings",
    "Evaluate",
    "EvaluateConfig",
    "EvaluateSettings",
    "FailureInjection",
    "FallbackSpec",
    "FetchedSources",
    "GRPOConfig",
    "GRPOSettings",
    "GateSpec",
    "Gaze",
    "ImagesSpec",
    "JudgeEndpointSpec",
    "JudgePolicy",
    "KubeName",
    "LabelKey",
    "LabelValue",
    "Level",
    "LoraSettings",
    "ModelCacheSpec",
    "ModelEndpoint",
    "ModelServerSpec",
    "ModelSpec",
    "Name",
    "Offload",
    "OptimizerSettings",
    "OutageSpec",
    "Patched",
    "PixelBounds",
    "Placement",
    "PodPatch",
    "PolicyEndpointSpec",
    "PolicyServerSpec",
    "ProfileSettings",
    "Quantity",
    "Quantization",
    "ResourceName",
    "ResourcesSpec",
    "RetentionSpec",
    "RunSpec",
    "SFTConfig",
    "SFTSettings",
    "SchedulingSpec",
    "ServeSpec",
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
    "ThumbnailSettings",
    "TolerationSpec",
    "ToolPolicy",
    "ToolsSpec",
    "TracesSpec",
    "WorkersSpec",
    "WorldSpec",
    "key_variable",
]
