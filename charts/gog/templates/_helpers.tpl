{{- define "gog.name" -}}
{{ .Release.Name | trunc 50 | trimSuffix "-" }}-operator
{{- end }}

{{/* Of objects without a namespace: two releases of one name in two namespaces do not meet. */}}
{{- define "gog.clusterName" -}}
{{ printf "%s-%s" .Release.Namespace (include "gog.name" .) | trunc 120 }}
{{- end }}

{{/* Not `gog`: that is the name on what the operator makes, and by which it looks for it. */}}
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

{{/* JSON list of the namespaces named, or of the release's own. */}}
{{- define "gog.namespaces" -}}
{{ .Values.watch.namespaces | default (list .Release.Namespace) | toJson }}
{{- end }}

{{/* On pods of runs. */}}
{{- define "gog.workload" -}}
app.kubernetes.io/name: gog
app.kubernetes.io/managed-by: gog-operator
{{- end }}

{{- define "gog.plurals" -}}
[gogruns, curatestages, sftstages, stratifystages, grpostages, evaluatestages, endpoints]
{{- end }}

{{- define "gog.children" -}}
[curatestages, sftstages, stratifystages, grpostages, evaluatestages, endpoints]
{{- end }}
