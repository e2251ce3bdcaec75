{{- define "oona.ingestArgs" -}}
{{ include "oona.workerArgs" (dict "root" . "values" .Values.ingest "port" 9101) }}
- {{ printf "--listen=%s:8080" .Values.listenHost | quote }}
- --instance=$(POD_NAMESPACE).$(POD_NAME)
- {{ printf "--max-message-bytes=%s" (include "oona.plain" .Values.kafka.maxMessageBytes) | quote }}
{{- with .Values.ingest.spool }}
{{- if .enabled }}
- --spool-directory=/var/lib/oona/spool
- {{ printf "--spool-bytes=%dB" (div (mul 9 (include "oona.bytes" .size | int64)) 10) | quote }}
{{- end }}
{{- end }}
{{- if .Values.ingest.raw }}
- --raw
- {{ printf "--raw-group=%s" (include "oona.group" (list . "ingest" .Values.ingest.rawGroup)) | quote }}
{{- end }}
{{- include "oona.serverArgs" (dict "flags" "listen" "dir" "listen" "values" .Values.ingest) }}
{{- include "oona.tensorArgs" .Values.ingest.tensors }}
{{- end -}}

{{- define "oona.tensorArgs" -}}
{{- if ne .store "none" }}
- {{ printf "--tensor-store=%s" .store | quote }}
- {{ printf "--tensor-bucket=%s" .bucket | quote }}
{{- end }}
{{- if eq .store "directory" }}
- --tensor-directory=/var/lib/oona/tensors
{{- end }}
{{- if eq .store "s3" }}
{{- with .s3 }}
{{- with .endpoint }}
- {{ printf "--s3-endpoint=%s" . | quote }}
{{- end }}
- {{ printf "--s3-region=%s" .region | quote }}
{{- if .pathStyle }}
- --s3-path-style
{{- end }}
{{- with .accessKeyId }}
- {{ printf "--s3-access-key-id=%s" . | quote }}
{{- end }}
{{- if .existingSecret }}
- {{ printf "--s3-secret-access-key-file=/etc/oona/s3/%s" .secretAccessKeyKey | quote }}
{{- end }}
{{- if .caSecret }}
- {{ printf "--s3-ca-file=/etc/oona/s3-ca/%s" .caKey | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "oona.tensorMounts" -}}
{{- if eq .store "directory" }}
- name: tensors
  mountPath: /var/lib/oona/tensors
{{- end }}
{{- if eq .store "s3" }}
{{- if .s3.existingSecret }}
{{ include "oona.secretMount" "s3" }}
{{- end }}
{{- if .s3.caSecret }}
{{ include "oona.secretMount" "s3-ca" }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "oona.tensorVolumes" -}}
{{- if eq .store "directory" }}
- name: tensors
  persistentVolumeClaim:
    claimName: {{ .directory.existingClaim }}
{{- end }}
{{- if eq .store "s3" }}
{{- with .s3 }}
{{- if .existingSecret }}
{{ include "oona.secretVolume" (list "s3" .existingSecret .secretAccessKeyKey) }}
{{- end }}
{{- if .caSecret }}
{{ include "oona.secretVolume" (list "s3-ca" .caSecret .caKey) }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}
