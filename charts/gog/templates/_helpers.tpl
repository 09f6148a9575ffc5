{{- define "gog.name" -}}
{{ .Release.Name | trunc 50 | trimSuffix "-" }}-operator
{{- end }}

{{/* Name of cluster-scoped objects: two releases with one name in two namespaces do not collide. */}}
{{- define "gog.clusterName" -}}
{{ printf "%s-%s" .Release.Namespace (include "gog.name" .) | trunc 120 }}
{{- end }}

{{/* Not `gog`, which is the name label of the objects that the operator creates and selects. */}}
{{- define "gog.selector" -}}
app.kubernetes.io/name: gog-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "gog.labels" -}}
{{ include "gog.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "gog.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "gog.name" .) }}
{{- end }}

{{/* JSON list of the namespaces to watch: those in the values, or that of the release. */}}
{{- define "gog.namespaces" -}}
{{ .Values.watch.namespaces | default (list .Release.Namespace) | toJson }}
{{- end }}

{{/* An image of the values, in the registry of the values. */}}
{{- define "gog.image" -}}
{{ with .registry }}{{ . }}/{{ end }}{{ .image }}
{{- end }}

{{/* Labels of the pods of runs. */}}
{{- define "gog.workload" -}}
app.kubernetes.io/name: gog
app.kubernetes.io/managed-by: gog-operator
{{- end }}

{{- define "gog.plurals" -}}
[gogruns, curatestages, sftstages, stratifystages, grpostages, evaluatestages, toolservers]
{{- end }}

{{- define "gog.children" -}}
[curatestages, sftstages, stratifystages, grpostages, evaluatestages, toolservers]
{{- end }}
