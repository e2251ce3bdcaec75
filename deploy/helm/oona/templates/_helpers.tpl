{{/* Names. A StatefulSet's name has at most 52 characters, as the label of its revision adds 11. */}}
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

{{- define "oona.ingestName" -}}
{{ include "oona.fullname" . }}-ingest{{ if not .Values.ingest.spool.enabled }}-nospool{{ end }}
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

{{/* Labels of pods. Versions are not among them, as they would restart every pod. */}}
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

{{/* Name, namespace and labels of an object: (list $ "aggregate" "name"). */}}
{{- define "oona.metadata" -}}
name: {{ index . 2 }}
namespace: {{ (index . 0).Release.Namespace }}
labels:
  {{- include "oona.labels" . | nindent 2 }}
{{- end -}}

{{/* Image of a program: (list $ "aggregate" $.Values.aggregate.image). */}}
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

{{/* Bytes of a quantity of memory or storage, such as 1.5Gi, 500M, 1e9 or 1073741824. */}}
{{- define "oona.bytes" -}}
{{- if kindIs "string" . -}}
{{- $number := regexFind "^[0-9.]+([eE][0-9]+)?" . -}}
{{- $unit := trimPrefix $number . -}}
{{- $factors := dict "" 1 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "Pi" 1125899906842624 "Ei" 1152921504606846976 -}}
{{- if or (not $number) (not (hasKey $factors $unit)) -}}
{{- fail (printf "%q is not a quantity of memory: write, for example, 2Gi" .) -}}
{{- end -}}
{{- mulf (float64 $number) (get $factors $unit) | int64 -}}
{{- else -}}
{{- int64 . -}}
{{- end -}}
{{- end -}}

{{/* Value of GOMEMLIMIT of a worker: nine tenths of its limit. The downward API would give all of it, and the memory of the node where there is no limit. */}}
{{- define "oona.goMemLimit" -}}
{{- if .goMemLimit -}}
{{- .goMemLimit -}}
{{- else -}}
{{- with dig "limits" "memory" "" (default dict .resources) -}}
{{- $bytes := include "oona.bytes" . | int64 -}}
{{- if lt $bytes 16777216 -}}
{{- fail (printf "resources.limits.memory is %v, which is %d bytes: give at least 16Mi. (m means thousandths; a megabyte is M.)" . $bytes) -}}
{{- end -}}
{{- div (mul 9 $bytes) 10 -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Consumer group of a worker: (list $ "aggregate" $.Values.aggregate.group). Its default depends on the prefix, as the names of pods do not differ between two installations whose releases have one name. */}}
{{- define "oona.group" -}}
{{- $prefix := (index . 0).Values.kafka.prefix -}}
{{- $group := printf "oona-%s" (index . 1) -}}
{{- if ne $prefix "kasmina" -}}
{{- $group = printf "%s-%s" $prefix $group -}}
{{- end -}}
{{- default $group (index . 2) -}}
{{- end -}}

{{/* A value of a flag. Helm reads numbers as float64, which would be printed as 1e+06. */}}
{{- define "oona.plain" -}}
{{- if kindIs "float64" . -}}
{{- int64 . -}}
{{- else -}}
{{- . -}}
{{- end -}}
{{- end -}}

{{/* Matchers of the series of this release. */}}
{{- define "oona.matchers" -}}
{{- if .Values.metrics.rules.matchers -}}
{{- .Values.metrics.rules.matchers -}}
{{- else -}}
namespace="{{ .Release.Namespace }}",job=~"{{ include "oona.fullname" . }}-(ingest|aggregate|exporter)"
{{- end -}}
{{- end -}}

{{/* An expression whose selectors have more matchers: (list "expression" "matchers"). absent() needs them, too, as no series is left that could be grouped. */}}
{{- define "oona.scoped" -}}
{{- $metric := "\\b((?:oona|kasmina)_[a-z0-9_]+|up)" -}}
{{- $some := regexReplaceAll (printf "%s\\{([^}])" $metric) (index . 0) (printf "${1}{%s,${2}" (index . 1)) -}}
{{- regexReplaceAll (printf "%s([^a-zA-Z0-9_:{]|$)" $metric) $some (printf "${1}{%s}${2}" (index . 1)) -}}
{{- end -}}

{{/* Ports of the brokers, as a list in JSON. */}}
{{- define "oona.kafkaPorts" -}}
{{- $ports := list -}}
{{- range .Values.kafka.brokers -}}
{{- $ports = append $ports (splitList ":" . | last | int) -}}
{{- end -}}
{{- uniq $ports | toJson -}}
{{- end -}}

{{/* Ports of the S3 server, and of STS if there is no access key, as a list in JSON. */}}
{{- define "oona.storePorts" -}}
{{- $s3 := .Values.ingest.tensors.s3 -}}
{{- $url := urlParse (default "https://aws" $s3.endpoint) -}}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" | default (eq $url.scheme "http" | ternary "80" "443") | int -}}
{{- $ports := list $port -}}
{{- if not $s3.accessKeyId -}}
{{- $ports = append $ports 443 -}}
{{- end -}}
{{- uniq $ports | toJson -}}
{{- end -}}

{{/* Port of the remote-write receiver. */}}
{{- define "oona.remoteWritePort" -}}
{{- $url := urlParse .Values.exporter.remoteWrite.url -}}
{{- regexFind ":[0-9]+$" $url.host | trimPrefix ":" | default (eq $url.scheme "http" | ternary "80" "443") | int -}}
{{- end -}}
