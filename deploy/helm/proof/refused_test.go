package proof

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/strvals"
	"sigs.k8s.io/yaml"
)

// Nonsense is refused, and the error names the value.
func TestRefused(t *testing.T) {
	for _, c := range []struct{ set, want string }{
		// by the schema
		{"typo=1", "'typo'"},
		{"aggregate.replicsa=3", "'/aggregate': additional properties 'replicsa'"},
		{"kafka.brokers={kafka}", "/kafka/brokers/0"},
		{"kafka.brokers={kafka:9092:1}", "/kafka/brokers/0"},
		{"kafka.brokers={http://kafka:9092}", "/kafka/brokers/0"},
		{"kafka.prefix=Upper", "/kafka/prefix"},
		{"kafka.maxMessageBytes=1Mi", "/kafka/maxMessageBytes"},
		{"kafka.maxMessageBytes=1024", "/kafka/maxMessageBytes"}, // ingest needs more
		{"image.digest=sha256:0", "'/image': additional properties 'digest'"},
		{"aggregate.image.digest=sha256:0", "/aggregate/image/digest"},
		{"image.pullPolicy=Sometimes", "/image/pullPolicy"},
		{"logLevel=verbose", "/logLevel"},
		{"topics.mode=job", "/topics/mode"},
		{"topics.partitions=0", "/topics/partitions"},
		{"topics.windows.window-lenght=1s", "'window-lenght'"},
		{"topics.windows.window-length=10", "/topics/windows/window-length"},
		{"ingest.replicas=0", "/ingest/replicas"},
		{"ingest.replicas=two", "/ingest/replicas"},
		{"ingest.drainSeconds=20s", "/ingest/drainSeconds"},
		{"ingest.spool.size=big", "/ingest/spool/size"},
		{"ingest.spool.size=64Mi", "ingest.spool.size is 64Mi: give at least 128Mi"},
		{"ingest.tensors.store=gcs", "/ingest/tensors/store"},
		{"ingest.tensors.s3.endpoint=minio:9000", "/ingest/tensors/s3/endpoint"},
		{"ingest.tensors.s3.endpoint=https://me:secret@minio:9000", "/ingest/tensors/s3/endpoint"},
		{"ingest.tensors.s3.endpoint=https://minio:9000/?token=secret", "/ingest/tensors/s3/endpoint"},
		{"ingest.service.type=Public", "/ingest/service/type"},
		{"ingest.service.port=0", "/ingest/service/port"},
		{"ingest.extraArgs={-v}", "/ingest/extraArgs/0"},
		{"ingest.extraArgs={--max-frames 1}", "/ingest/extraArgs/0"},
		{"exporter.lookback=1d", "/exporter/lookback"},
		{"tracing.exporter=zipkin", "/tracing/exporter"},
		{"tracing.sampleRatio=2", "/tracing/sampleRatio"},
		{"tracing.exporter=otlp-http,tracing.endpoint=https://me:secret@collector", "/tracing/endpoint"},
		{"tracing.exporter=otlp-http,tracing.endpoint=https://collector/?token=secret", "/tracing/endpoint"},
		{"exporter.remoteWrite.url=prometheus:9090", "/exporter/remoteWrite/url"},
		{"exporter.remoteWrite.url=https://me:secret@prometheus/api/v1/write", "/exporter/remoteWrite/url"},
		{"aggregate.autoscaling.mode=hpa", "/aggregate/autoscaling/mode"},
		{"aggregate.autoscaling.minReplicas=0", "/aggregate/autoscaling/minReplicas"},
		{"commonLabels.app\\.kubernetes\\.io/name=x", "/commonLabels"},
		{"aggregate.autoscaling.triggerMetadata.query=x", "/aggregate/autoscaling/triggerMetadata"},
		{"aggregate.autoscaling.triggerMetadata.threshold=x", "/aggregate/autoscaling/triggerMetadata"},
		{"fullnameOverride=9a", "/fullnameOverride"},
		{"fullnameOverride=a.b", "/fullnameOverride"},
		{"nameOverride=a.b", "/nameOverride"},
		{"commonLabels.a=not a label", "/commonLabels/a"},
		{"metrics.interval=30", "/metrics/interval"},
		{"metrics.rules.matchers=namespace", "/metrics/rules/matchers"},
		{"networkPolicy.kafka.ports={70000}", "/networkPolicy/kafka/ports/0"},
		{"kafka.tls.minVersion=1.1", "/kafka/tls/minVersion"},
		{"kafka.sasl.mechanism=gssapi", "/kafka/sasl/mechanism"},
		{"kafka.sasl.password=secret", "'/kafka/sasl': additional properties 'password'"},
		{"admin.access.existingSecret=Not a name", "/admin/access/existingSecret"},
		// by the templates, with a sentence that says what to do
		{"kafka.brokers=null", "kafka.brokers is empty"},
		{"aggregate.replicas=13", "Set aggregate.replicas to at most 12."},
		{"topics.partitions=2", "Set aggregate.replicas to at most 2."},
		{"aggregate.autoscaling.mode=keda", "aggregate.autoscaling.prometheusAddress is empty"},
		{"aggregate.autoscaling.mode=keda,aggregate.autoscaling.maxReplicas=13", "Set it to at most 12."},
		{"aggregate.autoscaling.mode=keda,aggregate.autoscaling.minReplicas=9,aggregate.autoscaling.maxReplicas=8", "minReplicas 9"},
		{"aggregate.autoscaling.mode=keda,aggregate.autoscaling.fallbackReplicas=13", "fallbackReplicas 13"},
		{"ingest.autoscaling.enabled=true,ingest.autoscaling.minReplicas=9", "minReplicas 9"},
		{"ingest.tensors.store=directory", "ingest.tensors.directory.existingClaim is empty"},
		{"ingest.ingress.enabled=true", "ingest.ingress.hosts is empty"},
		{"ingest.httpRoute.enabled=true", "ingest.httpRoute.parentRefs is empty"},
		{"metrics.serviceMonitor.enabled=true,metrics.podMonitor.enabled=true", "Enable one of them."},
		{"ingest.extraArgs={--instance=x}", "ingest.extraArgs has --instance"},
		{"aggregate.extraArgs={--drain-timeout=1s}", "aggregate.extraArgs has --drain-timeout"},
		{"aggregate.extraArgs={--admin-tls-cert-file=/x}", "aggregate.extraArgs has --admin-tls-cert-file"},
		{"aggregate.extraArgs={--bus-tls}", "aggregate.extraArgs has --bus-tls"},
		{"exporter.extraArgs={--catalogue=/x}", "exporter.extraArgs has --catalogue"},
		{"ingest.extraArgs={--listen-access-file=/x}", "ingest.extraArgs has --listen-access-file"},
		{"ingest.extraArgs={--raw}", "ingest.extraArgs has --raw"},
		{"ingest.extraArgs={--raw-group=x}", "ingest.extraArgs has --raw-group"},
		{"ingest.extraEnv[0].name=POD_IP", "ingest.extraEnv has POD_IP"},
		{"exporter.extraEnv[0].name=GOMEMLIMIT", "exporter.goMemLimit"},
		{"ingest.extraVolumes[0].name=tmp", "ingest.extraVolumes has tmp"},
		{"topics.extraVolumes[0].name=kafka-ca", "topics.extraVolumes has kafka-ca"},
		{"ingest.autoscaling.enabled=true,ingest.resources.requests.cpu=null", "ingest.resources.requests.cpu is empty"},
		{"aggregate.resources.limits.memory=512m", "resources.limits.memory is 512m"},
		{"admin.access.existingSecret=a,metrics.serviceMonitor.enabled=true", "metrics.authorization is empty"},
		{"metrics.rules.enabled=true", "metrics.rules.matchers"},
		{"aggregate.autoscaling.mode=keda,aggregate.autoscaling.prometheusAddress=http://p", "metrics.rules.matchers"},
		{"topics.extraArgs={--prefix=x}", "topics.extraArgs has --prefix"},
		{"aggregate.resources.limits.memory=2GB", "2GB"},
		{"kafka.sasl.mechanism=plain,kafka.sasl.username=u", "needs kafka.sasl.username and kafka.sasl.existingSecret"},
		{"kafka.sasl.username=u", "kafka.sasl.mechanism is none"},
		{"exporter.remoteWrite.existingSecret=s", "exporter.remoteWrite.url is empty"},
		{"exporter.remoteWrite.url=https://p/w,exporter.remoteWrite.username=u", "exporter.remoteWrite.username needs exporter.remoteWrite.existingSecret"},
		{"exporter.remoteWrite.url=http://p/w,exporter.remoteWrite.caSecret=ca", "begins with http"},
		{"tracing.endpoint=http://collector:4317", "tracing.exporter is none"},
		{"tracing.exporter=otlp-grpc", "tracing.endpoint is empty"},
		{"tracing.exporter=otlp-grpc,tracing.endpoint=http://collector:4317,tracing.caSecret=ca", "tracing.endpoint begins with http"},
		{"ingest.extraArgs={--trace-exporter=otlp-http}", "ingest.extraArgs has --trace-exporter"},
		{"exporter.extraArgs={--remote-write-url=http://p/w}", "exporter.extraArgs has --remote-write-url"},
		{"kafka.tls.caSecret=ca", "kafka.tls.enabled is false"},
		{"ingest.tls.clientCASecret=ca", "ingest.tls.clientCASecret needs ingest.tls.existingSecret"},
		{"admin.tls.existingSecret=tls,metrics.podMonitor.enabled=true", "metrics.tlsConfig is empty"},
	} {
		values := readValues(t, "minimal")
		if err := strvals.ParseInto(c.set, values); err != nil {
			t.Fatalf("%s: %v", c.set, err)
		}
		_, err := render(loadChart(t), values)
		if err == nil {
			t.Errorf("%s is not refused", c.set)
		} else if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: the error does not have %q: %v", c.set, c.want, err)
		}
	}
}

// Helm allows names of releases that no Service may have.
func TestReleaseNamesAreRefused(t *testing.T) {
	for release, ok := range map[string]bool{"prod": true, "prod-1": true, "prod.eu": false, "1a": false} {
		_, err := renderTexts(loadChart(t), release, readValues(t, "minimal"))
		if (err == nil) != ok || err != nil && !strings.Contains(err.Error(), "fullnameOverride") {
			t.Errorf("the release %s: error %v", release, err)
		}
	}
}

// What is refused without it is accepted: a client certificate of Prometheus, and matchers.
func TestAlternativesAreAccepted(t *testing.T) {
	for _, set := range []string{
		"admin.tls.existingSecret=a,admin.access.existingSecret=a,metrics.serviceMonitor.enabled=true,metrics.tlsConfig.cert.secret.name=p",
		"metrics.rules.enabled=true,metrics.rules.matchers=a=\"b\"",
		"ingest.autoscaling.enabled=true,ingest.resources.requests.cpu=null,ingest.resources.limits.cpu=2",
		"topics.extraEnv[0].name=GOMEMLIMIT,topics.extraEnv[0].value=1GiB",
	} {
		values := readValues(t, "minimal")
		if err := strvals.ParseInto(set, values); err != nil {
			t.Fatalf("%s: %v", set, err)
		}
		if _, err := render(loadChart(t), values); err != nil {
			t.Errorf("%s: %v", set, err)
		}
	}
}

// The schema and values.yaml have the same keys, and every object of the schema is closed,
// so that a misspelt key is refused. A parent chart may give global values.
func TestSchemaHasAllKeys(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(chartDir, "values.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	var schema struct {
		node
		Definitions map[string]node
	}
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	text, err = os.ReadFile(filepath.Join(chartDir, "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var values map[string]any
	if err := yaml.Unmarshal(text, &values); err != nil {
		t.Fatal(err)
	}
	if _, ok := schema.Properties["global"]; !ok {
		t.Error("the schema does not allow global values")
	}
	delete(schema.Properties, "global")
	compare(t, "", schema.node, values, schema.Definitions)
}

type node struct {
	Ref        string `json:"$ref"`
	Properties map[string]node
	Additional json.RawMessage `json:"additionalProperties"`
}

func compare(t *testing.T, path string, n node, values map[string]any, definitions map[string]node) {
	t.Helper()
	if string(n.Additional) != "false" {
		t.Errorf("%s: the schema allows unknown keys", path)
	}
	for key := range n.Properties {
		if _, ok := values[key]; !ok {
			t.Errorf("%s.%s is in the schema and not in values.yaml", path, key)
		}
	}
	for key, value := range values {
		child, ok := n.Properties[key]
		if !ok {
			t.Errorf("%s.%s is in values.yaml and not in the schema", path, key)
			continue
		}
		if name, ok := strings.CutPrefix(child.Ref, "#/definitions/"); ok {
			child = definitions[name]
		}
		// Maps of the user's have no properties in the schema, and some of the resources and
		// windows are left out of values.yaml.
		inner, ok := value.(map[string]any)
		if ok && len(child.Properties) > 0 && key != "resources" && key != "windows" && key != "authenticationRef" {
			compare(t, path+"."+key, child, inner, definitions)
		}
	}
}

// Values that a parent chart hands on are no error.
func TestGlobalValues(t *testing.T) {
	values := chartutil.Values(readValues(t, "minimal"))
	values["global"] = map[string]any{"anything": 1}
	if _, err := render(loadChart(t), values); err != nil {
		t.Error(err)
	}
}
