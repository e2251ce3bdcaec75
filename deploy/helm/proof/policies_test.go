package proof

import (
	"fmt"
	"slices"
	"strconv"
	"testing"

	"helm.sh/helm/v3/pkg/chartutil"
	networking "k8s.io/api/networking/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The policy that lets the Job reach Kafka exists before the Job, with Helm and with ArgoCD.
func TestPolicyOfTheJobIsFirst(t *testing.T) {
	annotations := map[string]map[string]string{}
	for _, o := range renderFile(t, "production") {
		if o.Name == "r-oona-topics" {
			annotations[o.Kind] = decode[struct {
				meta.TypeMeta   `json:",inline"`
				meta.ObjectMeta `json:"metadata"`
				Spec            any `json:"spec"`
			}](t, o).Annotations
		}
	}
	policy, job := annotations["NetworkPolicy"], annotations["Job"]
	for _, key := range []string{"helm.sh/hook", "argocd.argoproj.io/hook"} {
		if policy[key] == "" || policy[key] != job[key] {
			t.Errorf("%s is %q for the policy and %q for the Job", key, policy[key], job[key])
		}
	}
	for _, key := range []string{"helm.sh/hook-weight", "argocd.argoproj.io/sync-wave"} {
		before, err := strconv.Atoi(policy[key])
		after, err2 := strconv.Atoi(job[key])
		if err != nil || err2 != nil || before >= after {
			t.Errorf("%s is %q for the policy and %q for the Job", key, policy[key], job[key])
		}
	}
}

// Ingest reaches its S3 server, and STS if it has no access key; no other worker does.
func TestPoliciesAllowTheTensorStore(t *testing.T) {
	const values = "kafka: {brokers: [\"kafka:9092\"]}\ningest: {tensors: {store: s3, s3: {%s}}}\nnetworkPolicy: {enabled: true, s3: {%s}}\n"
	const key = ", accessKeyId: id, existingSecret: s"
	for name, test := range map[string]struct {
		s3, policy string
		want       []string
	}{
		"AWS":               {"region: a", "", []string{"443"}},
		"AWS with a key":    {"region: a" + key, "", []string{"443"}},
		"a port":            {"endpoint: \"https://minio:9000\"" + key, "", []string{"9000"}},
		"a port and STS":    {"endpoint: \"https://minio:9000\"", "", []string{"9000", "443"}},
		"http":              {"endpoint: \"http://minio\"" + key, "", []string{"80"}},
		"IPv6":              {"endpoint: \"http://[fd00::1]:9000\"" + key, "", []string{"9000"}},
		"IPv6 without port": {"endpoint: \"https://[fd00::1]\"" + key, "", []string{"443"}},
		"other ports":       {"region: a", "ports: [8443]", []string{"8443"}},
	} {
		t.Run(name, func(t *testing.T) {
			given, err := chartutil.ReadValues(fmt.Appendf(nil, values, test.s3, test.policy))
			if err != nil {
				t.Fatal(err)
			}
			objects, err := render(loadChart(t), given)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range objects {
				if o.Kind != "NetworkPolicy" {
					continue
				}
				var got []string
				for _, rule := range decode[networking.NetworkPolicy](t, o).Spec.Egress {
					for _, p := range rule.Ports {
						if p.Protocol == nil && p.Port.String() != "9092" {
							got = append(got, p.Port.String())
						}
					}
				}
				want := test.want
				if o.Name != "r-oona-ingest" {
					want = nil
				}
				if !slices.Equal(got, want) {
					t.Errorf("%s allows %q besides Kafka and DNS, want %q", o, got, want)
				}
			}
		})
	}
}

// Every pod reaches DNS, whose pods listen on port 53, or 5353 on OpenShift.
func TestPoliciesAllowDNS(t *testing.T) {
	policies := 0
	for _, o := range renderFile(t, "production") {
		if o.Kind != "NetworkPolicy" {
			continue
		}
		policies++
		allowed := map[string]bool{}
		for _, rule := range decode[networking.NetworkPolicy](t, o).Spec.Egress {
			for _, p := range rule.Ports {
				if len(rule.To) == 0 && p.Protocol != nil {
					allowed[string(*p.Protocol)+" "+p.Port.String()] = true
				}
			}
		}
		for _, want := range []string{"UDP 53", "TCP 53", "UDP 5353", "TCP 5353"} {
			if !allowed[want] {
				t.Errorf("%s does not allow %s", o, want)
			}
		}
	}
	if policies != 5 {
		t.Errorf("%d policies; want those of 3 workers, the Job and the test", policies)
	}
}
