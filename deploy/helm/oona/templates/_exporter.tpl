{{- define "oona.exporterArgs" -}}
{{ include "oona.workerArgs" (dict "root" . "values" .Values.exporter "port" 9103) }}
- {{ printf "--lookback=%s" .Values.exporter.lookback | quote }}
{{- include "oona.catalogueArg" . }}
{{- end -}}
