"""Rules by which the scheduler places pods near nodes and other pods, in the form of Kubernetes.

Keys and values have no pattern: the API server bounds the cost of rules by what a schema permits, which is much where lists are
in lists. It checks them when a pod is created.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gog.spec.base import Spec

Key = Annotated[str, Field(max_length=317)]
Value = Annotated[str, Field(max_length=63)]


class NodeRequirement(Spec):
    """A label of a node, and the values that it must or must not have."""

    key: Key = Field(description="Key of the label.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"] = Field(
        description="How the label is compared with `values`."
    )
    values: tuple[Value, ...] = Field(
        (), max_length=16, description="Values; none with Exists and DoesNotExist, one with Gt and Lt. Default: none."
    )


class NodeTerm(Spec):
    """Requirements of a node, all of which must hold."""

    match_expressions: tuple[NodeRequirement, ...] = Field(
        (), max_length=16, description="Requirements of the node's labels. Default: none."
    )


class NodeTerms(Spec):
    """Alternatives, one of which must hold."""

    node_selector_terms: tuple[NodeTerm, ...] = Field(min_length=1, max_length=16, description="The alternatives.")


class PreferredNodes(Spec):
    """Nodes that the scheduler prefers."""

    weight: int = Field(ge=1, le=100, description="Weight among all preferences.")
    preference: NodeTerm = Field(description="Requirements of the preferred nodes.")


class NodeAffinity(Spec):
    """Which nodes a pod may run on, and which it prefers."""

    required_during_scheduling_ignored_during_execution: NodeTerms | None = Field(
        None, description="Nodes that the pod may run on. Default: all."
    )
    preferred_during_scheduling_ignored_during_execution: tuple[PreferredNodes, ...] = Field(
        (), max_length=16, description="Nodes that the pod prefers. Default: none."
    )


class LabelRequirement(Spec):
    """A label of a pod or namespace, and the values that it must or must not have."""

    key: Key = Field(description="Key of the label.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(
        description="How the label is compared with `values`."
    )
    values: tuple[Value, ...] = Field(
        (), max_length=16, description="Values; none with Exists and DoesNotExist. Default: none."
    )


class LabelSelector(Spec):
    """Labels, all of which must match; an empty one matches everything."""

    match_labels: dict[Key, Value] = Field(
        default_factory=dict, max_length=16, description="Labels that must have these values."
    )
    match_expressions: tuple[LabelRequirement, ...] = Field(
        (), max_length=16, description="Further requirements of the labels. Default: none."
    )


class PodTerm(Spec):
    """Other pods, and the kind of place that counts as the same."""

    topology_key: Key = Field(
        description="Label of nodes whose value is the place: `topology.kubernetes.io/zone`, `kubernetes.io/hostname`."
    )
    label_selector: LabelSelector | None = Field(None, description="Labels of the other pods. Default: no pod.")
    namespaces: tuple[Value, ...] = Field(
        (), max_length=16, description="Namespaces of the other pods. Default: that of the run."
    )
    namespace_selector: LabelSelector | None = Field(
        None, description="Labels of the namespaces of the other pods. Default: none."
    )


class PreferredPods(Spec):
    """Other pods near to or far from which the scheduler prefers to place a pod."""

    weight: int = Field(ge=1, le=100, description="Weight among all preferences.")
    pod_affinity_term: PodTerm = Field(description="The other pods.")


class PodAffinity(Spec):
    """Other pods near to or far from which a pod must or should run."""

    required_during_scheduling_ignored_during_execution: tuple[PodTerm, ...] = Field(
        (), max_length=16, description="Where the pod must run. Default: anywhere."
    )
    preferred_during_scheduling_ignored_during_execution: tuple[PreferredPods, ...] = Field(
        (), max_length=16, description="Where the pod should run. Default: anywhere."
    )


class AffinitySpec(Spec):
    """Where pods run, relative to nodes and other pods."""

    node_affinity: NodeAffinity | None = Field(None, description="Nodes by their labels. Default: all.")
    pod_affinity: PodAffinity | None = Field(None, description="Pods to run near to. Default: none.")
    pod_anti_affinity: PodAffinity | None = Field(None, description="Pods to run far from. Default: none.")


class TopologySpread(Spec):
    """How evenly pods are spread over places."""

    max_skew: int = Field(ge=1, description="Largest difference between the numbers of pods of two places.")
    topology_key: Key = Field(description="Label of nodes whose value is the place: `topology.kubernetes.io/zone`.")
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"] = Field(
        description="Whether a pod waits where the difference would be larger, or is placed all the same."
    )
    label_selector: LabelSelector | None = Field(None, description="Labels of the pods that count. Default: no pod.")
    min_domains: int | None = Field(None, ge=1, description="Least number of places, with DoNotSchedule. Default: 1.")
