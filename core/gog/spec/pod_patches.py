"""Patches of pods: what a cluster needs of pods that gog does not write itself, from an allow-list.

Problem: clusters differ in what pods must have (a proxy, a pull secret, an RDMA device, a toleration), and a free-form
patch would let a tenant undo the restricted security profile or the settings by which gog observes its own pods. Decision:
every field that may be patched is listed here, in the form of Kubernetes, and names that gog uses are reserved. What is
not listed (hostPath, hostNetwork, containers, commands, privileges) is refused as an unknown field.

Patches are applied in order, after what gog writes: lists with names are merged by name (`env`, `volumes`,
`volumeMounts` by path, `resourceClaims`), mappings by key, single values are replaced, other lists are appended to.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gog import catalog
from gog.spec.affinity import AffinitySpec, TopologySpread
from gog.spec.base import KubeName, Quantity, Spec
from gog.spec.pod_volumes import PodVolume, VolumeMount
from gog.spec.pods import LabelKey, LabelValue, ResourceName, TolerationSpec
from gog.spec.sources import FetchedSources

TARGETS = (
    *("stages", *catalog.STAGE_NAMES),
    *("servers", *catalog.ROLES),
    *("storeJobs", "toolChecks"),
)
"""Groups of pods and their members."""
Target = Literal[TARGETS]  # type: ignore[valid-type]  # one value for each row of the catalogue

RESERVED_ENV = (
    "^(GOG_|TORCHX_|TORCHELASTIC_|PET_|VC_|VK_|KUBERNETES_)|GOG_API_KEY$|"
    "^(HOME|AWS_CA_BUNDLE|RANK|LOCAL_RANK|WORLD_SIZE|MASTER_ADDR|MASTER_PORT)$"
)
"""Environment variables that gog, TorchX, Volcano or torchrun set: another value breaks the run or how it is observed."""
RESERVED_KEYS = (
    *("gog.dev/", "app.kubernetes.io/", "batch.kubernetes.io/", "volcano.sh/", "scheduling.volcano.sh/"),
    *("serving.kserve.io/", "internal.serving.kserve.io/", "torchx.pytorch.org/"),
    *("container.apparmor.security.beta.kubernetes.io/", "seccomp.security.alpha.kubernetes.io/"),
    "container.seccomp.security.alpha.kubernetes.io/",
)
"""Prefixes of labels and annotations by which controllers find pods, or which weaken their security profile."""
RESERVED_LABELS = ("app", "component", "job-name", "controller-uid", "pod-template-hash")
"""Labels by which controllers find pods."""
SIZED = ("cpu", "memory")
"""Resources that have a field of their own."""


class KeyRef(Spec):
    """A key of a Secret or ConfigMap of the run's namespace."""

    name: KubeName = Field(description="Name of the Secret or ConfigMap.")
    key: str = Field(min_length=1, max_length=253, description="The key.")
    optional: bool = Field(False, description="Whether the pod starts without it.")


class FieldRef(Spec):
    """A field of the pod."""

    field_path: str = Field(
        min_length=1, max_length=317, description="Path of the field: `status.hostIP`, `metadata.labels['team']`."
    )


class EnvSource(Spec):
    """Where the value of an environment variable comes from: exactly one of these."""

    secret_key_ref: KeyRef | None = Field(None, description="A key of a Secret.")
    config_map_key_ref: KeyRef | None = Field(None, description="A key of a ConfigMap.")
    field_ref: FieldRef | None = Field(None, description="A field of the pod.")


class EnvVar(Spec):
    """An environment variable: a value, or where it comes from."""

    name: str = Field(
        max_length=253,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Name. Those that gog, TorchX, Volcano and torchrun set themselves are reserved.",
    )
    value: str | None = Field(
        None,
        max_length=4096,
        description="Value; `$(NAME)` is another variable. Secrets belong into valueFrom. Default: empty.",
    )
    value_from: EnvSource | None = Field(None, description="Where the value comes from, instead of `value`.")


class ObjectRef(Spec):
    """A Secret or ConfigMap of the run's namespace."""

    name: KubeName = Field(description="Name of the object.")
    optional: bool = Field(False, description="Whether the pod starts without it.")


class EnvFrom(Spec):
    """All keys of a Secret or ConfigMap as environment variables: exactly one of secretRef and configMapRef."""

    prefix: str | None = Field(None, max_length=64, description="Put before every name. Default: none.")
    secret_ref: ObjectRef | None = Field(None, description="A Secret.")
    config_map_ref: ObjectRef | None = Field(None, description="A ConfigMap.")


class PullSecret(Spec):
    """A Secret with the credentials of a registry."""

    name: KubeName = Field(description="Name of the Secret.")


class ResourceClaim(Spec):
    """A device of dynamic resource allocation: exactly one of resourceClaimName and resourceClaimTemplateName."""

    name: KubeName = Field(max_length=63, description="Name of the claim in the pod.")
    resource_claim_name: KubeName | None = Field(None, description="A ResourceClaim, which all pods share.")
    resource_claim_template_name: KubeName | None = Field(
        None, description="A ResourceClaimTemplate, of which every pod gets a claim of its own."
    )
    request: str | None = Field(
        None, max_length=63, description="Request of the claim whose devices the container gets. Default: all."
    )


class PodSecurity(Spec):
    """Users and groups of pods. All else is fixed by the restricted profile."""

    run_as_user: int | None = Field(None, ge=1, description="User of the processes. Default: the installation's.")
    run_as_group: int | None = Field(None, ge=0, description="Group of the processes. Default: the installation's.")
    fs_group: int | None = Field(None, ge=0, description="Group that owns volumes. Default: the installation's.")
    fs_group_change_policy: Literal["OnRootMismatch", "Always"] | None = Field(
        None, description="Whether every file of a volume is changed to fsGroup at each start. Default: Always."
    )
    supplemental_groups: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (), max_length=16, description="Further groups of the processes. Default: none."
    )


AnnotationValue = Annotated[str, Field(max_length=4096)]


class PodPatch(Spec):
    """What pods have besides what gog writes. Fields and their forms are those of Kubernetes; others are refused."""

    targets: tuple[Target, ...] = Field(
        (),
        max_length=len(TARGETS),
        description="Pods that the patch is for: `stages` or single ones by name (`grpo`, in every arm), `servers` or "
        "single ones by role (`judge`, `policy`), `storeJobs`, `toolChecks`. Default: all.",
    )
    env: tuple[EnvVar, ...] = Field(
        (), max_length=32, description="Environment variables of the container. Default: none."
    )
    env_from: tuple[EnvFrom, ...] = Field(
        (),
        max_length=16,
        description="Secrets and ConfigMaps as environment variables. gog's take precedence. Default: none.",
    )
    volumes: tuple[PodVolume, ...] = Field((), max_length=32, description="Volumes of the pod. Default: none.")
    volume_mounts: tuple[VolumeMount, ...] = Field(
        (), max_length=32, description="Where the container has volumes of this patch. Default: none."
    )
    image_pull_secrets: tuple[PullSecret, ...] = Field(
        (), max_length=8, description="Credentials of registries. Default: none."
    )
    labels: dict[LabelKey, LabelValue] = Field(default_factory=dict, max_length=32, description="Labels of the pod.")
    annotations: dict[LabelKey, AnnotationValue] = Field(
        default_factory=dict, max_length=32, description="Annotations of the pod."
    )
    affinity: AffinitySpec | None = Field(
        None, description="Nodes and other pods to be near to or far from. Default: any."
    )
    topology_spread_constraints: tuple[TopologySpread, ...] = Field(
        (), max_length=8, description="How evenly pods are spread. Default: not at all."
    )
    tolerations: tuple[TolerationSpec, ...] = Field(
        (), max_length=32, description="Taints that pods tolerate, besides those of `scheduling`. Default: none."
    )
    node_selector: dict[LabelKey, LabelValue] = Field(
        default_factory=dict, max_length=32, description="Labels that a node must have, besides those of `scheduling`."
    )
    runtime_class_name: KubeName | None = Field(None, description="RuntimeClass. Default: the cluster's.")
    priority_class_name: KubeName | None = Field(
        None, description="PriorityClass. Default: that of `scheduling`, else the cluster's."
    )
    termination_grace_period_seconds: int | None = Field(
        None,
        ge=30,
        le=86_400,
        description="Seconds between SIGTERM and SIGKILL; a server has at least 45. Default: 30.",
    )
    resource_claims: tuple[ResourceClaim, ...] = Field(
        (), max_length=8, description="Devices of dynamic resource allocation. Default: none."
    )
    security_context: PodSecurity | None = Field(
        None, description="Users and groups of the pod. Default: the installation's."
    )
    resources: dict[ResourceName, Quantity] = Field(
        default_factory=dict,
        max_length=16,
        description="Further resources of the container, as request and limit: `rdma/hca: 1`, `nvidia.com/mig-1g.10gb: 1`, "
        "`ephemeral-storage: 100Gi`. Cores and memory have fields of their own.",
    )


class Patched(FetchedSources):
    """What has pods of its own: where their sources lie, and how they are patched."""

    pods: tuple[PodPatch, ...] = Field(
        (),
        max_length=16,
        description="Patches of the pods, on a cluster, applied in order: what they need besides what gog writes. Default: "
        "none.",
    )
