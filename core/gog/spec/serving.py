"""Serving the result: the agent that answers chats with the trained policy, and what a new version has to show first.

An agent outlives the run that starts it: it has a name of its own, and a later run that names it offers it a new version of
the policy. The version passes the evaluation's gate, then answers a share of the chats, and then replaces the one before
or is rolled back. docs/agent.md explains both rules.
"""

from __future__ import annotations

from pydantic import Field

from gog.spec.base import KubeName, Name, Spec
from gog.spec.endpoints import EndpointsSpec
from gog.spec.pods import ResourcesSpec
from gog.spec.sources import ModelSpec, StoreSpec
from gog.spec.stages import AgentSettings
from gog.spec.tools import ToolsSpec


class GateSpec(Spec):
    """What an evaluation must show before its policy is served."""

    min_accuracy: float = Field(
        0.0, ge=0, le=1, description="Least accuracy of the policy over all judged questions of the evaluation [ours]."
    )
    level: float = Field(
        0.05,
        gt=0,
        le=0.5,
        description="The policy is refused if it is less accurate than the one that is served now, on the same questions, "
        "with a p-value at or below this (paired test, as `gog compare`) [ours].",
    )


class CanarySpec(Spec):
    """How a new version is tried on chats."""

    share: float = Field(0.1, gt=0, le=0.5, description="Share of chats that the new version answers meanwhile [ours].")
    chats: int = Field(
        200, ge=5, le=1_000_000, description="Chats of the new version after which it replaces the old one [ours]."
    )
    level: float = Field(
        0.05,
        gt=0,
        le=0.5,
        description="Chance to roll back a version that is no worse: of all tests of a canary together [ours].",
    )
    max_slowdown: float = Field(
        1.5,
        ge=1,
        le=100,
        description="Ratio of the new version's to the old one's time for a chat that is no fault [ours].",
    )


class ChatLimits(Spec):
    """Limits of an agent's chats."""

    rate_per_minute: float = Field(0.0, ge=0, description="Chats per minute of each caller; 0: any number [ours].")
    chats: int = Field(32, ge=1, le=4096, description="Chats that a pod plays at once [ours].")
    waiting: int = Field(
        64, ge=0, le=65_536, description="Chats that may wait for a place; further ones are refused [ours]."
    )
    seconds: float = Field(120.0, gt=0, le=3600, description="Time that a chat may take [ours].")
    turn_seconds: float = Field(60.0, gt=0, le=3600, description="Time that one attempt at a turn may take [ours].")
    temperature: float = Field(
        0.0, ge=0, le=2, description="Sampling temperature; 0 takes the most probable token [ours]."
    )


class AgentServeSpec(Spec):
    """The agent's server."""

    name: Name | None = Field(
        None, description="Name of its ToolServer, by which later runs offer it new versions. Default: `<run>-agent`."
    )
    keys_secret_name: KubeName | None = Field(
        None,
        description="Secret with the file keys.json, {CALLER: KEY}, on a cluster: chats require one of these keys. On one "
        "machine GOG_AGENT_KEYS names such a file. Default: no key is required.",
    )
    limits: ChatLimits = Field(ChatLimits(), description="Limits of its chats.")
    replicas: int = Field(1, ge=0, le=64, description="Pods, on a cluster.")
    resources: ResourcesSpec = Field(ResourcesSpec(), description="Resources of each pod, on a cluster.")
    port: int = Field(0, ge=0, le=65535, description="Local port; 0 takes a free one.")


class ServeSpec(Spec):
    """How the result is served once the run is complete."""

    agent: AgentServeSpec = Field(AgentServeSpec(), description="The agent's server.")
    gate: GateSpec = Field(GateSpec(), description="What the evaluation must show first.")
    canary: CanarySpec = Field(CanarySpec(), description="How a new version is tried on chats.")
    store: StoreSpec | None = Field(
        None, description="Store of the agent's versions. Default: that of the run which starts the agent."
    )


class AgentSpec(Spec):
    """What an agent answers with: a policy, tools, and the caps of an episode."""

    model: ModelSpec = Field(description="The base model of its policy.")
    endpoints: EndpointsSpec = Field(EndpointsSpec(), description="The servers of its policy and its tools.")
    tools: ToolsSpec = Field(ToolsSpec(), description="How its tools are called.")
    settings: AgentSettings = Field(AgentSettings(), description="Caps of an episode.")
    limits: ChatLimits = Field(ChatLimits(), description="Limits of its chats.")
    canary: CanarySpec = Field(CanarySpec(), description="How a new version is tried on chats.")
    keys_secret_name: KubeName | None = Field(
        None, description="Secret with the file keys.json, {CALLER: KEY}. Default: no key is required."
    )
    trainer_image: str | None = Field(
        None, max_length=512, description="Image of its policy's server. Default: the operator's trainer image."
    )
    tools_image: str | None = Field(
        None, max_length=512, description="Image of its tools' servers. Default: the operator's tools image."
    )
