{{/*
Permissions in a namespace of runs: exactly the verbs that the operator uses. It reads no Secrets there: that one is missing it
learns from the pods that wait for it. Volcano Jobs are deleted by garbage collection, or after jobs.ttlSeconds.
*/}}
{{- define "gog.rules" -}}
- apiGroups: [gog.dev]
  resources: {{ include "gog.plurals" . }}
  verbs: [get, list, watch, delete]
- apiGroups: [gog.dev]
  resources: {{ include "gog.children" . }}
  verbs: [create, patch]
# The finalizer of runs whose artifacts are erased with them (spec.artifactPolicy).
- apiGroups: [gog.dev]
  resources: [gogruns]
  verbs: [patch]
- apiGroups: [gog.dev]
  resources: [gogruns/status, curatestages/status, sftstages/status, stratifystages/status, grpostages/status, evaluatestages/status, toolservers/status]
  verbs: [patch]
# Not used by the operator itself, but required where OwnerReferencesPermissionEnforcement checks blockOwnerDeletion.
- apiGroups: [gog.dev]
  resources: [gogruns/finalizers, curatestages/finalizers, sftstages/finalizers, stratifystages/finalizers, grpostages/finalizers, evaluatestages/finalizers, toolservers/finalizers]
  verbs: [update]
- apiGroups: [batch.volcano.sh]
  resources: [jobs]
  verbs: [get, list, watch, create, delete]
- apiGroups: [bus.volcano.sh]
  resources: [commands]
  verbs: [create]
- apiGroups: [scheduling.volcano.sh]
  resources: [podgroups]
  verbs: [get]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [serving.kserve.io]
  resources: [inferenceservices]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list]
- apiGroups: [""]
  resources: [pods]
  verbs: [list]
- apiGroups: [""]
  resources: [services]
  verbs: [create, patch]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, create, patch, delete]
- apiGroups: [""]
  resources: [events]
  verbs: [get, list, create, patch]
{{- end }}

{{/* Permissions in the operator's own namespace: the Lease by which one of several operators is active, and its key. */}}
{{- define "gog.leaseRules" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [{{ include "gog.name" . }}]
  verbs: [get, patch]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
# Its own key, from which the tokens of policy servers are derived: the only Secret that it may read.
- apiGroups: [""]
  resources: [secrets]
  resourceNames: [{{ include "gog.name" . }}-key]
  verbs: [get]
- apiGroups: [""]
  resources: [secrets]
  verbs: [create]
{{- end }}

{{/* Permissions about presets, which are cluster-scoped: one is read by its name, and none is listed or watched. */}}
{{- define "gog.presetRules" -}}
- apiGroups: [gog.dev]
  resources: [gogruntimes]
  verbs: [get]
{{- end }}

{{- define "gog.subject" -}}
- kind: ServiceAccount
  name: {{ include "gog.serviceAccount" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}
