"""What an installation decides for every pod that the operator makes: images, how they are pulled, one port.

Part of none of a user's objects, so it comes from the operator's own environment, which the chart writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gog.metrics import serving


@dataclass(frozen=True)
class Platform:
    """trainer_image: stages and the policy server; tools_image: the other servers and store jobs; operator_image: the
    operator itself. field_manager: our name in managed fields. progress_port: where a stage's rank 0 tells of itself.
    linger_seconds: how long a stage that was scraped waits, at its end, for one more scrape."""

    trainer_image: str = "gog-trainer"
    tools_image: str = "gog-tools"
    operator_image: str = "gog-operator"
    image_pull_policy: str = "IfNotPresent"
    field_manager: str = "gog-operator"
    progress_port: int = 9090
    linger_seconds: int = 0

    @classmethod
    def from_environment(cls, env: Mapping[str, str]) -> Platform:
        """GOG_TRAINER_IMAGE, GOG_TOOLS_IMAGE, GOG_OPERATOR_IMAGE, GOG_IMAGE_PULL_POLICY, GOG_METRICS_LINGER; what is
        absent or empty keeps its default."""
        return cls(
            trainer_image=env.get("GOG_TRAINER_IMAGE") or cls.trainer_image,
            tools_image=env.get("GOG_TOOLS_IMAGE") or cls.tools_image,
            operator_image=env.get("GOG_OPERATOR_IMAGE") or cls.operator_image,
            image_pull_policy=env.get("GOG_IMAGE_PULL_POLICY") or cls.image_pull_policy,
            linger_seconds=int(env.get(serving.LINGER) or cls.linger_seconds),
        )
