"""The servers that a run needs: started by us, or somebody's already."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, model_validator

from gog.spec.base import Spec
from gog.spec.pods import ResourcesSpec

KEY = "GOG_API_KEY"
"""Key of a Secret, and environment variable of a server, with what it asks of its callers."""


def key_variable(role: str) -> str:
    """A caller's environment variable with the key of a tool: imageSearch -> IMAGE_SEARCH_GOG_API_KEY."""
    return f"{re.sub('(?=[A-Z])', '_', role).upper()}_{KEY}"


class FailureInjection(Spec):
    """Failures on purpose, to see what they do to a run. Never set it for a run whose numbers you publish."""

    rate: float = Field(0.0, ge=0, le=1, description="Share of requests that fail.")
    kinds: tuple[Literal["timeout", "429", "5xx", "malformed", "empty"], ...] = Field(
        ("timeout", "429", "5xx", "malformed", "empty"),
        min_length=1,
        max_length=5,
        description="Chosen among with equal chance.",
    )
    seed: int = Field(0, ge=0, description="Which requests fail follows from it.")


class EndpointSpec(Spec):
    """A server the run needs: started by us (backend) or somebody's already (url)."""

    backend: str = Field(
        "world",
        max_length=253,
        description="What answers: `world`, the embedded tools that see pixels and text only; for grounding also "
        "`module:factory` of a detector that the image holds.",
    )
    url: str | None = Field(
        None,
        pattern=r"^https?://",
        max_length=1024,
        description="An existing server; nothing is started then. Default: one is started.",
    )
    model: str = Field(
        "", max_length=253, description="Model name to ask for, where the server has several. Default: its only one."
    )
    secret_name: str | None = Field(
        None,
        max_length=253,
        description="Secret whose GOG_API_KEY the server asks for, on a cluster. On one machine the key is in the "
        "environment: JUDGE_GOG_API_KEY, IMAGE_SEARCH_GOG_API_KEY, … Default: the server asks for none.",
    )
    replicas: int = Field(1, ge=0, le=64, description="Pods, on a cluster; `kubectl scale` changes it.")
    resources: ResourcesSpec = Field(ResourcesSpec(), description="Of each pod, on a cluster.")
    startup_seconds: int = Field(
        600, ge=1, le=86_400, description="Seconds; a server that has not answered by then has failed."
    )
    port: int = Field(0, ge=0, le=65535, description="Local port; 0 takes a free one.")
    failures: FailureInjection = Field(
        FailureInjection(), description="Failures on purpose, to see what they do to a run. Default: none."
    )

    @model_validator(mode="after")
    def _a_url_starts_nothing(self) -> EndpointSpec:
        ours = [name for name in ("backend", "resources", "failures") if name in self.model_fields_set]
        if self.url is not None and ours:
            raise ValueError(f"url names a server that is there, {ours[0]} one to be started: leave one of them out")
        return self


class EndpointsSpec(Spec):
    """The servers of a run, by what they do. What is left out is the embedded world's."""

    grounding: EndpointSpec = Field(EndpointSpec(), description="Proposes candidates: boxes for an expression.")
    image_search: EndpointSpec = Field(EndpointSpec(), description="Finds pages by an image.")
    text_search: EndpointSpec = Field(EndpointSpec(), description="Finds pages by words.")
    judge: EndpointSpec = Field(EndpointSpec(), description="Says whether an answer is right.")
    policy: EndpointSpec | None = Field(
        None, description="Serves the trained policy once the run is complete, on a cluster. Default: nothing does."
    )

    @model_validator(mode="after")
    def _a_policy_of_ours_asks_for_no_key(self) -> EndpointsSpec:
        if self.policy is not None and self.policy.secret_name is not None and self.policy.url is None:
            raise ValueError("policy asks for no key, because the operator, which holds none, loads its checkpoints")
        return self
