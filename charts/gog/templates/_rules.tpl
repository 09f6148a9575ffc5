{{/*
Permissions in a namespace of runs: exactly the verbs that the operator uses. It reads no Secrets: that one is missing it
learns from the pods that wait for it. Volcano Jobs are deleted by garbage collection.
*/}}
{{- define "gog.rules" -}}
- apiGroups: [gog.dev]
  resources: {{ include "gog.plurals" . }}
  verbs: [get, list, watch, delete]
- apiGroups: [gog.dev]
  resources: {{ include "gog.children" . }}
  verbs: [create, patch]
- apiGroups: [gog.dev]
  resources: [gogruns/status, curatestages/status, sftstages/status, stratifystages/status, grpostages/status, evaluatestages/status, endpoints/status]
  verbs: [patch]
# Not used by the operator itself, but required where OwnerReferencesPermissionEnforcement checks blockOwnerDeletion.
- apiGroups: [gog.dev]
  resources: [gogruns/finalizers, curatestages/finalizers, sftstages/finalizers, stratifystages/finalizers, grpostages/finalizers, evaluatestages/finalizers, endpoints/finalizers]
  verbs: [update]
- apiGroups: [batch.volcano.sh]
  resources: [jobs]
  verbs: [get, list, watch, create]
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

{{/* Permissions in the operator's own namespace: the Lease by which one of several operators is active. */}}
{{- define "gog.leaseRules" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, create, patch]
{{- end }}

{{- define "gog.subject" -}}
- kind: ServiceAccount
  name: {{ include "gog.serviceAccount" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}
