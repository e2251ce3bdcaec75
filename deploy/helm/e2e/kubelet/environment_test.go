package kubelet

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func TestExpand(t *testing.T) {
	env := map[string]string{"A": "a", "EMPTY": "", "NESTED": "$(A)"}
	for text, want := range map[string]string{
		"":                       "",
		"--x=$(A):1":             "--x=a:1",
		"$(A)$(A)":               "aa",
		"[$(EMPTY)]":             "[]",
		"$(NESTED)":              "$(A)",
		"$(UNKNOWN)":             "$(UNKNOWN)",
		"$$(A)":                  "$(A)",
		"$$$(A)":                 "$a",
		"$":                      "$",
		"$A":                     "$A",
		"$(A":                    "$(A",
		"costs 1$, or $(A) euro": "costs 1$, or a euro",
	} {
		if got := expand(text, env); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestResourceField(t *testing.T) {
	c := &corev1.Container{Resources: corev1.ResourceRequirements{
		Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("2Gi")},
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1500m")},
	}}
	for _, row := range []struct{ field, divisor, want string }{
		{"limits.memory", "0", "2147483648"},
		{"limits.memory", "1Mi", "2048"},
		{"requests.cpu", "1", "2"},
		{"requests.cpu", "1m", "1500"},
	} {
		got, err := resourceField(c, &corev1.ResourceFieldSelector{Resource: row.field, Divisor: resource.MustParse(row.divisor)})
		if err != nil || got != row.want {
			t.Errorf("%s by %s: %s, %v; want %s", row.field, row.divisor, got, err, row.want)
		}
	}
	if _, err := resourceField(c, &corev1.ResourceFieldSelector{Resource: "limits.cpu"}); err == nil {
		t.Error("no error for a limit that is not there")
	}
}
