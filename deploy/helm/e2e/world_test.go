package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/morphogenetic/oona"
	"github.com/morphogenetic/oona/deploy/helm/e2e/controlplane"
	"github.com/morphogenetic/oona/deploy/helm/e2e/kubelet"
	"github.com/morphogenetic/oona/internal/localkafka"
	"github.com/morphogenetic/oona/internal/tlsfiles/authority"
)

const (
	release   = "oona"
	namespace = "training"
	// The first image and its successor are of the same source, and say another version.
	firstTag, nextTag = "v1", "v2"
)

var nodes = []string{"node-a", "node-b"}

// world is a cluster and a broker, and a namespace with a release of the chart.
type world struct {
	dir     string
	helm    string // path of the program
	network *kubelet.Network
	plane   *controlplane.ControlPlane
	client  kubernetes.Interface // may do everything
	kafka   *localkafka.Cluster

	namespace  string
	prefix     string // of topics
	partitions int
	values     string // path of the values file

	authority *authority.Authority
	tls       *tls.Config // of clients of ingest and of the admin ports
	serial    string      // of the certificate in the Secret

	load    *load   // nil until it is started
	oldest  *oldest // the same
	usual   float64 // greatest age of a window while nothing happens
	windows int     // that were reconciled
	figures []string
}

// newWorld starts a cluster and a broker, which last until the end of the test.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := newCluster(t, firstTag, nextTag)
	step(t, "binaries of Oona", func() error {
		return errors.Join(w.buildImage(t.Context(), firstTag), w.buildImage(t.Context(), nextTag))
	})
	step(t, "Kafka", func() error { return w.startKafka(t) })
	return w
}

// newCluster starts a control plane and a kubelet that has images with these tags.
func newCluster(t *testing.T, tags ...string) *world {
	t.Helper()
	if err := kubelet.Check(); err != nil {
		t.Fatal(err)
	}
	w := &world{dir: t.TempDir(), namespace: namespace, prefix: oona.DefaultPrefix, partitions: 6}
	if keep := os.Getenv("OONA_E2E_DIR"); keep != "" { // to look at logs afterwards
		w.dir = filepath.Join(keep, t.Name())
	}
	var programs controlplane.Programs
	step(t, "etcd, API server, controller manager and Helm (the first time, they are built)", func() (err error) {
		cache, err := os.UserCacheDir()
		if err != nil {
			return err
		}
		programs, err = controlplane.Build(t.Context(), filepath.Join(cache, "oona"), "tools")
		w.helm = programs.Helm
		return err
	})
	var err error
	if w.network, err = kubelet.NewNetwork(t.Context(), "oona-e2e", netip.MustParsePrefix("10.203.7.0/24")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fail(t, w.network.Close(context.Background())) })
	step(t, "control plane", func() error { return w.startControlPlane(t, programs) })
	step(t, "namespace and rights", func() error { return w.prepareNamespace(t.Context()) })
	w.startKubelet(t, tags)
	return w
}

// step does something, and prints how long it took.
func step(t *testing.T, name string, do func() error) {
	t.Helper()
	began := time.Now()
	if err := do(); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	t.Logf("%6.1f s  %s", time.Since(began).Seconds(), name)
}

func fail(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// buildImage builds the files of an image of Oona, whose programs say that they have the
// version of the tag.
func (w *world) buildImage(ctx context.Context, tag string) error {
	root := w.image(tag)
	if err := os.MkdirAll(filepath.Join(root, "etc"), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, "etc", "passwd"), []byte("nonroot:x:65532:65532:nonroot:/:/sbin/nologin\n"), 0o644); err != nil {
		return err
	}
	return build(ctx, "../../..", filepath.Join(root, "ko-app"), "-s -w -X github.com/morphogenetic/oona/internal/worker.stampedVersion="+tag+".0.0",
		"./cmd/ingest", "./cmd/aggregate", "./cmd/exporter", "./cmd/oona")
}

// build builds commands of a module into a directory, as ko does.
func build(ctx context.Context, module, into, linkerFlags string, commands ...string) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-trimpath", "-buildvcs=false", "-ldflags", linkerFlags, "-o", into + "/"}, commands...)...)
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, output)
	}
	return nil
}

// loadLog is the file of what the load logs, in the directory of the world.
func (w *world) loadLog() string { return "load-" + w.namespace + ".log" }

func (w *world) image(tag string) string { return filepath.Join(w.dir, "images", tag) }

func (w *world) startControlPlane(t *testing.T, programs controlplane.Programs) (err error) {
	dir := filepath.Join(w.dir, "controlplane")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if w.plane, err = controlplane.Start(ctx, dir, programs); err != nil {
		return err
	}
	t.Cleanup(func() { fail(t, w.plane.Stop()) })
	w.client, err = kubernetes.NewForConfig(w.plane.Config(controlplane.Admin))
	return err
}

// prepareNamespace makes a namespace that enforces the restricted Pod Security Standard.
// The user of Helm has only the role admin in it.
func (w *world) prepareNamespace(ctx context.Context) error {
	_, err := w.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: w.namespace, Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"},
	}}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	_, err = w.client.RbacV1().RoleBindings(w.namespace).Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "installer"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "admin"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: controlplane.Installer}},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	if err := w.plane.WriteKubeconfig(filepath.Join(w.dir, "kubeconfig"), controlplane.Installer); err != nil {
		return err
	}
	return await(ctx, "the controllers to make the default service account and the role", func(ctx context.Context) error {
		role, err := w.client.RbacV1().ClusterRoles().Get(ctx, "admin", metav1.GetOptions{})
		if err == nil && len(role.Rules) == 0 {
			err = errors.New("the role admin is empty")
		}
		_, missing := w.client.CoreV1().ServiceAccounts(w.namespace).Get(ctx, "default", metav1.GetOptions{})
		return errors.Join(err, missing)
	})
}

func (w *world) startKubelet(t *testing.T, tags []string) {
	images := make(map[string]string)
	for _, tag := range tags {
		images[tag] = w.image(tag)
	}
	log, err := os.Create(filepath.Join(w.dir, "kubelet.log"))
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(w.plane.Config(controlplane.Admin))
	if err != nil {
		t.Fatal(err)
	}
	k := kubelet.New(kubelet.Options{
		Client: client, Nodes: nodes, Network: w.network, Dir: filepath.Join(w.dir, "kubelet"), Images: images,
		Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- k.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		fail(t, errors.Join(<-ended, log.Close()))
	})
}

// errUnknownField means that Helm has installed an object with a field that the API does
// not have. Helm does not ask for strict validation, so the API server only warns.
var errUnknownField = errors.New("an object has a field that the API server does not know")

// runHelm runs a command of Helm as the installer.
func (w *world) runHelm(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, w.helm, append(args, "--namespace", w.namespace)...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(w.dir, "kubeconfig"), "HELM_CACHE_HOME="+w.dir, "HELM_CONFIG_HOME="+w.dir, "HELM_DATA_HOME="+w.dir)
	output, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("helm %s: %w\n%s", strings.Join(args, " "), err, output)
	}
	if bytes.Contains(output, []byte("unknown field")) {
		return "", fmt.Errorf("helm %s: %w\n%s", strings.Join(args, " "), errUnknownField, output)
	}
	return string(output), nil
}

// await calls ask until it returns no error or ctx ends.
func await(ctx context.Context, what string, ask func(context.Context) error) error {
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w (%w)", what, ctx.Err(), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// diagnose prints the pods, and the ends of the logs of those that are not ready.
func (w *world) diagnose(t *testing.T) {
	t.Helper()
	list, err := w.client.CoreV1().Pods(w.namespace).List(context.Background(), metav1.ListOptions{})
	if err != nil {
		t.Error(err)
		return
	}
	logs := []string{"kubelet.log", w.loadLog()}
	for i := range list.Items {
		pod := &list.Items[i]
		for _, c := range pod.Status.ContainerStatuses {
			t.Logf("%s on %s: %s, ready %t, restarts %d, image %s, state %s", pod.Name, pod.Spec.NodeName, pod.Status.Phase, c.Ready, c.RestartCount, c.Image, c.State.String())
			if !c.Ready {
				logs = append(logs, logOf(pod, c.Name))
			}
		}
	}
	for _, log := range logs {
		text, err := os.ReadFile(filepath.Join(w.dir, log))
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		t.Logf("%s (%v):\n%s", log, err, strings.Join(lines[max(0, len(lines)-10):], "\n"))
	}
	t.Log("OONA_E2E_DIR=DIRECTORY keeps all logs in an empty directory")
}

// logOf returns the file of what a container prints, in the directory of the world.
func logOf(pod *corev1.Pod, container string) string {
	return filepath.Join("kubelet", "logs", fmt.Sprintf("%s_%s_%s_%s.log", pod.Namespace, pod.Name, pod.UID[:8], container))
}
