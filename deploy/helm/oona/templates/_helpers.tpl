{{/* Names. A StatefulSet's name is at most 52 characters, as the label of its revision adds 11. */}}
{{- define "oona.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 37 | trimSuffix "-" -}}
{{- end -}}

{{- define "oona.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 37 | trimSuffix "-" -}}
{{- else if contains (include "oona.name" .) .Release.Name -}}
{{- .Release.Name | trunc 37 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "oona.name" .) | trunc 37 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "oona.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "oona.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* Labels of selectors: (list $ "aggregate"). They must never change, as selectors cannot be changed. */}}
{{- define "oona.selectorLabels" -}}
app.kubernetes.io/name: {{ include "oona.name" (index . 0) }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Labels of pods: those of selectors, and the user's. The versions are not among them, as they would restart every pod. */}}
{{- define "oona.podLabels" -}}
{{ include "oona.selectorLabels" . }}
{{- with (index . 0).Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels of objects: (list $ "aggregate"). */}}
{{- define "oona.labels" -}}
{{ include "oona.podLabels" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/part-of: oona
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ printf "%s-%s" (index . 0).Chart.Name (index . 0).Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{/* Image of a worker: (list $ "aggregate" $.Values.aggregate.image). */}}
{{- define "oona.image" -}}
{{- $root := index . 0 -}}
{{- $own := index . 2 -}}
{{- $repository := default (printf "%s/%s" (trimSuffix "/" $root.Values.image.repository) (index . 1)) $own.repository -}}
{{- if $own.digest -}}
{{- printf "%s@%s" $repository $own.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (default (default $root.Chart.AppVersion $root.Values.image.tag) $own.tag | toString) -}}
{{- end -}}
{{- end -}}
