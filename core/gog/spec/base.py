"""The base class of all settings, and the types that several of them share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler
from pydantic.alias_generators import to_camel
from pydantic_core import core_schema

from gog import catalog

STAGES = catalog.STAGE_NAMES
TOOLS = catalog.TOOL_NAMES
POLICIES: dict[str, tuple[str, ...]] = {
    "direct": ("sft",),
    "whole-image": ("sft",),
    "first-candidate": ("sft",),
    "prompted": (),
    "full-search": (),
    "sft": ("sft",),
    "grpo": ("sft", "grpo"),
    "endpoint-direct": (),
    "endpoint": (),
}
"""Policies that evaluate compares, each with the stages whose adapters it has, in the order of training."""

if TYPE_CHECKING:
    StageName = str
else:
    StageName = Literal[STAGES]  # one value for each row of the catalogue
Text = Annotated[str, Field(max_length=1024)]
Name = Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=40)]
KUBE_NAME = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
"""Pattern of the names that Kubernetes gives its objects (DNS subdomains)."""
KubeName = Annotated[str, Field(pattern=KUBE_NAME, max_length=253)]
"""Name of an object on a cluster."""
LABEL_KEY = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
"""Pattern of the keys of labels and taints."""
LABEL_VALUE = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"
"""Pattern of the values of labels and taints."""


class YamlWords:
    """Annotates an enumeration whose words may be written without quotes, although YAML reads them as another type.

    kubectl turns a bare `off` into false and a bare `429` into a number before the API server sees it, so the models
    and the schema made from them accept what YAML makes of a word as the word itself.
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        words = get_args(source)
        readings = [(reading, word) for word in words if (reading := yaml_reading(word)) is not None]

        def read(value: Any) -> Any:
            # By type, because False == 0 and True == 1.
            return next(
                (word for reading, word in readings if type(reading) is type(value) and reading == value), value
            )

        return core_schema.no_info_before_validator_function(
            read,
            handler(source),
            json_schema_input_schema=core_schema.literal_schema([*words, *(reading for reading, _ in readings)]),
        )


def yaml_reading(word: str) -> bool | int | None:
    """What YAML 1.1 reads a bare word as, None for text.

    >>> [yaml_reading(word) for word in ("off", "429", "live")]
    [False, 429, None]
    """
    if word in ("n", "no", "off", "false"):
        return False
    if word in ("y", "yes", "on", "true"):
        return True
    return int(word) if word.isascii() and word.isdigit() else None


Gaze = Annotated[Literal["select", "direct", "off"], YamlWords()]
Level = Annotated[Literal["easy", "1", "2"], YamlWords()]
Advantages = Literal["group", "centred", "leave_one_out", "batch", "group_batch"]
"""Names of the estimators in gog.rewards."""
ToolFailures = Literal["exclude", "mask", "drop", "keep", "zero", "fatal-clamp"]
"""Names of the rules in gog.failure_rules."""
Share = Annotated[float, Field(ge=0, le=1)]
MAX_SEED = 2**32 - 1
"""Largest seed of numpy's generator, which is seeded before anything is drawn."""
PLAIN_URL = "^https?://[^@?#]+$"
"""The base URL of a server, without user, password and query: specs are printed, and keys belong into Secrets."""
SERVER = r"^(https?://[^@?#]+|[a-z]([-a-z0-9]*[a-z0-9])?)$"
"""Pattern of a server: its base URL as in PLAIN_URL, or the name of its ToolServer."""
QUANTITY = r"^\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]+)?$"
"""Pattern of a Kubernetes quantity that is not negative."""
_Amount = Annotated[str, Field(pattern=QUANTITY, max_length=32)]
Quantity = Annotated[
    _Amount,
    BeforeValidator(
        lambda value: str(value) if type(value) is int else value,
        json_schema_input_type=Annotated[int, Field(ge=0)] | _Amount,
    ),
]
"""A quantity: `2`, `500m`, `4Gi`, `"1.5"`.

A bare fraction is refused, as the API server refuses it: its schemas know integers and text there, and no other numbers.
"""


class Spec(BaseModel):
    """Frozen; refuses unknown fields and non-finite numbers, which JSON cannot hold; accepts camelCase and snake_case."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        alias_generator=to_camel,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )

    def as_given(self) -> dict[str, Any]:
        """The fields that were set, as a manifest writes them."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)
