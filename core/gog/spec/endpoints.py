"""The servers that a run needs, started by gog or existing already, and models that it compares with its own.

What answers inside a server that gog starts is a back end: `backend` names it (`world`, or another that the role's
server registers, or `module:factory`), `options` configures it. Both reach the server as `--backend NAME` and
`--options JSON`; only the server can tell whether they are right.
"""

from __future__ import annotations

import json
import math
import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, create_model, field_validator, model_validator

from gog import catalog
from gog.spec.base import PLAIN_URL, KubeName, Spec, Text, YamlWords
from gog.spec.pods import ResourcesSpec

VLLM_PROGRAM = "GOG_VLLM_PROGRAM"
"""Environment variable with the program of vLLM, which has an environment of its own; default: `vllm` on the path."""
KEY = "GOG_API_KEY"
"""Key of a Secret, and environment variable of a server: the API key that the server requires of its callers."""


def key_variable(role: str) -> str:
    """Environment variable of a caller that holds a tool's API key: imageSearch -> IMAGE_SEARCH_GOG_API_KEY."""
    return f"{re.sub('(?=[A-Z])', '_', role).upper()}_{KEY}"


class FailureInjection(Spec):
    """Failures injected on purpose, to see what they do to a run. Never set it for a run whose results you publish."""

    rate: float = Field(0.0, ge=0, le=1, description="Fraction of requests that fail.")
    kinds: tuple[Annotated[Literal["timeout", "429", "5xx", "malformed", "empty"], YamlWords()], ...] = Field(
        ("timeout", "429", "5xx", "malformed", "empty"),
        min_length=1,
        max_length=5,
        description="Kinds of failure, each equally likely.",
    )
    seed: int = Field(0, ge=0, description="Seed that decides which requests fail.")


MAX_OPTIONS_BYTES, MAX_OPTIONS_DEPTH = 8_192, 8


def _plain_options(options: dict[str, Any]) -> dict[str, Any]:
    """Options travel as JSON on a command line: plain values, finite, and small."""
    _require_plain(options, "options", MAX_OPTIONS_DEPTH)
    size = len(json.dumps(options).encode())
    if size > MAX_OPTIONS_BYTES:
        raise ValueError(f"options are {size:,} bytes of JSON, more than {MAX_OPTIONS_BYTES:,}: name a file instead")
    return options


def _require_plain(value: Any, where: str, depth: int) -> None:
    if depth == 0:
        raise ValueError(f"{where}: nested more than {MAX_OPTIONS_DEPTH} levels deep")
    if isinstance(value, dict):
        for key, each in value.items():
            if not isinstance(key, str):
                raise ValueError(f"{where}: key {key!r} is not text: quote it")
            _require_plain(each, f"{where}.{key}", depth - 1)
    elif isinstance(value, list | tuple):
        for place, each in enumerate(value):
            _require_plain(each, f"{where}[{place}]", depth - 1)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where}: {value} is not a finite number")
    elif value is not None and not isinstance(value, str | int | float):
        raise ValueError(f"{where}: a {type(value).__name__} is no JSON value: quote it")


Options = Annotated[dict[Text, Any], Field(max_length=64), AfterValidator(_plain_options)]
"""What a back end's factory is called with: JSON values by name."""


class EndpointSpec(Spec):
    """A server that the run needs: one that gog starts (backend) or one that exists already (url)."""

    backend: str = Field(
        "world",
        max_length=253,
        pattern="^[A-Za-z_][-A-Za-z0-9_.]*(:[A-Za-z_][A-Za-z0-9_]*)?$",
        description="Back end that answers in the server that gog starts: a name that `gog serve` knows for this role "
        "(`world` is the embedded world's), or `module:factory`, a function in the server's image that is called with "
        "`options` and returns the back end.",
    )
    options: Options = Field(
        default_factory=dict,
        description="Options of the back end, as its documentation names them: `{index: /data/wiki, device: cuda}`. At "
        "most 8 KiB of JSON; no secrets. Default: none.",
    )
    url: str | None = Field(
        None,
        pattern=PLAIN_URL,
        max_length=1024,
        description="Base URL of an existing server; gog starts none then. Default: gog starts one.",
    )
    model: str = Field(
        "",
        max_length=253,
        description="Model name to send in requests, where the server has several. Default: its only one.",
    )
    secret_name: KubeName | None = Field(
        None,
        description="Secret with the key GOG_API_KEY that the server requires, on a cluster. On one machine the key is in "
        "the environment: JUDGE_GOG_API_KEY, IMAGE_SEARCH_GOG_API_KEY, … Default: the server requires no key.",
    )
    replicas: int = Field(1, ge=0, le=64, description="Pods, on a cluster; `kubectl scale` changes it.")
    resources: ResourcesSpec = Field(ResourcesSpec(), description="Resources of each pod, on a cluster.")
    startup_seconds: int = Field(
        600,
        ge=1,
        le=86_400,
        description="Seconds in which a server must become ready, from its first running pod; after that its start has "
        "failed.",
    )
    port: int = Field(0, ge=0, le=65535, description="Local port; 0 takes a free one.")
    failures: FailureInjection = Field(
        FailureInjection(), description="Failures injected on purpose, to see what they do to a run. Default: none."
    )
    image: str | None = Field(
        None,
        max_length=512,
        description="Image of the server's pods, on a cluster: one with gog and the back end, or with runtime vllm one that "
        "has `vllm` on its path. Default: the operator's image for the role.",
    )

    @model_validator(mode="after")
    def _a_url_starts_nothing(self) -> EndpointSpec:
        configures = ("backend", "options", "resources", "failures", "image")
        ours = [name for name in configures if name in self.model_fields_set]
        if self.url is not None and ours:
            raise ValueError(
                f"url names an existing server, {ours[0]} configures one that gog starts: leave one of them out"
            )
        return self


class ModelServerSpec(EndpointSpec):
    """A server of a language model: gog's own, or a vLLM."""

    runtime: Literal["gog", "vllm"] = Field(
        "gog",
        description="What runs in the server that gog starts. gog: gog's own server, of a back end or of checkpoints; vllm: a "
        "vLLM with `options` as its own options, on GPUs unless `resources` name none. On a cluster `image` is any image with "
        "`vllm` on its path; on one machine GOG_VLLM_PROGRAM names the program.",
    )

    @model_validator(mode="after")
    def _vllm_has_no_back_end_of_ours(self) -> Self:
        if self.runtime != "vllm":
            return self
        if self.url is not None:
            raise ValueError("url names an existing server, runtime: vllm starts one: leave one of them out")
        ours = [name for name in ("backend", "failures") if name in self.model_fields_set]
        if ours:
            raise ValueError(f"{ours[0]} is of gog's own server: leave it out with runtime: vllm")
        return self


class JudgeEndpointSpec(ModelServerSpec):
    """The judge's server."""

    base: str = Field(
        "",
        max_length=1024,
        description="Model of a judge with runtime vllm, as a run's model.base; any that vLLM serves. Default: none.",
    )
    base_secret_name: KubeName | None = Field(
        None, description="Secret with HF_TOKEN, as a run's model.secretName. Default: none."
    )


class PolicyEndpointSpec(ModelServerSpec):
    """The policy's server: it samples the turns of stages with `engine: vllm`, and serves the trained policy."""


_KINDS: dict[str, type[EndpointSpec]] = {"judge": JudgeEndpointSpec}
"""Classes of the tools that have more fields than the rest."""
_BY_TOOL: dict[str, Any] = {
    tool.field: (
        (EndpointSpec | None, Field(None, description=f"{tool.help} Default: the run does not have this tool."))
        if tool.optional
        else (kind := _KINDS.get(tool.name, EndpointSpec), Field(kind(), description=tool.help))
    )
    for tool in catalog.TOOLS
}
_ByTool: Any = create_model("_ByTool", __base__=Spec, **_BY_TOOL)


class EndpointsSpec(_ByTool):
    """The servers of a run, by role. A role that is left out is served by the embedded world, or not at all if the run
    need not have it."""

    policy: PolicyEndpointSpec | None = Field(
        None,
        description="The policy's server. With `engine: vllm` in a stage it samples the stage's turns: url is that of a "
        "vLLM, or of several replicas, separated by commas, or runtime: vllm starts one. Once the run is complete, it serves "
        "the trained policy, on a cluster. Default: none.",
    )

    @model_validator(mode="after")
    def _a_policy_of_ours_requires_no_key(self) -> EndpointsSpec:
        if self.policy is not None and self.policy.secret_name is not None and self.policy.url is None:
            raise ValueError("policy requires no key, because the operator, which holds none, loads its checkpoints")
        return self


class ModelEndpoint(Spec):
    """A model behind OpenAI's chat protocol, to compare with trained policies. Text in, text out: nothing can be trained
    on it."""

    url: str = Field(pattern=PLAIN_URL, max_length=1024, description="Base URL of the server: https://api.openai.com.")
    model: str = Field(min_length=1, max_length=253, description="Model to request.")
    secret_name: KubeName | None = Field(
        None,
        description="Secret with the key GOG_API_KEY that the server requires, on a cluster. On one machine the key is in "
        "ENDPOINT_GOG_API_KEY. Default: the server requires no key.",
    )
    max_tokens: int = Field(
        4096, ge=1, description="Tokens that a turn may take, reasoning that the server does not show included [ours]."
    )
    context_tokens: int = Field(
        32_768,
        ge=1024,
        description="Tokens that a conversation may take, in place of the stage's maxTokens; estimated as four bytes of text "
        "each, because the endpoint returns none [ours].",
    )
    usd_per_million_prompt_tokens: float = Field(
        0.0, ge=0, description="Price of what the model reads, in US dollars; counts against `tools.budget` [ours]."
    )
    usd_per_million_completion_tokens: float = Field(
        0.0, ge=0, description="Price of what it writes, reasoning included; counts against `tools.budget` [ours]."
    )
    request: Options = Field(
        default_factory=dict,
        description="Further fields of requests, as the server names them: `{reasoning_effort: low}`. Default: none [ours].",
    )

    @field_validator("request")
    @classmethod
    def _the_conversation_is_not_replaced(cls, request: dict[str, Any]) -> dict[str, Any]:
        taken = sorted({"model", "messages", "max_tokens", "stream", "n", "tools"} & set(request))
        if taken:
            raise ValueError(f"{taken[0]} cannot be set here")
        return request
