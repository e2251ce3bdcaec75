{{- define "oona.aggregateArgs" -}}
{{ include "oona.workerArgs" (dict "root" . "values" .Values.aggregate "port" 9102) }}
- {{ printf "--group=%s" (include "oona.group" (list . "aggregate" .Values.aggregate.group)) | quote }}
- --group-instance=$(POD_NAME)
- --worker=$(POD_NAME)
{{- include "oona.catalogueArg" . }}
{{- range $flag, $value := omit .Values.topics.windows "memory-limit" "worker-partitions" }}
- {{ printf "--%s=%s" $flag (include "oona.plain" $value) | quote }}
{{- end }}
{{- end -}}
