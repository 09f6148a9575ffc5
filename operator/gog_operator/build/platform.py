"""Settings of an installation for every pod that the operator creates: images, their pull policy, one port.

No user's object holds them. They come from the operator's own environment, which the chart sets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gog.metrics import serving


@dataclass(frozen=True)
class Platform:
    """The installation's settings for pods."""

    trainer_image: str = "gog-trainer"
    """Image of stages and of the policy server."""
    tools_image: str = "gog-tools"
    """Image of the other servers and of store jobs."""
    operator_image: str = "gog-operator"
    """Image of the operator itself."""
    image_pull_policy: str = "IfNotPresent"
    """Pull policy of all containers."""
    field_manager: str = "gog-operator"
    """The operator's name in managed fields."""
    progress_port: int = 9090
    """Port on which rank 0 of a stage serves its progress and its metrics."""
    linger_seconds: int = 0
    """Seconds that a stage which was scraped waits, at its end, for one more scrape."""
    user: int | None = 10001
    """User and group that pods run as; None leaves the choice to the cluster, as OpenShift requires."""

    @classmethod
    def from_environment(cls, env: Mapping[str, str]) -> Platform:
        """The settings in GOG_TRAINER_IMAGE, GOG_TOOLS_IMAGE, GOG_OPERATOR_IMAGE, GOG_IMAGE_PULL_POLICY,
        GOG_METRICS_LINGER and GOG_POD_USER (a number, or `any`); what is absent or empty keeps its default."""
        user = env.get("GOG_POD_USER") or str(cls.user)
        return cls(
            trainer_image=env.get("GOG_TRAINER_IMAGE") or cls.trainer_image,
            tools_image=env.get("GOG_TOOLS_IMAGE") or cls.tools_image,
            operator_image=env.get("GOG_OPERATOR_IMAGE") or cls.operator_image,
            image_pull_policy=env.get("GOG_IMAGE_PULL_POLICY") or cls.image_pull_policy,
            linger_seconds=int(env.get(serving.LINGER) or cls.linger_seconds),
            user=None if user == "any" else int(user),
        )
