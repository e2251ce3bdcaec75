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
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet:
    path: /readyz
    port: admin
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
{{- end -}}

{{/* Arguments that every program has. */}}
{{- define "oona.busArgs" -}}
- {{ printf "--log-level=%s" .Values.logLevel | quote }}
- {{ printf "--brokers=%s" (join "," .Values.kafka.brokers) | quote }}
- {{ printf "--prefix=%s" .Values.kafka.prefix | quote }}
{{- end -}}

{{/* Arguments that every worker has: dict "root" $ "values" .Values.aggregate "port" 9102. */}}
{{- define "oona.workerArgs" -}}
- {{ printf "--admin-address=%s:%d" .root.Values.listenHost (int .port) | quote }}
- {{ printf "--drain-timeout=%ds" (int .values.drainSeconds) | quote }}
{{ include "oona.busArgs" .root }}
{{- end -}}

{{/* The user's arguments: (list $.Values.aggregate.extraArgs "aggregate" "arguments of the chart"). One that the chart gives is an error, as the chart relies on its value. */}}
{{- define "oona.extraArgs" -}}
{{- $where := index . 1 -}}
{{- $given := index . 2 -}}
{{- range index . 0 }}
{{- $flag := first (splitList "=" .) -}}
{{- if regexMatch (printf "(?m)^- \"?%s(=|\"?$)" (regexQuoteMeta $flag)) $given }}
{{- fail (printf "%s.extraArgs has %s, which the chart gives already: use the chart's value for it, as the chart relies on it" $where $flag) }}
{{- end }}
- {{ . | quote }}
{{- end }}
{{- end -}}

{{/* Volumes of a pod that reads a catalogue, and the user's: dict "root" $ "values" .Values.aggregate. */}}
{{- define "oona.volumes" -}}
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
