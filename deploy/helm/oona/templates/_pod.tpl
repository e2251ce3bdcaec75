{{/* Fields of a worker's pod: dict "root" $ "name" "aggregate" "values" .Values.aggregate "grace" 30 "revision" "pod-template-hash". */}}
{{- define "oona.pod" -}}
serviceAccountName: {{ include "oona.serviceAccountName" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: {{ .grace }}
{{- include "oona.pullSecrets" .root }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
{{- if .values.topologySpreadConstraints }}
  {{- toYaml .values.topologySpreadConstraints | nindent 2 }}
{{- else }}
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "oona.selectorLabels" (list .root .name) | nindent 8 }}
    matchLabelKeys: [{{ .revision }}]
{{- end }}
securityContext:
  {{- toYaml .root.Values.podSecurityContext | nindent 2 }}
{{- end -}}

{{- define "oona.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Fields of a container, from its name to its command: (list $ "aggregate" $.Values.aggregate.image). */}}
{{- define "oona.program" -}}
name: {{ index . 1 }}
image: {{ include "oona.image" . }}
imagePullPolicy: {{ (index . 0).Values.image.pullPolicy }}
command: ["/ko-app/{{ index . 1 }}"]
{{- end -}}

{{/* Environment of a worker: its own, and the user's. */}}
{{- define "oona.env" -}}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: POD_IP
  valueFrom:
    fieldRef:
      fieldPath: status.podIP
{{- with include "oona.goMemLimit" . }}
- name: GOMEMLIMIT
  value: {{ . | quote }}
{{- end }}
{{- with .extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Probes of a worker: /livez never depends on the bus. */}}
{{- define "oona.probes" -}}
livenessProbe:
  httpGet:
    path: /livez
    port: admin
    scheme: {{ include "oona.adminScheme" . | upper }}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet:
    path: /readyz
    port: admin
    scheme: {{ include "oona.adminScheme" . | upper }}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
{{- end -}}

{{/* Arguments that every program has. */}}
{{- define "oona.busArgs" -}}
- {{ printf "--log-level=%s" .Values.logLevel | quote }}
- {{ printf "--brokers=%s" (join "," .Values.kafka.brokers) | quote }}
- {{ printf "--prefix=%s" .Values.kafka.prefix | quote }}
{{- with .Values.kafka.tls }}
{{- if .enabled }}
- --bus-tls
- {{ printf "--bus-tls-min-version=%s" .minVersion | quote }}
{{- with .serverName }}
- {{ printf "--bus-tls-server-name=%s" . | quote }}
{{- end }}
{{- if .caSecret }}
- {{ printf "--bus-tls-ca-file=/etc/oona/kafka-ca/%s" .caKey | quote }}
{{- end }}
{{- if .existingSecret }}
- {{ printf "--bus-tls-cert-file=/etc/oona/kafka-tls/%s" .certKey | quote }}
- {{ printf "--bus-tls-key-file=/etc/oona/kafka-tls/%s" .keyKey | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.kafka.sasl }}
{{- if ne .mechanism "none" }}
- {{ printf "--bus-sasl=%s" .mechanism | quote }}
{{- with .username }}
- {{ printf "--bus-sasl-username=%s" . | quote }}
{{- end }}
{{- if .existingSecret }}
{{- if eq .mechanism "oauthbearer" }}
- {{ printf "--bus-sasl-token-file=/etc/oona/kafka-sasl/%s" .tokenKey | quote }}
{{- else }}
- {{ printf "--bus-sasl-password-file=/etc/oona/kafka-sasl/%s" .passwordKey | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Arguments that every worker has: dict "root" $ "values" .Values.aggregate "port" 9102. */}}
{{- define "oona.workerArgs" -}}
- {{ printf "--admin-address=%s:%d" .root.Values.listenHost (int .port) | quote }}
- {{ printf "--drain-timeout=%ds" (int .values.drainSeconds) | quote }}
{{ include "oona.busArgs" .root }}
{{- with .root.Values.admin }}
{{- include "oona.serverArgs" (dict "flags" "admin" "dir" "admin" "values" .) }}
{{- if .pprof }}
- --admin-pprof
{{- end }}
{{- end }}
{{- include "oona.tracingArgs" .root }}
{{- end -}}

{{/* Arguments of a server with TLS and access: dict "flags" "listen" "dir" "listen" "values" .Values.ingest. */}}
{{- define "oona.serverArgs" -}}
{{- $flags := .flags -}}
{{- $dir := .dir -}}
{{- with .values.tls }}
{{- if .existingSecret }}
- {{ printf "--%s-tls-cert-file=/etc/oona/%s-tls/%s" $flags $dir .certKey | quote }}
- {{ printf "--%s-tls-key-file=/etc/oona/%s-tls/%s" $flags $dir .keyKey | quote }}
{{- end }}
{{- if .clientCASecret }}
- {{ printf "--%s-client-ca-file=/etc/oona/%s-client-ca/%s" $flags $dir .clientCAKey | quote }}
{{- end }}
{{- end }}
{{- with .values.access }}
{{- if .existingSecret }}
- {{ printf "--%s-access-file=/etc/oona/%s-access/%s" $flags $dir .key | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Volumes of the same: dict "dir" "listen" "values" .Values.ingest. */}}
{{- define "oona.serverVolumes" -}}
{{- $dir := .dir -}}
{{- with .values.tls }}
{{- if .existingSecret }}
{{ include "oona.secretVolume" (list (printf "%s-tls" $dir) .existingSecret .certKey .keyKey) }}
{{- end }}
{{- if .clientCASecret }}
{{ include "oona.secretVolume" (list (printf "%s-client-ca" $dir) .clientCASecret .clientCAKey) }}
{{- end }}
{{- end }}
{{- with .values.access }}
{{- if .existingSecret }}
{{ include "oona.secretVolume" (list (printf "%s-access" $dir) .existingSecret .key) }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Mounts of the same. */}}
{{- define "oona.serverMounts" -}}
{{- $dir := .dir -}}
{{- with .values.tls }}
{{- if .existingSecret }}
{{ include "oona.secretMount" (printf "%s-tls" $dir) }}
{{- end }}
{{- if .clientCASecret }}
{{ include "oona.secretMount" (printf "%s-client-ca" $dir) }}
{{- end }}
{{- end }}
{{- with .values.access }}
{{- if .existingSecret }}
{{ include "oona.secretMount" (printf "%s-access" $dir) }}
{{- end }}
{{- end }}
{{- end -}}

{{/* http, or https if the admin ports have a certificate. */}}
{{- define "oona.adminScheme" -}}
{{ if .Values.admin.tls.existingSecret }}https{{ else }}http{{ end }}
{{- end -}}

{{/* The user's arguments: (list $.Values.aggregate.extraArgs "aggregate" "arguments of the chart"). One that the chart gives, or would give for some value, is an error, as the chart relies on it. */}}
{{- define "oona.extraArgs" -}}
{{- $where := index . 1 -}}
{{- $given := index . 2 -}}
{{- $owned := "^--((admin|bus|s3)-.*|listen(-.*)?|raw(-group)?|tensor-(store|bucket|directory)|catalogue|no-create|remote-write-(url|username|password-file|token-file|ca-file|group)|trace-.*)$" -}}
{{- range index . 0 }}
{{- $flag := first (splitList "=" .) -}}
{{- if or (regexMatch $owned $flag) (regexMatch (printf "(?m)^- \"?%s(=|\"?$)" (regexQuoteMeta $flag)) $given) }}
{{- fail (printf "%s.extraArgs has %s, which is the chart's: use the chart's value for it, as the chart relies on it" $where $flag) }}
{{- end }}
- {{ . | quote }}
{{- end }}
{{- end -}}

{{/* Volumes of every pod but that of `helm test`: dict "root" $ "values" .Values.aggregate "worker" true. A worker has an admin port. */}}
{{- define "oona.volumes" -}}
{{- with .root.Values.kafka.tls }}
{{- if and .enabled .caSecret }}
{{ include "oona.secretVolume" (list "kafka-ca" .caSecret .caKey) }}
{{- end }}
{{- if and .enabled .existingSecret }}
{{ include "oona.secretVolume" (list "kafka-tls" .existingSecret .certKey .keyKey) }}
{{- end }}
{{- end }}
{{- with .root.Values.kafka.sasl }}
{{- if and (ne .mechanism "none") .existingSecret }}
{{ include "oona.secretVolume" (list "kafka-sasl" .existingSecret (ternary .tokenKey .passwordKey (eq .mechanism "oauthbearer"))) }}
{{- end }}
{{- end }}
{{- if .worker }}
{{- include "oona.serverVolumes" (dict "dir" "admin" "values" .root.Values.admin) }}
{{- include "oona.tracingVolumes" .root }}
{{- end }}
{{- with .root.Values.catalogue.existingConfigMap }}
- name: catalogue
  configMap:
    name: {{ . }}
{{- end }}
{{- with .values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Mounts of the same. */}}
{{- define "oona.mounts" -}}
{{- with .root.Values.kafka.tls }}
{{- if and .enabled .caSecret }}
{{ include "oona.secretMount" "kafka-ca" }}
{{- end }}
{{- if and .enabled .existingSecret }}
{{ include "oona.secretMount" "kafka-tls" }}
{{- end }}
{{- end }}
{{- with .root.Values.kafka.sasl }}
{{- if and (ne .mechanism "none") .existingSecret }}
{{ include "oona.secretMount" "kafka-sasl" }}
{{- end }}
{{- end }}
{{- if .worker }}
{{- include "oona.serverMounts" (dict "dir" "admin" "values" .root.Values.admin) }}
{{- include "oona.tracingMounts" .root }}
{{- end }}
{{- if .root.Values.catalogue.existingConfigMap }}
- name: catalogue
  mountPath: /etc/oona/catalogue
  readOnly: true
{{- end }}
{{- with .values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "oona.catalogueArg" -}}
{{- if .Values.catalogue.existingConfigMap }}
- {{ printf "--catalogue=/etc/oona/catalogue/%s" .Values.catalogue.key | quote }}
{{- end }}
{{- end -}}

{{/* Volume with keys of a Secret: (list "name" "secret" "key" ...). A pod does not start if a key is missing. */}}
{{- define "oona.secretVolume" -}}
- name: {{ index . 0 }}
  secret:
    secretName: {{ index . 1 }}
    defaultMode: 0440
    items:
    {{- range slice . 2 }}
      - key: {{ . }}
        path: {{ . }}
    {{- end }}
{{- end -}}

{{/* Mount of such a volume. The whole directory, as only then a Secret that changes reaches the pod. */}}
{{- define "oona.secretMount" -}}
- name: {{ . }}
  mountPath: /etc/oona/{{ . }}
  readOnly: true
{{- end -}}
