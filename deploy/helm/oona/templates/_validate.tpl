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
{{- if not .autoscaling.prometheusAddress -}}
{{- fail "aggregate.autoscaling.mode is keda, but aggregate.autoscaling.prometheusAddress is empty: give the URL of the Prometheus that scrapes the aggregators" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with .Values.ingest -}}
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
{{- if and .Values.metrics.serviceMonitor.enabled .Values.metrics.podMonitor.enabled -}}
{{- fail "metrics.serviceMonitor and metrics.podMonitor are both enabled: every series would be there twice. Enable one of them." -}}
{{- end -}}
{{- end -}}
