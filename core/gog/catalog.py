"""The stages, the servers and the tools of gog: one row each.

Every other list of them is derived from these rows: manifests, custom resources, command lines, labels of metrics,
colours of dashboards. docs/architecture.md shows how to add a tool that the policy may call. The figures of training
steps have a module of their own (step_metrics). Nothing is imported from the rest of the project, so every process can
afford this module.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Stage:
    """A stage of a run."""

    name: str
    """Key in manifests, and the first part of a checkpoint's reference: `sft/180`."""
    kind: str
    """Kind of its custom resource."""
    title: str
    """As the report writes it."""
    needs: tuple[str, ...]
    """Stages whose checkpoints it starts from."""
    uses_tools: bool
    """Whether it calls tools and the judge."""
    reason: str
    """Reason of a run's Ready condition while the stage works."""


STAGES = (
    Stage("curate", "CurateStage", "Curate", needs=(), uses_tools=True, reason="Curating"),
    Stage("sft", "SFTStage", "SFT", needs=("curate",), uses_tools=False, reason="FineTuning"),
    Stage("stratify", "StratifyStage", "Stratify", needs=("sft",), uses_tools=True, reason="Stratifying"),
    Stage("grpo", "GRPOStage", "GRPO", needs=("sft", "stratify"), uses_tools=True, reason="Training"),
    Stage("evaluate", "EvaluateStage", "Evaluate", needs=("sft", "grpo"), uses_tools=True, reason="Evaluating"),
)
"""In the order in which a run works through them."""
STAGE_NAMES = tuple(stage.name for stage in STAGES)
STAGE_KINDS = tuple(stage.kind for stage in STAGES)


@dataclass(frozen=True)
class Server:
    """A server that a run may need."""

    name: str
    """Role of its ToolServer, key under `endpoints`, label of metrics: `imageSearch`."""
    title: str
    """As reports write it: `image search`."""
    help: str
    """What it does, in one sentence, for the manifest's documentation."""
    module: str
    """Module whose `main` is the server."""
    arguments: tuple[str, ...] = ()
    """What `main` is given before the command line's own arguments."""
    backends: Mapping[str, str] = field(default_factory=dict)
    """`module:factory` of its back ends, by name; `world` is a manifest's default, so every server has it."""
    torch_backends: tuple[str, ...] = ()
    """Names of the back ends that need torch, which of the images only the trainer's has."""
    reads_data: bool = False
    """Whether it answers from the run's dataset."""

    @property
    def command(self) -> str:
        """Name in `gog serve NAME` and in names of objects: `image-search`."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", self.name).lower()

    @property
    def field(self) -> str:
        """Name of its fields in Python: `image_search`."""
        return self.command.replace("-", "_")


@dataclass(frozen=True)
class Tool(Server):
    """A server that episodes call: a tool of the policy, or the judge."""

    tag: str = ""
    """Tag of the actions that call it; empty where the policy cannot."""
    optional: bool = False
    """Whether a run has it only where its manifest names its endpoint. The others belong to every run."""
    deadline_seconds: float = 10.0
    """Seconds that one attempt may take by default: of a detector on a busy GPU, with its queue [ours]."""
    budget_seconds: float = 30.0
    """Seconds that all attempts of a call may take by default [ours]."""

    @property
    def callable(self) -> bool:
        """Whether the policy may call it."""
        return bool(self.tag)


TOOLS = (
    Tool(
        "grounding",
        "grounding",
        "Proposes candidates: boxes for an expression.",
        "gog_tools.grounding.server",
        backends={
            "world": "gog_tools.grounding.world_detector:WorldDetector",
            "grounding-dino": "gog_tools.grounding.grounding_dino:GroundingDino",
            "owlv2": "gog_tools.grounding.owlv2:Owlv2",
        },
        torch_backends=("grounding-dino", "owlv2"),
        tag="img_search",
    ),
    Tool(
        "imageSearch",
        "image search",
        "Finds pages by an image.",
        "gog_tools.search.server",
        ("image",),
        backends={
            "world": "gog_tools.search.image_index:ImageIndex.read",
            "serpapi-lens": "gog_tools.search.lens:lens",
            "embeddings": "gog_tools.search.embeddings:Embeddings.open",
        },
        reads_data=True,
        torch_backends=("embeddings",),
        tag="img_search",
        # 30 s for the vendor, and the image is published before and thumbnails are fetched afterwards.
        deadline_seconds=60.0,
        budget_seconds=120.0,
    ),
    Tool(
        "textSearch",
        "text search",
        "Finds pages by words.",
        "gog_tools.search.server",
        ("text",),
        backends={
            "world": "gog_tools.search.text_index:TextIndex.read",
            "serpapi": "gog_tools.search.web_backends:serpapi",
            "brave": "gog_tools.search.web_backends:brave",
            "searxng": "gog_tools.search.web_backends:searxng",
            "tantivy": "gog_tools.search.documents:Documents.open",
        },
        reads_data=True,
        tag="text_search",
        # 30 s for the engine and 20 s for its pages, each read (7.9 s on average by Jina [peer]) and summarised.
        deadline_seconds=60.0,
        budget_seconds=120.0,
    ),
    Tool(
        "judge",
        "judge",
        "Decides whether an answer is correct.",
        "gog_tools.judge.server",
        backends={
            "world": "gog_tools.judge.world_judge:WorldJudge",
            "match": "gog_tools.judge.match_judge:MatchJudge",
        },
    ),
    Tool(
        "ocr",
        "OCR",
        "Reads the text in an image.",
        "gog_tools.ocr",
        backends=dict.fromkeys(("rapidocr", "world"), "gog_tools.ocr:RapidOcr"),
        tag="ocr",
        optional=True,
    ),
)
SERVERS: tuple[Server, ...] = (
    *TOOLS,
    Server(
        "policy",
        "policy",
        "Serves the trained policy.",
        "gog_tools.policy.server",
        backends=dict.fromkeys(("transformers", "world"), "gog_recipes.models.completion:PolicyModel"),
    ),
)
AGENT = Server(
    "agent",
    "agent",
    "Answers chats with the served policy and the tools: the whole method behind OpenAI's chat protocol.",
    "gog_tools.agent.server",
)
SERVED: tuple[Server, ...] = (*SERVERS, AGENT)
"""What `gog serve` starts: the servers of runs, and the agent that answers people."""
TOOL_NAMES = tuple(tool.name for tool in TOOLS)
SERVER_NAMES = tuple(server.name for server in SERVERS)
SERVER_BY_NAME = {server.name: server for server in SERVED}
ROLES = tuple(SERVER_BY_NAME)
"""Roles of ToolServers: the servers of runs, and the agent."""
SEARCH_TOOLS = frozenset(tool.name for tool in TOOLS if tool.callable and not tool.optional)
"""Names of the tools that the policy of every run may call."""
OPTIONAL_TOOLS = frozenset(tool.name for tool in TOOLS if tool.optional)
"""Names of the tools that a run has by choice."""
ACTION_TAGS = tuple(dict.fromkeys(tool.tag for tool in TOOLS if tool.callable))
"""Tags of all actions that call a tool; an agent without tools may open none of them."""


def offered(endpoints: Collection[str]) -> frozenset[str]:
    """Names of the tools that a policy may call. endpoints: names of the tools that its run has."""
    return SEARCH_TOOLS | OPTIONAL_TOOLS.intersection(endpoints)
