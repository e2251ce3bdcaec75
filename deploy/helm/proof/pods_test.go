package proof

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	apps "k8s.io/api/apps/v1"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// workload is what has pods.
type workload struct {
	object
	Pod      core.PodTemplateSpec
	Claims   []core.PersistentVolumeClaim
	Selector *meta.LabelSelector
}

func workloads(t *testing.T, objects []object) (all []workload) {
	t.Helper()
	for _, o := range objects {
		switch o.Kind {
		case "StatefulSet":
			s := decode[apps.StatefulSet](t, o)
			all = append(all, workload{o, s.Spec.Template, s.Spec.VolumeClaimTemplates, s.Spec.Selector})
		case "Deployment":
			d := decode[apps.Deployment](t, o)
			all = append(all, workload{o, d.Spec.Template, nil, d.Spec.Selector})
		case "Job":
			j := decode[batch.Job](t, o)
			all = append(all, workload{o, j.Spec.Template, nil, nil})
		case "Pod":
			p := decode[core.Pod](t, o)
			all = append(all, workload{o, core.PodTemplateSpec{ObjectMeta: p.ObjectMeta, Spec: p.Spec}, nil, nil})
		}
	}
	return all
}

// immutable has the fields of a workload that Kubernetes does not let an upgrade change.
type immutable struct {
	Selector   *meta.LabelSelector
	Service    string
	Management apps.PodManagementPolicyType
	Claims     []core.PersistentVolumeClaim
}

func immutables(t *testing.T, objects []object) map[string]immutable {
	t.Helper()
	all := map[string]immutable{}
	for _, o := range objects {
		switch o.Kind {
		case "StatefulSet":
			s := decode[apps.StatefulSet](t, o).Spec
			all[o.String()] = immutable{s.Selector, s.ServiceName, s.PodManagementPolicy, s.VolumeClaimTemplates}
		case "Deployment":
			all[o.String()] = immutable{Selector: decode[apps.Deployment](t, o).Spec.Selector}
		}
	}
	return all
}

// An upgrade to another version of the chart, or to other labels, changes no immutable
// field, and without other settings it restarts no pod.
func TestUpgradeKeepsImmutableFields(t *testing.T) {
	for _, name := range valueFiles(t) {
		t.Run(name, func(t *testing.T) {
			values := readValues(t, name)
			values["image"] = map[string]any{"tag": "same"}
			before, err := render(loadChart(t), values)
			if err != nil {
				t.Fatal(err)
			}
			next := loadChart(t)
			next.Metadata.Version, next.Metadata.AppVersion = "7.8.9+build", "2.0.0"
			after, err := render(next, values)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(immutables(t, before), immutables(t, after)); diff != "" {
				t.Errorf("the upgrade would be refused (-before +after):\n%s", diff)
			}
			templates := func(objects []object) (all []core.PodTemplateSpec) {
				for _, w := range workloads(t, objects) {
					if w.Selector != nil {
						all = append(all, w.Pod)
					}
				}
				return all
			}
			if diff := cmp.Diff(templates(before), templates(after)); diff != "" {
				t.Errorf("another version of the chart restarts pods whose image stays (-before +after):\n%s", diff)
			}
			values["commonLabels"] = map[string]any{"added": "later"}
			labelled, err := render(next, values)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(immutables(t, before), immutables(t, labelled)); diff != "" {
				t.Errorf("a label makes the upgrade be refused (-before +after):\n%s", diff)
			}
		})
	}
}

// The spool is on or off by the name of the StatefulSet, as a claim template can neither
// be added nor taken away.
func TestSpoolIsInTheName(t *testing.T) {
	with, without := immutables(t, renderFile(t, "minimal")), immutables(t, renderFile(t, "nospool"))
	if _, ok := with["StatefulSet/r-oona-ingest"]; !ok || len(with["StatefulSet/r-oona-ingest"].Claims) != 1 {
		t.Error("ingest has no claim template")
	}
	if _, ok := without["StatefulSet/r-oona-ingest"]; ok {
		t.Error("ingest has the same name without a spool")
	}
	if s, ok := without["StatefulSet/r-oona-ingest-nospool"]; !ok || len(s.Claims) != 0 {
		t.Error("ingest without a spool has claim templates")
	}
	const flag = "--spool-directory"
	if got := flags(t, readValues(t, "minimal"), flag)["ingest"]; !slices.Contains(mounts(t, renderFile(t, "minimal"), "ingest"), got) {
		t.Errorf("ingest has its spool in %q, where nothing is mounted", got)
	}
	if got, ok := flags(t, readValues(t, "nospool"), flag)["ingest"]; ok {
		t.Errorf("ingest without a claim has a spool in %q", got)
	}
}

// mounts returns the paths of what is mounted in the first container of a component's pod.
func mounts(t *testing.T, objects []object, of string) (paths []string) {
	t.Helper()
	for _, w := range workloads(t, objects) {
		if w.Pod.Labels[component] == of {
			for _, m := range w.Pod.Spec.Containers[0].VolumeMounts {
				paths = append(paths, m.MountPath)
			}
		}
	}
	return paths
}

// Each pod runs as a user without rights, on a read-only root, without a token.
func TestPodsAreConfined(t *testing.T) {
	for _, name := range valueFiles(t) {
		for _, w := range workloads(t, renderFile(t, name)) {
			spec := w.Pod.Spec
			if spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken {
				t.Errorf("%s: %s mounts a token", name, w)
			}
			if spec.EnableServiceLinks == nil || *spec.EnableServiceLinks {
				t.Errorf("%s: %s has variables of all Services", name, w)
			}
			s := spec.SecurityContext
			if s == nil || s.RunAsNonRoot == nil || !*s.RunAsNonRoot || s.SeccompProfile == nil {
				t.Errorf("%s: %s may run as root, or without seccomp", name, w)
			}
			if name == "openshift" {
				if s.RunAsUser != nil || s.FSGroup != nil {
					t.Errorf("%s sets users, which OpenShift sets", w)
				}
			} else if s.RunAsUser == nil || *s.RunAsUser != 65532 {
				t.Errorf("%s: %s does not run as 65532", name, w)
			}
			for _, c := range spec.Containers {
				s := c.SecurityContext
				if s == nil || !*s.ReadOnlyRootFilesystem || *s.AllowPrivilegeEscalation || !slices.Equal(s.Capabilities.Drop, []core.Capability{"ALL"}) {
					t.Errorf("%s: container %s of %s is not confined", name, c.Name, w)
				}
				for _, e := range c.Env {
					if e.Name == "GOMAXPROCS" {
						t.Errorf("%s: %s sets GOMAXPROCS: Go follows the cgroup only without it", name, w)
					}
				}
			}
		}
	}
}

// A pod has more time to stop than its worker takes, and every mount has a volume.
func TestPodsStopAndMount(t *testing.T) {
	for _, name := range valueFiles(t) {
		for _, w := range workloads(t, renderFile(t, name)) {
			volumes := map[string]bool{}
			for _, v := range w.Pod.Spec.Volumes {
				volumes[v.Name] = true
			}
			for _, c := range w.Claims {
				volumes[c.Name] = true
			}
			for _, c := range w.Pod.Spec.Containers {
				for _, m := range c.VolumeMounts {
					if !volumes[m.Name] {
						t.Errorf("%s: %s mounts %s, which is no volume", name, w, m.Name)
					}
				}
				drain, ok := seconds(c.Args, "--drain-timeout")
				if !ok {
					continue
				}
				if c.Lifecycle != nil {
					drain += c.Lifecycle.PreStop.Sleep.Seconds
				}
				if grace := w.Pod.Spec.TerminationGracePeriodSeconds; grace == nil || *grace <= drain {
					t.Errorf("%s: %s is killed while it drains for %d s", name, w, drain)
				}
			}
		}
	}
}

// A budget selects the pods of one workload that has more than one, and lets one of them go.
func TestBudgets(t *testing.T) {
	for _, name := range valueFiles(t) {
		objects := renderFile(t, name)
		for _, o := range objects {
			if o.Kind != "PodDisruptionBudget" {
				continue
			}
			b := decode[policy.PodDisruptionBudget](t, o).Spec
			if b.MinAvailable != nil || b.MaxUnavailable.IntValue() != 1 || *b.UnhealthyPodEvictionPolicy != policy.AlwaysAllow {
				t.Errorf("%s: %s may block a drain", name, o)
			}
			selected := 0
			for _, w := range workloads(t, objects) {
				if w.Selector != nil && cmp.Equal(w.Selector, b.Selector) {
					selected++
				}
			}
			if selected != 1 {
				t.Errorf("%s: %s selects %d workloads", name, o, selected)
			}
		}
	}
	for _, o := range renderFile(t, "names") {
		if o.Kind == "PodDisruptionBudget" && o.Name == "a-name-that-is-longer-than-a-stateful-exporter" {
			t.Error("there is a budget for one pod, which would not let its node drain")
		}
	}
}

// Hooks run before the objects of the release exist, so they refer to none of them.
func TestHooksNeedNothingOfTheRelease(t *testing.T) {
	for _, name := range valueFiles(t) {
		objects := renderFile(t, name)
		release := map[string]bool{}
		for _, o := range objects {
			if o.Hook == "" {
				release[o.String()] = true
			}
		}
		for _, w := range workloads(t, objects) {
			if w.Hook == "" || w.Hook == "test" {
				continue
			}
			for _, ref := range references(w.Pod.Spec) {
				if release[ref] {
					t.Errorf("%s: the hook %s needs %s, which does not exist yet when it runs", name, w, ref)
				}
			}
		}
	}
}

// references returns what a pod needs to start.
func references(spec core.PodSpec) (all []string) {
	all = append(all, "ServiceAccount/"+spec.ServiceAccountName)
	for _, s := range spec.ImagePullSecrets {
		all = append(all, "Secret/"+s.Name)
	}
	for _, v := range spec.Volumes {
		switch {
		case v.Secret != nil:
			all = append(all, "Secret/"+v.Secret.SecretName)
		case v.ConfigMap != nil:
			all = append(all, "ConfigMap/"+v.ConfigMap.Name)
		case v.PersistentVolumeClaim != nil:
			all = append(all, "PersistentVolumeClaim/"+v.PersistentVolumeClaim.ClaimName)
		}
	}
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		for _, from := range c.EnvFrom {
			if from.SecretRef != nil {
				all = append(all, "Secret/"+from.SecretRef.Name)
			}
			if from.ConfigMapRef != nil {
				all = append(all, "ConfigMap/"+from.ConfigMapRef.Name)
			}
		}
		for _, e := range c.Env {
			if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil {
				all = append(all, "Secret/"+e.ValueFrom.SecretKeyRef.Name)
			}
			if e.ValueFrom != nil && e.ValueFrom.ConfigMapKeyRef != nil {
				all = append(all, "ConfigMap/"+e.ValueFrom.ConfigMapKeyRef.Name)
			}
		}
	}
	return all
}
