{{/*
What the operator does in a namespace of runs: each verb here is used, and no more is. No Secret is read: that one is
missing is learnt from the pods that wait for it. Jobs are never changed, only made and removed.
*/}}
{{- define "gog.rules" -}}
- apiGroups: [gog.dev]
  resources: {{ include "gog.plurals" . }}
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [gog.dev]
  resources: [gogruns/status, curatestages/status, sftstages/status, stratifystages/status, grpostages/status, evaluatestages/status, endpoints/status]
  verbs: [patch]
# An owner that blocks its own deletion until its children are gone needs this.
- apiGroups: [gog.dev]
  resources: [gogruns/finalizers, curatestages/finalizers, sftstages/finalizers, stratifystages/finalizers, grpostages/finalizers, evaluatestages/finalizers, endpoints/finalizers]
  verbs: [update]
- apiGroups: [batch.volcano.sh]
  resources: [jobs]
  verbs: [get, list, watch, create, delete]
- apiGroups: [bus.volcano.sh]
  resources: [commands]
  verbs: [create]
- apiGroups: [scheduling.volcano.sh]
  resources: [podgroups]
  verbs: [list]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, delete]
- apiGroups: [serving.kserve.io]
  resources: [inferenceservices]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list]
- apiGroups: [""]
  resources: [configmaps, services]
  verbs: [get, create, patch, delete]
- apiGroups: [""]
  resources: [events]
  verbs: [create, patch]
{{- end }}

{{/* In the operator's own namespace: who of several is at work. */}}
{{- define "gog.leaseRules" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, create, update]
{{- end }}

{{- define "gog.subject" -}}
- kind: ServiceAccount
  name: {{ include "gog.serviceAccount" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}
