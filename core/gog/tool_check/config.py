"""What a check calls: the servers of a run by role, how they are called, and where their keys come from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import Field

from gog import catalog
from gog.spec import ModelEndpoint, ToolsSpec, key_variable
from gog.spec.base import Spec

COMPARED = "endpoint"
"""Name of the model that an evaluation compares."""
FALLBACK = "Fallback"
"""Suffix of a tool's name for the server that is called where its own has failed."""


class CheckConfig(Spec):
    """The servers of a run, as `gog tools check --config` reads them."""

    endpoints: dict[str, str] = Field(description="Base URL of each tool, by role.")
    judge_model: str = Field("", description="Model to request from the judge's server; empty for its only one.")
    tools: ToolsSpec = Field(ToolsSpec(), description="How the run calls its tools.")
    endpoint: ModelEndpoint | None = Field(None, description="The model that the evaluation compares.")
    backends: dict[str, str] = Field(default_factory=dict, description="Back end of each server that gog starts.")
    secrets: dict[str, str] = Field(default_factory=dict, description="Secret with the key of each server, by name.")
    on_cluster: bool = Field(False, description="Whether keys come from Secrets rather than from the environment.")


@dataclass(frozen=True)
class Target:
    """One server to call."""

    name: str
    """`judge`, `textSearchFallback`, or `endpoint` for the model that an evaluation compares."""
    tool: str
    """Name of the tool; COMPARED for the compared model."""
    url: str
    """Base URL."""
    model: str = ""
    """Model to request; empty for the server's only one."""
    backend: str = ""
    """Back end of a server that gog starts; empty for an existing server."""
    key_source: str = ""
    """Where the key for it belongs, for remedies: `JUDGE_GOG_API_KEY`, or a key of a Secret."""

    @property
    def title(self) -> str:
        """As people read it: `text search (fallback)`."""
        if self.tool == COMPARED:
            return "compared model"
        title = catalog.SERVER_BY_NAME[self.tool].title
        return f"{title} (fallback)" if self.name != self.tool else title

    @property
    def where(self) -> str:
        """The field of a manifest that names it."""
        if self.tool == COMPARED:
            return "stages.evaluate.endpoint"
        return f"tools.{self.tool}.fallback" if self.name != self.tool else f"endpoints.{self.tool}"

    @property
    def policy_field(self) -> str:
        """The field of a manifest that holds its deadline."""
        return "tools.policyServer" if self.tool == COMPARED else f"tools.{self.tool}"


def targets(config: CheckConfig) -> Iterator[Target]:
    """The servers to call: each tool's own and its fallback, and the compared model."""
    for tool, url in config.endpoints.items():
        model = config.judge_model if tool == "judge" else ""
        yield Target(
            tool, tool, url, model, config.backends.get(tool, ""), _key_source(config, tool, f"endpoints.{tool}")
        )
        fallback = config.tools.fallback(tool)
        if fallback is not None:
            name = f"{tool}{FALLBACK}"
            source = _key_source(config, name, f"tools.{tool}.fallback")
            yield Target(name, tool, fallback.url, fallback.model, key_source=source)
    if config.endpoint is not None:
        source = _key_source(config, COMPARED, "stages.evaluate.endpoint")
        yield Target(COMPARED, COMPARED, config.endpoint.url, config.endpoint.model, key_source=source)


def _key_source(config: CheckConfig, name: str, field: str) -> str:
    if not config.on_cluster:
        return f"the environment variable {key_variable(name)}"
    secret = config.secrets.get(name)
    return f"GOG_API_KEY of the Secret {secret}" if secret else f"a Secret that {field}.secretName names"
