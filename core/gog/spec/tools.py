"""How tools and the judge are called, how long an outage is waited out, and which answers are kept.

Each tool and the judge has a call policy of its own. What a manifest sets directly under `tools` holds for every tool
that the policy calls; `tools.<tool>` overrides it for one of them. The judge has its own defaults and takes none from
the tools: a slow verdict delays an episode, while a lost verdict throws the whole episode away.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, create_model, field_validator, model_validator

from gog import catalog
from gog.spec.base import PLAIN_URL, KubeName, Spec, YamlWords
from gog.spec.endpoints import Options

CacheMode = Annotated[Literal["off", "live", "record", "replay-or-live", "replay-strict"], YamlWords()]


class CacheSpec(Spec):
    """Which answers of tools and of the judge are kept, by the content of the call. Failures are never kept."""

    mode: CacheMode = Field(
        "live",
        description="off: nothing is kept; live: in memory, for this process; record: in memory and in `path`, which is "
        "written but not read; replay-or-live: read from `path`, and what is missing is called and recorded; "
        "replay-strict: read from `path`, and what is missing is a tool failure.",
    )
    path: str | None = Field(
        None,
        max_length=1024,
        description="SQLite file of recorded answers; on a cluster one of a claim, `pvc://claim/answers.sqlite`, because the "
        "pods' own disks end with them. Or a prefix of a store, `s3://bucket/prefix`, read and written with the options and "
        "credentials of the run's store; on one machine also `file:///folder`. Required by every mode except off and live. "
        "Default: none.",
    )
    max_entries: int = Field(
        200_000,
        ge=1,
        description="Answers kept in memory, of 1 GiB in all on a machine; the least recently used are dropped first.",
    )
    empty_seconds: float = Field(
        3600.0,
        ge=0,
        description="Seconds for which an answer that found nothing is used; replay-strict uses it for ever.",
    )

    @model_validator(mode="after")
    def _recording_needs_a_file(self) -> CacheSpec:
        if self.mode in ("record", "replay-or-live", "replay-strict") and not self.path:
            raise ValueError(f"mode {self.mode} needs a path")
        return self

    @property
    def is_replay(self) -> bool:
        """Whether every answer comes from the recording, and no server is called."""
        return self.mode == "replay-strict"


class OutageSpec(Spec):
    """How long a stage waits for a tool or the judge that is down."""

    patience_seconds: float = Field(
        600.0,
        ge=0,
        description="Seconds that calls wait for a service that is down (5 failed requests in a row), while one call "
        "at a time probes it. After that the stage's attempt fails, and is retried [ours].",
    )


class BudgetSpec(Spec):
    """Limits of calls and of their cost. A tool whose budget is used up ends the stage, unless it has a fallback."""

    calls: int | None = Field(None, ge=0, description="Requests in the whole run. Default: no limit.")
    calls_per_day: int | None = Field(None, ge=0, description="Requests of the run per day, in UTC. Default: no limit.")
    usd: float | None = Field(None, ge=0, description="US dollars in the whole run. Default: no limit.")
    usd_per_day: float | None = Field(
        None, ge=0, description="US dollars of the run per day, in UTC. Default: no limit."
    )

    @property
    def is_set(self) -> bool:
        """Whether it limits anything."""
        return any(value is not None for value in (self.calls, self.calls_per_day, self.usd, self.usd_per_day))


class CallPolicy(Spec):
    """How one tool is called."""

    concurrency: int = Field(
        256,
        ge=1,
        le=1024,
        description="Calls in flight for each tool, at most: fewer for as long as calls run into their deadlines or are "
        "refused as too many. The processes of a stage divide it among them [ours; the paper has 4 threads].",
    )
    attempts: int = Field(3, ge=1, le=10, description="Attempts per call, the first included [ours].")
    deadline_seconds: float = Field(10.0, gt=0, description="Seconds that one attempt may take [ours].")
    budget_seconds: float = Field(
        30.0, gt=0, description="Seconds that all attempts of a call and the pauses between them may take [ours]."
    )
    backoff_seconds: float = Field(
        0.2, ge=0, description="Seconds before the first retry; doubles with each further retry, with jitter [ours]."
    )
    breaker_failures: int = Field(
        20, ge=1, description="Failed attempts in a row that open the circuit breaker [ours]."
    )
    breaker_seconds: float = Field(
        5.0, gt=0, description="Seconds that an open breaker refuses calls before it lets one through [ours]."
    )
    rate_per_minute: float | None = Field(
        None,
        gt=0,
        description="Requests per minute to each tool, over all processes of a stage, evenly spaced. Processes of one "
        "machine share it; of several machines, each gets an equal part [ours]. Default: no limit.",
    )
    hedge_seconds: float | None = Field(
        None,
        gt=0,
        description="Seconds after which a request that is not answered gets an equal one beside it; the first that succeeds "
        "counts. For servers of your own: one that reports a vendor or a cost, or has a price, gets no second request "
        "[ours]. Default: none.",
    )
    usd_per_call: float | None = Field(
        None,
        ge=0,
        description="Price of an answered request in US dollars, for a server that reports no cost [ours]. Default: 0.",
    )


class FallbackSpec(Spec):
    """An existing server that is called where a tool's own server has failed after all retries."""

    url: str = Field(pattern=PLAIN_URL, max_length=1024, description="Base URL of the server.")
    model: str = Field(
        "",
        max_length=253,
        description="Model name to send in requests; the judge's only. Default: the server's only one.",
    )
    secret_name: KubeName | None = Field(
        None,
        description="Secret with the key GOG_API_KEY that the server requires, on a cluster. On one machine the key is in "
        "the environment: JUDGE_FALLBACK_GOG_API_KEY, IMAGE_SEARCH_FALLBACK_GOG_API_KEY, … Default: it requires no key.",
    )
    usd_per_call: float | None = Field(
        None, ge=0, description="Price of an answered request in US dollars, if it reports no cost. Default: 0."
    )


_FALLBACK = Field(
    None, description="Server that is called where the tool's own has failed after all retries [ours]. Default: none."
)


class JudgePolicy(CallPolicy):
    """How the judge is called. Its defaults are more patient than a tool's, and leave a reasoning model time to reason."""

    concurrency: int = Field(
        64,
        ge=1,
        le=1024,
        description="Verdicts in flight, at most, as for tools. The processes of a stage divide it among them [ours].",
    )
    attempts: int = Field(5, ge=1, le=10, description="Attempts per verdict, the first included [ours].")
    deadline_seconds: float = Field(30.0, gt=0, description="Seconds that one attempt may take [ours].")
    budget_seconds: float = Field(
        120.0, gt=0, description="Seconds that all attempts of a verdict and the pauses between them may take [ours]."
    )
    max_tokens: int = Field(
        2048,
        ge=1,
        description="Tokens that the judge may generate; a model that reasons first needs room to reach its verdict [ours].",
    )
    fallback: FallbackSpec | None = _FALLBACK
    budget: BudgetSpec = Field(BudgetSpec(), description="Limits of the judge's calls and cost [ours]. Default: none.")
    votes: int = Field(
        1,
        ge=1,
        le=9,
        description="Verdicts per answer. More than one are sampled at temperature 1, and more than half of them must "
        "agree; otherwise the answer is undecided. Each vote is a request of its own [ours].",
    )
    request: Options = Field(
        default_factory=dict,
        description="Further fields of the judge's requests, as its server names them: `{reasoning_effort: low}`, "
        "`{chat_template_kwargs: {enable_thinking: false}}`. Default: none [ours].",
    )

    @field_validator("request")
    @classmethod
    def _the_case_is_not_replaced(cls, request: dict[str, Any]) -> dict[str, Any]:
        taken = sorted({"model", "messages", "max_tokens", "stream", "n"} & set(request))
        if taken:
            raise ValueError(f"{taken[0]} cannot be set here")
        return request


class PolicyServerSpec(Spec):
    """How the policy's servers are asked by stages with `engine: vllm`."""

    concurrency: int = Field(
        64, ge=1, le=4096, description="Turns in flight on each replica, for each process of a stage [ours]."
    )
    deadline_seconds: float = Field(
        600.0,
        gt=0,
        description="Seconds that one request may take: a turn, or the loading of an adapter. A server compiles with its "
        "first request [ours].",
    )
    backoff_seconds: float = Field(
        0.5, ge=0, description="Seconds before a failed turn is asked for again; doubles, with jitter [ours]."
    )
    adapters: str | None = Field(
        None,
        max_length=1024,
        description="Folder for the adapters of each version, which every replica must see under the same path. Default: "
        "the stage's work folder.",
    )
    receiver_port: int | None = Field(
        None,
        ge=1,
        le=65_535,
        description="Port of the receiver beside each replica (`gog serve policy --runtime receiver`), which adapters are "
        "uploaded to where replicas share no folder with the stage. Default: none; 8081 for a vLLM that gog starts on a "
        "cluster.",
    )


def _without_default(description: str | None) -> str:
    return (description or "").partition(" Default:")[0]


_OVERRIDES: dict[str, Any] = {
    name: (
        Annotated[field.annotation, *field.metadata] | None,
        Field(None, description=f"{_without_default(field.description)} Default: the value under `tools`."),
    )
    for name, field in CallPolicy.model_fields.items()
}
ToolPolicy = create_model(
    "ToolPolicy",
    __base__=Spec,
    __doc__="What one tool needs otherwise than the rest.",
    fallback=(FallbackSpec | None, _FALLBACK),
    budget=(BudgetSpec, Field(BudgetSpec(), description="Limits of the tool's calls and cost [ours]. Default: none.")),
    **_OVERRIDES,
)
_BY_TOOL: dict[str, Any] = {
    tool.field: (
        ToolPolicy,
        Field(ToolPolicy(), description=f"What calls of {tool.title} need otherwise. Default: as set under `tools`."),
    )
    for tool in catalog.TOOLS
    if tool.callable
}
PATIENCE = ("deadline_seconds", "budget_seconds")
"""Fields of a call policy whose defaults depend on the tool (catalog.Tool)."""


def _with_defaults(name: str) -> Any:
    """A field of PATIENCE for all tools, which is None where each takes its own default."""
    field, common = CallPolicy.model_fields[name], getattr(CallPolicy(), name)
    own = {each.title: getattr(each, name) for each in catalog.TOOLS if each.callable}
    other = [f"{seconds:g} for {title}" for title, seconds in own.items() if seconds != common]
    description = f"{field.description} Default: {', '.join([f'{common:g}', *other])}."
    return Annotated[field.annotation, *field.metadata] | None, Field(None, description=description)


_ByTool: Any = create_model(
    "_ByTool", __base__=CallPolicy, **{name: _with_defaults(name) for name in PATIENCE}, **_BY_TOOL
)


class ToolsSpec(_ByTool):
    """How tools and the judge are called. What is set here directly holds for every tool, but not for the judge."""

    judge: JudgePolicy = Field(JudgePolicy(), description="How the judge is called; it takes no values from the tools.")
    policy_server: PolicyServerSpec = Field(
        PolicyServerSpec(), description="How the policy's servers are asked, by stages with `engine: vllm`."
    )
    outage: OutageSpec = Field(OutageSpec(), description="How long a stage waits for a tool or the judge that is down.")
    budget: BudgetSpec = Field(
        BudgetSpec(),
        description="Limits of calls and cost of all tools, the judge, and the models of `stages.curate.endpoint` and "
        "`stages.evaluate.endpoint` together [ours]. Default: none.",
    )
    top: int = Field(5, ge=1, le=50, description="Results requested from a search [peer].")
    max_candidates: int = Field(5, ge=1, le=20, description="Candidates shown per grounding call [ours].")
    min_box_side: int = Field(
        4, ge=1, description="Pixels; a box with a shorter side is dropped [peer: 30 for photographs]."
    )
    max_box_aspect: float = Field(
        100.0, ge=1, description="Longer side divided by shorter side; a box above it is dropped [peer]."
    )
    overlap: float = Field(0.7, gt=0, le=1, description="Boxes that overlap more than this (IoU) count as one [ours].")
    pad: int = Field(2, ge=0, description="Pixels added on each side of a box before it is cropped [ours].")
    crop_side: int | None = Field(
        None,
        ge=1,
        description="Crop squares and resize them to this side, in pixels [ours]. Default: the crop keeps its own size; "
        "28 in the tiny preset.",
    )
    cache: CacheSpec = Field(CacheSpec(), description="Which answers are kept. Failures are never kept.")

    def policy(self, tool: str) -> CallPolicy:
        """The complete call policy of one tool.

        Args:
            tool: a name of catalog.TOOLS, `judge` included.
        """
        if tool == "judge":
            return self.judge
        row = catalog.SERVER_BY_NAME[tool]
        values = {name: getattr(row, name) for name in PATIENCE}
        for level in (self, self._own(tool)):
            given = {name: getattr(level, name) for name in CallPolicy.model_fields}
            values |= {name: value for name, value in given.items() if value is not None}
        return CallPolicy(**values)

    def fallback(self, tool: str) -> FallbackSpec | None:
        """The server that is called where a tool's own has failed; None for none.

        Args:
            tool: a name of catalog.TOOLS, `judge` included.
        """
        return self._own(tool).fallback

    def budgets(self) -> dict[str, BudgetSpec]:
        """The budget of each tool and of the judge, and under the empty name that of all together."""
        return {"": self.budget, **{tool.name: self._own(tool.name).budget for tool in catalog.TOOLS}}

    def _own(self, tool: str) -> Any:
        """What is set for one tool."""
        return getattr(self, catalog.SERVER_BY_NAME[tool].field)
