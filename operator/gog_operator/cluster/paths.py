"""API paths of the resources in use: group, version, plural."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from gog_operator.api.objects import KINDS


@dataclass(frozen=True)
class Resource:
    """One resource of the API."""

    group: str
    """API group, such as `batch.volcano.sh`; empty for the core group."""
    version: str
    """API version, such as `v1alpha1`."""
    plural: str
    """Plural name, such as `jobs`."""
    product: str = "Kubernetes"
    """Product that installs it, for messages."""
    is_namespaced: bool = True
    """Whether its objects are in namespaces."""

    @property
    def name(self) -> str:
        """`jobs.batch.volcano.sh`"""
        return f"{self.plural}.{self.group}"

    def path(self, namespace: str | None, name: str = "", part: str = "") -> str:
        """The path of a list, an object or a subresource.

        Args:
            namespace: The namespace; None for all.
            name: Name of the object; empty for the list.
            part: Subresource, such as `status`; empty for the object.
        """
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        place = f"/namespaces/{quote(namespace, safe='')}" if namespace and self.is_namespaced else ""
        name = quote(name, safe="")  # tenants choose names in owner references and labels: `../../other/gogruns/x`
        return "/".join(each for each in (f"{root}{place}/{self.plural}", name, part) if each)


GROUP, VERSION = "gog.dev", "v1alpha1"
OURS = {kind: Resource(GROUP, VERSION, f"{kind.lower()}s", "gog") for kind in KINDS}
RUNTIMES = Resource(GROUP, VERSION, "gogruntimes", "gog", is_namespaced=False)
VOLCANO_JOBS = Resource("batch.volcano.sh", "v1alpha1", "jobs", "Volcano")
VOLCANO_COMMANDS = Resource("bus.volcano.sh", "v1alpha1", "commands", "Volcano")
POD_GROUPS = Resource("scheduling.volcano.sh", "v1beta1", "podgroups", "Volcano")
INFERENCE_SERVICES = Resource("serving.kserve.io", "v1beta1", "inferenceservices", "KServe")
DEPLOYMENTS = Resource("apps", "v1", "deployments")
JOBS = Resource("batch", "v1", "jobs")
PODS = Resource("", "v1", "pods")
SERVICES = Resource("", "v1", "services")
CONFIG_MAPS = Resource("", "v1", "configmaps")
SECRETS = Resource("", "v1", "secrets")
EVENTS = Resource("", "v1", "events")
ENDPOINT_SLICES = Resource("discovery.k8s.io", "v1", "endpointslices")
LEASES = Resource("coordination.k8s.io", "v1", "leases")

KNOWN = (
    *OURS.values(),
    RUNTIMES,
    VOLCANO_JOBS,
    VOLCANO_COMMANDS,
    POD_GROUPS,
    INFERENCE_SERVICES,
    DEPLOYMENTS,
    JOBS,
    PODS,
    SERVICES,
    CONFIG_MAPS,
    SECRETS,
    EVENTS,
    ENDPOINT_SLICES,
    LEASES,
)
LABEL = "app.kubernetes.io/name=gog"
"""Label selector of our objects among shared resource types."""


def resource_of(path: str) -> Resource | None:
    """The resource of a path; None if it is not in KNOWN."""
    parts = path.strip("/").split("/")
    group, version, rest = ("", parts[1], parts[2:]) if parts[0] == "api" else (parts[1], parts[2], parts[3:])
    if len(rest) >= 3 and rest[0] == "namespaces":
        rest = rest[2:]
    return next((each for each in KNOWN if (each.group, each.version, each.plural) == (group, version, rest[0])), None)
