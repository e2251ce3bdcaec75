{{- define "oona.exporterArgs" -}}
{{ include "oona.workerArgs" (dict "root" . "values" .Values.exporter "port" 9103) }}
- {{ printf "--lookback=%s" .Values.exporter.lookback | quote }}
{{- include "oona.catalogueArg" . }}
{{- include "oona.remoteWriteArgs" . }}
{{- end -}}

{{/* Arguments of remote write. The exporters are dynamic members of the group, as the name of a Deployment's pod does not come back: the partitions of a static member that ended would wait for its session to time out. */}}
{{- define "oona.remoteWriteArgs" -}}
{{- $root := . -}}
{{- with .Values.exporter.remoteWrite }}
{{- if .url }}
- {{ printf "--remote-write-url=%s" .url | quote }}
- {{ printf "--remote-write-group=%s" (include "oona.group" (list $root "remote-write" .group)) | quote }}
{{- if .username }}
- {{ printf "--remote-write-username=%s" .username | quote }}
- {{ printf "--remote-write-password-file=/etc/oona/remote-write/%s" .passwordKey | quote }}
{{- else if .existingSecret }}
- {{ printf "--remote-write-token-file=/etc/oona/remote-write/%s" .tokenKey | quote }}
{{- end }}
{{- if .caSecret }}
- {{ printf "--remote-write-ca-file=/etc/oona/remote-write-ca/%s" .caKey | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Volumes of remote write. */}}
{{- define "oona.remoteWriteVolumes" -}}
{{- with .Values.exporter.remoteWrite }}
{{- if and .url .existingSecret }}
{{ include "oona.secretVolume" (list "remote-write" .existingSecret (ternary .passwordKey .tokenKey (ne .username ""))) }}
{{- end }}
{{- if and .url .caSecret }}
{{ include "oona.secretVolume" (list "remote-write-ca" .caSecret .caKey) }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Mounts of the same. */}}
{{- define "oona.remoteWriteMounts" -}}
{{- with .Values.exporter.remoteWrite }}
{{- if and .url .existingSecret }}
{{ include "oona.secretMount" "remote-write" }}
{{- end }}
{{- if and .url .caSecret }}
{{ include "oona.secretMount" "remote-write-ca" }}
{{- end }}
{{- end }}
{{- end -}}
