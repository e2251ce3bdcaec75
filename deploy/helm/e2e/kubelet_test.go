package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// TestKubelet runs pods that say what they see, and looks at what the kubelet reports.
func TestKubelet(t *testing.T) {
	w := newCluster(t, "subject")
	step(t, "the program that pods run", func() error {
		return build(t.Context(), ".", filepath.Join(w.image("subject"), "bin"), "", "./subject")
	})
	for name, test := range map[string]func(*testing.T, *world){
		"a container sees its configuration":             seesConfiguration,
		"files change with their Secret":                 filesChange,
		"probes decide":                                  probesDecide,
		"a startup probe holds back the others":          startupFirst,
		"a pod that ends has preStop and a grace period": endsInOrder,
		"Jobs succeed and fail":                          jobsEnd,
		"a pod waits for what it lacks":                  waits,
		"a container that ends is started again":         restarts,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, w)
		})
	}
}

// subject returns a pod that runs the program.
func subject(name string, args ...string) *corev1.Pod {
	user, no, yes := int64(65532), false, true
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace},
		Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyNever, AutomountServiceAccountToken: &no, EnableServiceLinks: &no,
			SecurityContext: &corev1.PodSecurityContext{
				RunAsUser: &user, RunAsGroup: &user, FSGroup: &user, RunAsNonRoot: &yes, SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{subjectContainer("main", args...)},
		},
	}
}

func subjectContainer(name string, args ...string) corev1.Container {
	no, yes := false, true
	return corev1.Container{
		Name: name, Image: "example.com/a/subject:subject", Command: []string{"/bin/subject"}, Args: args,
		SecurityContext: &corev1.SecurityContext{
			AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes, Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		},
	}
}

func (w *world) create(t *testing.T, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	pod, err := w.client.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

// until waits for a state of a pod.
func (w *world) until(t *testing.T, name, what string, holds func(*corev1.Pod) bool) *corev1.Pod {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var pod *corev1.Pod
	err := await(ctx, what, func(ctx context.Context) (err error) {
		pod, err = w.client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
		if err == nil && !holds(pod) {
			err = fmt.Errorf("%s is %s, with %v", name, pod.Status.Phase, pod.Status.ContainerStatuses)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

func (w *world) phase(t *testing.T, name string, phase corev1.PodPhase) *corev1.Pod {
	t.Helper()
	return w.until(t, name, string(phase), func(pod *corev1.Pod) bool { return pod.Status.Phase == phase })
}

// output returns what a container has printed.
func (w *world) output(t *testing.T, pod *corev1.Pod, container string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(w.dir, logOf(pod, container)))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func (w *world) secret(t *testing.T, name string, data map[string]string) {
	t.Helper()
	_, err := w.client.CoreV1().Secrets(namespace).Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, StringData: data}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

func fieldOf(path string) *corev1.EnvVarSource {
	return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}
}

func seesConfiguration(t *testing.T, w *world) {
	w.secret(t, "sees", map[string]string{"password": "hidden"})
	settings := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "sees"}, Data: map[string]string{"mode": "fast", "other": "x"}}
	if _, err := w.client.CoreV1().ConfigMaps(namespace).Create(t.Context(), settings, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pod := subject("sees", "see", "/etc/a/secret/password", "/etc/a/settings/renamed", "/etc/a/all/name", "/etc/a/all/password", "/data/from-init", "/etc/a/settings/other", "$(POD_IP):1")
	pod.Labels = map[string]string{"color": "blue"}
	init := subjectContainer("init", "write", "/data/from-init", "hello")
	init.VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
	pod.Spec.InitContainers = []corev1.Container{init}
	c := &pod.Spec.Containers[0]
	c.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi")}
	local := func(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }
	c.Env = []corev1.EnvVar{
		{Name: "POD_IP", ValueFrom: fieldOf("status.podIP")},
		{Name: "POD_NAME", ValueFrom: fieldOf("metadata.name")},
		{Name: "COLOR", ValueFrom: fieldOf("metadata.labels['color']")},
		{Name: "ADDRESS", Value: "$(POD_IP):8080"},
		{Name: "PASSWORD", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: local("sees"), Key: "password"}}},
		{Name: "MODE", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: local("sees"), Key: "mode"}}},
		{Name: "MEMORY", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.memory"}}},
	}
	items := []corev1.KeyToPath{{Key: "mode", Path: "renamed"}}
	pod.Spec.Volumes = []corev1.Volume{
		{Name: "data", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
		{Name: "secret", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "sees"}}},
		{Name: "settings", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: local("sees"), Items: items}}},
		{Name: "all", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
			{Secret: &corev1.SecretProjection{LocalObjectReference: local("sees")}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "name", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}}}},
		}}}},
	}
	c.VolumeMounts = []corev1.VolumeMount{
		{Name: "data", MountPath: "/data"}, {Name: "secret", MountPath: "/etc/a/secret"}, {Name: "settings", MountPath: "/etc/a/settings"}, {Name: "all", MountPath: "/etc/a/all"},
	}
	w.create(t, pod)
	pod = w.phase(t, "sees", corev1.PodSucceeded)
	var saw struct {
		Args, Env []string
		Files     map[string]string
		UID, GID  int
		Groups    []int
		Root      string
	}
	if err := json.Unmarshal([]byte(w.output(t, pod, "main")), &saw); err != nil {
		t.Fatal(err)
	}
	address := pod.Status.PodIP
	for _, want := range []string{"POD_IP=" + address, "POD_NAME=sees", "COLOR=blue", "ADDRESS=" + address + ":8080", "PASSWORD=hidden", "MODE=fast", "MEMORY=67108864"} {
		if !slices.Contains(saw.Env, want) {
			t.Errorf("the environment lacks %s: %q", want, saw.Env)
		}
	}
	if last := saw.Args[len(saw.Args)-1]; last != address+":1" {
		t.Errorf("the last argument is %s", last)
	}
	for path, want := range map[string]string{
		"/etc/a/secret/password": "hidden", "/etc/a/settings/renamed": "fast", "/etc/a/all/name": "sees", "/etc/a/all/password": "hidden", "/data/from-init": "hello",
	} {
		if saw.Files[path] != want {
			t.Errorf("%s is %q, want %q", path, saw.Files[path], want)
		}
	}
	if !strings.Contains(saw.Files["/etc/a/settings/other"], "no such file") {
		t.Errorf("a key that is not among the items: %q", saw.Files["/etc/a/settings/other"])
	}
	if saw.UID != 65532 || saw.GID != 65532 || !slices.Equal(saw.Groups, []int{65532}) {
		t.Errorf("user %d, group %d, groups %v", saw.UID, saw.GID, saw.Groups)
	}
	if !strings.Contains(saw.Root, "read-only") {
		t.Errorf("a write to the root gives %q", saw.Root)
	}
}

func filesChange(t *testing.T, w *world) {
	w.secret(t, "changes", map[string]string{"text": "old"})
	pod := subject("changes", "serve", ":8080")
	pod.Spec.Volumes = []corev1.Volume{{Name: "secret", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "changes"}}}}
	pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "secret", MountPath: "/etc/secret"}}
	pod = w.create(t, pod)
	w.until(t, "changes", "the pod to be ready", ready)
	path := filepath.Join(w.dir, "kubelet", "pods", string(pod.UID), "volumes", "secret", "text")
	if text, err := os.ReadFile(path); err != nil || string(text) != "old" {
		t.Fatalf("%q, %v", text, err)
	}
	patched := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "changes"}, StringData: map[string]string{"text": "new"}}
	if _, err := w.client.CoreV1().Secrets(namespace).Update(t.Context(), patched, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.until(t, "changes", "the file to change", func(*corev1.Pod) bool {
		text, err := os.ReadFile(path)
		return err == nil && string(text) == "new"
	})
}

func httpProbe(path string, failures int32) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromString("http")}},
		PeriodSeconds: 1, FailureThreshold: failures,
	}
}

// server returns a pod that serves probes on port 8080.
func server(name string, args ...string) *corev1.Pod {
	pod := subject(name, append([]string{"serve", ":8080"}, args...)...)
	pod.Spec.RestartPolicy = corev1.RestartPolicyAlways
	pod.Spec.Containers[0].Ports = []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}}
	return pod
}

func get(t *testing.T, pod *corev1.Pod, path string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+pod.Status.PodIP+":8080"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	fail(t, response.Body.Close())
}

func probesDecide(t *testing.T, w *world) {
	pod := server("probes")
	pod.Spec.Containers[0].ReadinessProbe = httpProbe("/ready", 1)
	pod.Spec.Containers[0].LivenessProbe = httpProbe("/live", 2)
	second := subjectContainer("second", "serve", ":8081")
	second.ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"/bin/subject", "exit", "0"}}}, PeriodSeconds: 1}
	second.LivenessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(8081)}}, PeriodSeconds: 1}
	pod.Spec.Containers = append(pod.Spec.Containers, second)
	w.create(t, pod)
	pod = w.until(t, "probes", "the pod to be ready", ready)
	get(t, pod, "/toggle/ready")
	w.until(t, "probes", "the pod not to be ready", func(pod *corev1.Pod) bool { return !ready(pod) && pod.Status.ContainerStatuses[1].Ready })
	get(t, pod, "/toggle/ready")
	w.until(t, "probes", "the pod to be ready again", ready)
	get(t, pod, "/toggle/live")
	w.until(t, "probes", "the first container to be started again", func(pod *corev1.Pod) bool {
		return pod.Status.ContainerStatuses[0].RestartCount == 1 && pod.Status.ContainerStatuses[1].RestartCount == 0 && ready(pod)
	})
}

// While its startup probe has not succeeded, a container is not ready and need not live.
func startupFirst(t *testing.T, w *world) {
	pod := server("startup")
	c := &pod.Spec.Containers[0]
	c.StartupProbe = httpProbe("/missing", 3) // 404
	c.ReadinessProbe = httpProbe("/ready", 1)
	w.create(t, pod)
	pod = w.until(t, "startup", "the container to be started again", func(pod *corev1.Pod) bool {
		if ready(pod) {
			t.Error("the pod is ready")
		}
		return len(pod.Status.ContainerStatuses) > 0 && pod.Status.ContainerStatuses[0].RestartCount > 0
	})
	if *pod.Status.ContainerStatuses[0].Started {
		t.Error("the container is reported as started")
	}
}

func endsInOrder(t *testing.T, w *world) {
	const hook, grace = 2, int64(4)
	seconds := grace
	pod := server("ends", "stubborn")
	pod.Spec.TerminationGracePeriodSeconds = &seconds
	pod.Spec.Containers[0].ReadinessProbe = httpProbe("/ready", 1)
	pod.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: hook}}}
	w.create(t, pod)
	pod = w.until(t, "ends", "the pod to be ready", ready)
	began := time.Now()
	if err := w.client.CoreV1().Pods(namespace).Delete(t.Context(), "ends", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	err := await(ctx, "the pod to be gone", func(ctx context.Context) error {
		_, err := w.client.CoreV1().Pods(namespace).Get(ctx, "ends", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return errors.Join(errors.New("it is there"), err)
	})
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < time.Duration(grace)*time.Second {
		t.Errorf("the pod was killed after %s, before its grace period", took)
	}
	_, text, _ := strings.Cut(strings.TrimSpace(w.output(t, pod, "main")), "SIGTERM ")
	millis, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	if after := time.UnixMilli(millis).Sub(began); after < hook*time.Second {
		t.Errorf("SIGTERM came after %s, before preStop had ended", after)
	}
}

func jobsEnd(t *testing.T, w *world) {
	job := func(name string, code int) {
		limit := int32(1)
		pod := subject("", "exit", strconv.Itoa(code))
		_, err := w.client.BatchV1().Jobs(namespace).Create(t.Context(), &batchv1.Job{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec:       batchv1.JobSpec{BackoffLimit: &limit, Template: corev1.PodTemplateSpec{Spec: pod.Spec}},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	job("succeeds", 0)
	job("fails", 3)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err := await(ctx, "the Jobs to end", func(ctx context.Context) error {
		succeeds, err := w.client.BatchV1().Jobs(namespace).Get(ctx, "succeeds", metav1.GetOptions{})
		if err != nil {
			return err
		}
		fails, err := w.client.BatchV1().Jobs(namespace).Get(ctx, "fails", metav1.GetOptions{})
		if err == nil && (succeeds.Status.Succeeded != 1 || fails.Status.Failed != 2) {
			err = fmt.Errorf("%+v, %+v", succeeds.Status, fails.Status)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// reason returns why the first container waits.
func reason(pod *corev1.Pod) string {
	if len(pod.Status.ContainerStatuses) == 0 || pod.Status.ContainerStatuses[0].State.Waiting == nil {
		return ""
	}
	return pod.Status.ContainerStatuses[0].State.Waiting.Reason
}

func waits(t *testing.T, w *world) {
	missing := subject("no-image", "exit", "0")
	missing.Spec.Containers[0].Image = "example.com/subject:missing"
	w.create(t, missing)
	later := subject("no-secret", "exit", "0")
	later.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "X", ValueFrom: &corev1.EnvVarSource{
		SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "later"}, Key: "x"},
	}}}
	w.create(t, later)
	w.until(t, "no-secret", "its Secret to be missed", func(pod *corev1.Pod) bool { return reason(pod) == "CreateContainerConfigError" })
	w.secret(t, "later", map[string]string{"x": "y"})
	w.phase(t, "no-secret", corev1.PodSucceeded)
	pod := w.until(t, "no-image", "its image to be missed", func(pod *corev1.Pod) bool { return reason(pod) == "ImagePullBackOff" })
	if pod.Status.Phase != corev1.PodPending {
		t.Errorf("a pod without its image is %s", pod.Status.Phase)
	}
}

func restarts(t *testing.T, w *world) {
	pod := subject("crashes", "exit", "7")
	pod.Spec.RestartPolicy = corev1.RestartPolicyAlways
	w.create(t, pod)
	pod = w.until(t, "crashes", "the back-off", func(pod *corev1.Pod) bool { return reason(pod) == "CrashLoopBackOff" })
	status := pod.Status.ContainerStatuses[0]
	if status.RestartCount != 1 || status.LastTerminationState.Terminated == nil || status.LastTerminationState.Terminated.ExitCode != 7 {
		t.Errorf("%+v", status)
	}
	if pod.Status.Phase != corev1.PodRunning {
		t.Errorf("a pod whose container is started again is %s", pod.Status.Phase)
	}
}
