{{- define "oona.aggregateArgs" -}}
{{ include "oona.workerArgs" (dict "root" . "values" .Values.aggregate "port" 9102) }}
- {{ printf "--group=%s" .Values.aggregate.group | quote }}
- --group-instance=$(POD_NAME)
- --worker=$(POD_NAME)
{{- include "oona.catalogueArg" . }}
{{- range $flag, $value := omit .Values.topics.windows "memory-limit" "worker-partitions" }}
- {{ printf "--%s=%v" $flag $value | quote }}
{{- end }}
{{- end -}}
