{{/* What no schema can say. Each message says what to do. */}}
{{- define "oona.validate" -}}
{{- $partitions := int .Values.topics.partitions -}}
{{- if not .Values.kafka.brokers -}}
{{- fail "kafka.brokers is empty: give the addresses of your Kafka brokers, for example --set 'kafka.brokers={kafka-0:9092,kafka-1:9092}'" -}}
{{- end -}}
{{- with .Values.aggregate -}}
{{- if and (eq .autoscaling.mode "none") (gt (int .replicas) $partitions) -}}
{{- fail (printf "aggregate.replicas is %d, but topics.partitions is %d: a partition is folded by one aggregator, so the others would stand by. Set aggregate.replicas to at most %d." (int .replicas) $partitions $partitions) -}}
{{- end -}}
{{- if eq .autoscaling.mode "keda" -}}
{{- if gt (int .autoscaling.maxReplicas) $partitions -}}
{{- fail (printf "aggregate.autoscaling.maxReplicas is %d, but topics.partitions is %d: a partition is folded by one aggregator, so the others would stand by. Set it to at most %d." (int .autoscaling.maxReplicas) $partitions $partitions) -}}
{{- end -}}
{{- if gt (int .autoscaling.minReplicas) (int .autoscaling.maxReplicas) -}}
{{- fail (printf "aggregate.autoscaling.minReplicas %d is more than maxReplicas %d" (int .autoscaling.minReplicas) (int .autoscaling.maxReplicas)) -}}
{{- end -}}
{{- if gt (int .autoscaling.fallbackReplicas) (int .autoscaling.maxReplicas) -}}
{{- fail (printf "aggregate.autoscaling.fallbackReplicas %d is more than maxReplicas %d" (int .autoscaling.fallbackReplicas) (int .autoscaling.maxReplicas)) -}}
{{- end -}}
{{- if not .autoscaling.prometheusAddress -}}
{{- fail "aggregate.autoscaling.mode is keda, but aggregate.autoscaling.prometheusAddress is empty: give the URL of the Prometheus that scrapes the aggregators" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with .Values.ingest -}}
{{- if and .spool.enabled (lt (include "oona.bytes" .spool.size | int64) 134217728) -}}
{{- fail (printf "ingest.spool.size is %s: give at least 128Mi, or turn the spool off with ingest.spool.enabled=false" .spool.size) -}}
{{- end -}}
{{- if and .autoscaling.enabled (gt (int .autoscaling.minReplicas) (int .autoscaling.maxReplicas)) -}}
{{- fail (printf "ingest.autoscaling.minReplicas %d is more than maxReplicas %d" (int .autoscaling.minReplicas) (int .autoscaling.maxReplicas)) -}}
{{- end -}}
{{- if and (eq .tensors.store "directory") (not .tensors.directory.existingClaim) -}}
{{- fail "ingest.tensors.store is directory, but ingest.tensors.directory.existingClaim is empty: name a PersistentVolumeClaim that all ingests can mount" -}}
{{- end -}}
{{- if and .ingress.enabled (not .ingress.hosts) -}}
{{- fail "ingest.ingress is enabled, but ingest.ingress.hosts is empty: give the host name that trainers use" -}}
{{- end -}}
{{- if and .httpRoute.enabled (not .httpRoute.parentRefs) -}}
{{- fail "ingest.httpRoute is enabled, but ingest.httpRoute.parentRefs is empty: name a Gateway" -}}
{{- end -}}
{{- end -}}
{{- with .Values.exporter.remoteWrite -}}
{{- if and (not .url) (or .username .existingSecret .caSecret) -}}
{{- fail "exporter.remoteWrite has settings, but exporter.remoteWrite.url is empty: give the URL of the receiver, or remove the settings" -}}
{{- end -}}
{{- if and .username (not .existingSecret) -}}
{{- fail "exporter.remoteWrite.username needs exporter.remoteWrite.existingSecret (a Secret with the password)" -}}
{{- end -}}
{{- if and .caSecret (hasPrefix "http:" .url) -}}
{{- fail "exporter.remoteWrite.caSecret is set, but exporter.remoteWrite.url begins with http: give a URL that begins with https" -}}
{{- end -}}
{{- end -}}
{{- with .Values.tracing -}}
{{- if and (eq .exporter "none") (or .endpoint .headersSecret .caSecret) -}}
{{- fail "tracing has settings, but tracing.exporter is none: set it to otlp-grpc or otlp-http, or remove the settings" -}}
{{- end -}}
{{- if and (ne .exporter "none") (not .endpoint) -}}
{{- fail "tracing.exporter is set, but tracing.endpoint is empty: give the URL of the collector" -}}
{{- end -}}
{{- if and .caSecret (hasPrefix "http:" .endpoint) -}}
{{- fail "tracing.caSecret is set, but tracing.endpoint begins with http: give a URL that begins with https" -}}
{{- end -}}
{{- end -}}
{{- with .Values.kafka -}}
{{- if and (has .sasl.mechanism (list "plain" "scram-sha-256" "scram-sha-512")) (or (not .sasl.username) (not .sasl.existingSecret)) -}}
{{- fail (printf "kafka.sasl.mechanism is %s, which needs kafka.sasl.username and kafka.sasl.existingSecret (a Secret with the password)" .sasl.mechanism) -}}
{{- end -}}
{{- if and (eq .sasl.mechanism "none") (or .sasl.username .sasl.existingSecret) -}}
{{- fail "kafka.sasl has credentials, but kafka.sasl.mechanism is none: give the mechanism, for example scram-sha-512" -}}
{{- end -}}
{{- if and (not .tls.enabled) (or .tls.caSecret .tls.existingSecret .tls.serverName) -}}
{{- fail "kafka.tls has settings, but kafka.tls.enabled is false: the connections would be plain text. Set it to true, or remove the settings." -}}
{{- end -}}
{{- end -}}
{{- range $name, $tls := dict "ingest.tls" .Values.ingest.tls "admin.tls" .Values.admin.tls -}}
{{- if and $tls.clientCASecret (not $tls.existingSecret) -}}
{{- fail (printf "%s.clientCASecret needs %s.existingSecret: without a certificate of its own, the server asks for none" $name $name) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.admin.tls.existingSecret (not .Values.metrics.tlsConfig) (or .Values.metrics.serviceMonitor.enabled .Values.metrics.podMonitor.enabled) -}}
{{- fail "admin.tls is set, but metrics.tlsConfig is empty: say how Prometheus verifies the workers, for example {ca: {secret: {name: oona-admin, key: ca.crt}}, serverName: oona}" -}}
{{- end -}}
{{- if and .Values.metrics.serviceMonitor.enabled .Values.metrics.podMonitor.enabled -}}
{{- fail "metrics.serviceMonitor and metrics.podMonitor are both enabled: every series would be there twice. Enable one of them." -}}
{{- end -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" (include "oona.fullname" .)) -}}
{{- fail (printf "the names of the objects would begin with %q, and a Service's name has only lower case letters, digits and -, and begins with a letter: set fullnameOverride, or choose another name for the release" (include "oona.fullname" .)) -}}
{{- end -}}
{{- $scraped := or .Values.metrics.serviceMonitor.enabled .Values.metrics.podMonitor.enabled -}}
{{- if and .Values.admin.access.existingSecret $scraped (not .Values.metrics.authorization) (not .Values.metrics.tlsConfig.cert) (not .Values.metrics.tlsConfig.certFile) -}}
{{- fail "admin.access is set, but metrics.authorization is empty, so Prometheus would get 401: give its credentials, for example {credentials: {name: prometheus-token, key: token}}, or a certificate in metrics.tlsConfig" -}}
{{- end -}}
{{- $keda := and .Values.aggregate.enabled (eq .Values.aggregate.autoscaling.mode "keda") -}}
{{- if and (or .Values.metrics.rules.enabled $keda) (not $scraped) (not .Values.metrics.rules.matchers) -}}
{{- fail "metrics.rules or the ScaledObject select series by the jobs of a ServiceMonitor or PodMonitor, but neither is enabled: enable metrics.serviceMonitor or metrics.podMonitor, or say in metrics.rules.matchers which series are this release's" -}}
{{- end -}}
{{- with .Values.ingest -}}
{{- if and .spool.enabled (lt (include "oona.bytes" .spool.size | int64) 134217728) -}}
{{- fail (printf "ingest.spool.size is %s: give at least 128Mi, or turn the spool off with ingest.spool.enabled=false" .spool.size) -}}
{{- end -}}
{{- if and .enabled .autoscaling.enabled (not (dig "requests" "cpu" "" (default dict .resources))) (not (dig "limits" "cpu" "" (default dict .resources))) -}}
{{- fail "ingest.autoscaling is enabled, but ingest.resources.requests.cpu is empty: the autoscaler compares the use of CPU with it" -}}
{{- end -}}
{{- end -}}
{{- range $name := list "ingest" "aggregate" "exporter" "topics" -}}
{{- $values := get $.Values $name -}}
{{- range $values.extraEnv -}}
{{- if and (ne $name "topics") (has .name (list "POD_NAME" "POD_NAMESPACE" "POD_IP" "GOMEMLIMIT")) -}}
{{- fail (printf "%s.extraEnv has %s, which the chart sets itself (GOMEMLIMIT: use %s.goMemLimit)" $name .name $name) -}}
{{- end -}}
{{- end -}}
{{- range $values.extraVolumes -}}
{{- if regexMatch "^(tmp|spool|tensors|catalogue|s3|s3-ca|kafka-(ca|tls|sasl)|(admin|listen)-(tls|client-ca|access))$" .name -}}
{{- fail (printf "%s.extraVolumes has %s, which is the name of a volume of the chart: choose another name" $name .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
