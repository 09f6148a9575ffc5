"""What all settings are made of: the model class, and values that several share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from gog import catalog

STAGES = catalog.STAGE_NAMES
TOOLS = catalog.TOOL_NAMES
POLICIES = ("direct", "whole-image", "first-candidate", "prompted", "sft", "grpo")

if TYPE_CHECKING:
    StageName = str
else:
    StageName = Literal[STAGES]  # one value for each row of the catalogue
Text = Annotated[str, Field(max_length=1024)]
Name = Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=40)]
Gaze = Annotated[
    Literal["select", "direct", "off"],
    BeforeValidator(  # YAML 1.1, which kubectl reads, too, takes a bare off for false
        lambda value: "off" if value is False else value,
        json_schema_input_type=Literal["select", "direct", "off", False],
    ),
]
Level = Annotated[
    Literal["easy", "1", "2"],
    BeforeValidator(
        lambda value: str(value) if isinstance(value, int) else value,
        json_schema_input_type=Literal["easy", "1", "2", 1, 2],
    ),
]
Share = Annotated[float, Field(ge=0, le=1)]
_Amount = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$", max_length=32)]
Quantity = Annotated[
    _Amount,
    BeforeValidator(
        lambda value: str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value,
        json_schema_input_type=int | _Amount,
    ),
]
"""An amount as Kubernetes writes it: `2`, `500m`, `4Gi`."""


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
