package proof

import (
	"testing"

	keda "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	autoscaling "k8s.io/api/autoscaling/v2"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	gateway "sigs.k8s.io/gateway-api/apis/v1"
)

// decoders decode the kinds that the chart renders, strictly.
var decoders = map[string]func(*testing.T, object){
	"ConfigMap":               strictly[core.ConfigMap],
	"Deployment":              strictly[apps.Deployment],
	"HTTPRoute":               strictly[gateway.HTTPRoute],
	"HorizontalPodAutoscaler": strictly[autoscaling.HorizontalPodAutoscaler],
	"Ingress":                 strictly[networking.Ingress],
	"Job":                     strictly[batch.Job],
	"NetworkPolicy":           strictly[networking.NetworkPolicy],
	"Pod":                     strictly[core.Pod],
	"PodDisruptionBudget":     strictly[policy.PodDisruptionBudget],
	"PodMonitor":              strictly[monitoring.PodMonitor],
	"PrometheusRule":          strictly[monitoring.PrometheusRule],
	"ScaledObject":            strictly[keda.ScaledObject],
	"Secret":                  strictly[core.Secret],
	"Service":                 strictly[core.Service],
	"ServiceAccount":          strictly[core.ServiceAccount],
	"ServiceMonitor":          strictly[monitoring.ServiceMonitor],
	"StatefulSet":             strictly[apps.StatefulSet],
}

func strictly[T any](t *testing.T, o object) { decode[T](t, o) }

// No object has a field that its type has not, and no two objects have one name. All kinds
// of decoders are rendered by some value file.
func TestTypes(t *testing.T) {
	rendered := map[string]bool{}
	for _, name := range valueFiles(t) {
		seen := map[string]bool{}
		for _, o := range renderFile(t, name) {
			decoder, ok := decoders[o.Kind]
			if !ok {
				t.Errorf("%s: %s is of a kind that no decoder is for", name, o)
				continue
			}
			decoder(t, o)
			if seen[o.String()] {
				t.Errorf("%s: %s is rendered twice", name, o)
			}
			seen[o.String()], rendered[o.Kind] = true, true
		}
	}
	for kind := range decoders {
		if !rendered[kind] {
			t.Errorf("no value file renders a %s", kind)
		}
	}
}

// KEDA's own webhook accepts the fallback. And replicas is left out where somebody else
// sets it, as Helm would set it back at each upgrade.
func TestScaledReplicas(t *testing.T) {
	for name, scaled := range map[string][]string{
		"minimal":     nil,
		"keda":        {"r-oona-aggregate"},
		"autoscaling": {"r-oona-aggregate", "r-oona-ingest"},
	} {
		left := map[string]bool{}
		for _, o := range renderFile(t, name) {
			switch o.Kind {
			case "StatefulSet":
				left[o.Name] = decode[apps.StatefulSet](t, o).Spec.Replicas == nil
			case "ScaledObject":
				s := decode[keda.ScaledObject](t, o)
				if err := keda.CheckFallbackValid(&s); err != nil {
					t.Error(err)
				}
				if m := s.Spec.Triggers[0].MetricType; m != autoscaling.AverageValueMetricType {
					t.Errorf("the type of the metric is %s; older versions of KEDA have a fallback for AverageValue only", m)
				}
			case "HorizontalPodAutoscaler":
				h := decode[autoscaling.HorizontalPodAutoscaler](t, o)
				if p := h.Spec.Behavior.ScaleDown.SelectPolicy; p == nil || *p != autoscaling.DisabledPolicySelect {
					t.Errorf("ingest scales down")
				}
			}
		}
		for _, s := range scaled {
			if !left[s] {
				t.Errorf("%s: %s has replicas", name, s)
			}
			delete(left, s)
		}
		for s, out := range left {
			if out {
				t.Errorf("%s: %s has no replicas", name, s)
			}
		}
	}
}
