{{- define "oona.topicsArgs" -}}
- topics
- apply
{{- if eq .Values.topics.mode "no-create" }}
- --no-create
{{- end }}
{{ include "oona.busArgs" . }}
- {{ printf "--group=%s" (include "oona.group" (list . "aggregate" .Values.aggregate.group)) | quote }}
- {{ printf "--partitions=%d" (int .Values.topics.partitions) | quote }}
- {{ printf "--max-message-bytes=%s" (include "oona.plain" .Values.kafka.maxMessageBytes) | quote }}
{{- include "oona.catalogueArg" . }}
{{- range $flag, $value := .Values.topics.windows }}
- {{ printf "--%s=%s" $flag (include "oona.plain" $value) | quote }}
{{- end }}
{{- end -}}
