package proof

import (
	"strconv"
	"testing"

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
