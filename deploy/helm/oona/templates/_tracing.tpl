{{/* Arguments of traces. */}}
{{- define "oona.tracingArgs" -}}
{{- with .Values.tracing }}
{{- if ne .exporter "none" }}
- {{ printf "--trace-exporter=%s" .exporter | quote }}
- {{ printf "--trace-endpoint=%s" .endpoint | quote }}
- {{ printf "--trace-sample-ratio=%v" .sampleRatio | quote }}
{{- if .headersSecret }}
- {{ printf "--trace-headers-file=/etc/oona/trace-headers/%s" .headersKey | quote }}
{{- end }}
{{- if .caSecret }}
- {{ printf "--trace-ca-file=/etc/oona/trace-ca/%s" .caKey | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Volumes of traces. */}}
{{- define "oona.tracingVolumes" -}}
{{- with .Values.tracing }}
{{- if .headersSecret }}
{{ include "oona.secretVolume" (list "trace-headers" .headersSecret .headersKey) }}
{{- end }}
{{- if .caSecret }}
{{ include "oona.secretVolume" (list "trace-ca" .caSecret .caKey) }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Mounts of the same. */}}
{{- define "oona.tracingMounts" -}}
{{- with .Values.tracing }}
{{- if .headersSecret }}
{{ include "oona.secretMount" "trace-headers" }}
{{- end }}
{{- if .caSecret }}
{{ include "oona.secretMount" "trace-ca" }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Port of the collector. */}}
{{- define "oona.tracingPort" -}}
{{- $url := urlParse .Values.tracing.endpoint -}}
{{- regexFind ":[0-9]+$" $url.host | trimPrefix ":" | default (eq $url.scheme "http" | ternary "80" "443") | int -}}
{{- end -}}
