"""Settings of an installation for every pod that the operator creates: images, environment, certificate authorities.

No user's object holds them. They come from the operator's own environment, which the chart sets.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from gog.errors import UserError
from gog.metrics import serving

ISTIO = "sidecar.istio.io/inject"
"""Label of a pod by which Istio decides whether it adds a sidecar."""


@dataclass(frozen=True)
class Platform:
    """The installation's settings for pods."""

    trainer_image: str = "gog-trainer"
    """Image of stages and of the policy server."""
    tools_image: str = "gog-tools"
    """Image of the other servers and of store jobs."""
    vllm_image: str = "vllm/vllm-openai:v0.32.0"
    """Image of servers with runtime vllm."""
    operator_image: str = "gog-operator"
    """Image of the operator itself."""
    image_pull_policy: str = "IfNotPresent"
    """Pull policy of all containers."""
    model_cache: str = ""
    """PersistentVolumeClaim in every namespace in which sources are fetched once; empty for none."""
    field_manager: str = "gog-operator"
    """The operator's name in managed fields."""
    progress_port: int = 9090
    """Port on which rank 0 of a stage serves its progress and its metrics."""
    linger_seconds: int = 0
    """Seconds that a stage which was scraped waits, at its end, for one more scrape."""
    job_ttl_seconds: int | None = None
    """Seconds that ended jobs of finished stages and runs are kept; None for ever."""
    user: int | None = 10001
    """User and group that pods run as; None leaves the choice to the cluster, as OpenShift requires."""

    trusted_ca: str = ""
    """ConfigMap in each namespace of runs with certificate authorities that all pods trust; empty for none."""
    trusted_ca_key: str = "ca-bundle.crt"
    """Its key with the PEM file, which replaces the authorities of the images."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Environment variables of all pods, such as HTTPS_PROXY."""
    admin_key: bytes = field(default=b"", repr=False)
    """The operator's key, from which the tokens for loading adapters are derived; empty: servers require none."""
    istio_sidecars: bool = False
    """Whether Istio may add sidecars to pods. One that is no native sidecar never ends, and a job's pod with it."""

    @classmethod
    def from_environment(cls, env: Mapping[str, str]) -> Platform:
        """The settings in GOG_TRAINER_IMAGE, GOG_TOOLS_IMAGE, GOG_VLLM_IMAGE, GOG_OPERATOR_IMAGE, GOG_IMAGE_PULL_POLICY,
        GOG_MODEL_CACHE, GOG_METRICS_LINGER, GOG_JOB_TTL, GOG_POD_USER (a number, or `any`), GOG_POD_ENV (a JSON mapping),
        GOG_TRUSTED_CA, GOG_TRUSTED_CA_KEY and GOG_ISTIO_SIDECARS (`true`); what is absent or empty keeps its default.

        Raises:
            UserError: GOG_POD_ENV is no JSON mapping of text.
        """
        user = env.get("GOG_POD_USER") or str(cls.user)
        return cls(
            trainer_image=env.get("GOG_TRAINER_IMAGE") or cls.trainer_image,
            tools_image=env.get("GOG_TOOLS_IMAGE") or cls.tools_image,
            model_cache=env.get("GOG_MODEL_CACHE") or cls.model_cache,
            vllm_image=env.get("GOG_VLLM_IMAGE") or cls.vllm_image,
            operator_image=env.get("GOG_OPERATOR_IMAGE") or cls.operator_image,
            image_pull_policy=env.get("GOG_IMAGE_PULL_POLICY") or cls.image_pull_policy,
            linger_seconds=int(env.get(serving.LINGER) or cls.linger_seconds),
            job_ttl_seconds=int(env["GOG_JOB_TTL"]) if env.get("GOG_JOB_TTL") else None,
            user=None if user == "any" else int(user),
            trusted_ca=env.get("GOG_TRUSTED_CA") or cls.trusted_ca,
            trusted_ca_key=env.get("GOG_TRUSTED_CA_KEY") or cls.trusted_ca_key,
            env=_mapping(env.get("GOG_POD_ENV") or "{}"),
            istio_sidecars=env.get("GOG_ISTIO_SIDECARS") == "true",
        )

    def pod_labels(self) -> dict[str, str]:
        """Labels of all pods, besides those that say what a pod is."""
        return {} if self.istio_sidecars else {ISTIO: "false"}


def _mapping(text: str) -> dict[str, str]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(each, str) for each in found.values()):
        raise UserError("is no JSON mapping of text", where="GOG_POD_ENV", remedy='write {"HTTPS_PROXY": "http://…"}')
    return found
