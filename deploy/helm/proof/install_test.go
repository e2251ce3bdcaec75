package proof

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/http"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	core "k8s.io/api/core/v1"

	"github.com/morphogenetic/oona/bus/kafka/embedded"
)

// The release works when its processes are started in Helm's order beside a broker: the
// Job makes the topics, the workers become ready, and the test of the release passes. With
// TLS on all ports, probes need no certificate, and the rest does.
func TestReleaseWorks(t *testing.T) {
	for _, name := range []string{"minimal", "tls", "mtls"} {
		t.Run(name, func(t *testing.T) { releaseWorks(t, readValues(t, name)) })
	}
}

func releaseWorks(t *testing.T, values map[string]any) {
	broker, err := embedded.Start(t.Context(), embedded.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	values["kafka"] = map[string]any{"brokers": []any{broker.Addrs[0]}}
	values["topics"] = map[string]any{"partitions": 3, "windows": map[string]any{"window-length": "5s"}}
	objects, err := render(loadChart(t), values)
	if err != nil {
		t.Fatal(err)
	}
	values["topics"].(map[string]any)["mode"] = "no-create"
	without, err := render(loadChart(t), values)
	if err != nil {
		t.Fatal(err)
	}
	r := &release{t: t, addresses: map[string]string{}, objects: objects}
	defer r.stop()
	all := workloads(t, objects)
	// An upgrade runs the Job again. Then the topics exist, so it need not make any.
	for _, w := range append(append(all[:len(all):len(all)], all...), workloads(t, without)...) {
		if strings.HasPrefix(w.Hook, "pre-") {
			r.finish(w)
		}
	}
	for _, w := range all {
		if w.Hook == "" {
			r.begin(w)
		}
	}
	for _, w := range all {
		if w.Hook == "" {
			r.awaitReady(w)
		}
	}
	for _, w := range all {
		if w.Hook == "test" {
			began := time.Now()
			r.finish(w)
			t.Logf("%s took %s", w, time.Since(began).Round(time.Millisecond))
		}
	}
}

// release is one whose processes run on this machine. Each workload has one pod, which has
// a loopback address of its own.
type release struct {
	t         *testing.T
	objects   []object
	addresses map[string]string // of the pods, by component
	workers   []running
}

type running struct {
	workload
	command *exec.Cmd
	output  *bytes.Buffer
}

const component = "app.kubernetes.io/component"

// command returns the command of a workload's only container, in which names of Services
// are addresses of pods.
func (r *release) command(w workload) (command *exec.Cmd, output *bytes.Buffer) {
	r.t.Helper()
	name := w.Pod.Labels[component]
	if r.addresses[name] == "" {
		r.addresses[name] = podAddresses[len(r.addresses)].String()
	}
	c := w.Pod.Spec.Containers[0]
	command = start(r.t, w, c)
	for i, arg := range command.Args {
		command.Args[i] = r.resolve(strings.ReplaceAll(arg, podIP, r.addresses[name]))
	}
	output = new(bytes.Buffer)
	command.Stdout, command.Stderr = output, output
	return command, output
}

var serviceURL = regexp.MustCompile(`(https?)://([a-z0-9-]+)\.ns\.svc:([0-9]+)$`)

// resolve replaces the name and the port of a Service by those of the pod that it selects.
func (r *release) resolve(arg string) string {
	r.t.Helper()
	match := serviceURL.FindStringSubmatch(arg)
	if match == nil {
		return arg
	}
	for _, o := range r.objects {
		if o.Kind != "Service" || o.Name != match[2] {
			continue
		}
		s := decode[core.Service](r.t, o)
		for _, p := range s.Spec.Ports {
			if strconv.Itoa(int(p.Port)) != match[3] {
				continue
			}
			for _, w := range workloads(r.t, r.objects) {
				if w.Selector != nil && contains(w.Pod.Labels, s.Spec.Selector) {
					url := fmt.Sprintf("%s://%s:%d", match[1], r.addresses[w.Pod.Labels[component]], port(r.t, w, p.TargetPort.StrVal))
					return strings.TrimSuffix(arg, match[0]) + url
				}
			}
		}
	}
	r.t.Fatalf("no Service has the address %s", match[0])
	return ""
}

func contains(labels, selector map[string]string) bool {
	for key, value := range selector {
		if labels[key] != value {
			return false
		}
	}
	return true
}

func port(t *testing.T, w workload, name string) int32 {
	t.Helper()
	for _, p := range w.Pod.Spec.Containers[0].Ports {
		if p.Name == name {
			return p.ContainerPort
		}
	}
	t.Fatalf("%s has no port %s", w, name)
	return 0
}

// finish runs a workload that ends.
func (r *release) finish(w workload) {
	r.t.Helper()
	command, output := r.command(w)
	if err := command.Run(); err != nil {
		r.t.Fatalf("%s: %v\n%s", w, err, output)
	}
}

// begin starts a worker.
func (r *release) begin(w workload) {
	r.t.Helper()
	command, output := r.command(w)
	if err := command.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.workers = append(r.workers, running{w, command, output})
}

// stop ends the workers as Kubernetes does. They must end by themselves, without an error.
func (r *release) stop() {
	for _, w := range r.workers {
		_ = w.command.Process.Signal(syscall.SIGTERM) // if it has ended, Wait says why
		if err := w.command.Wait(); err != nil || r.t.Failed() {
			r.t.Errorf("%s: %v\n%s", w, err, w.output)
		}
	}
}

// kubelet is a client that trusts every certificate and has none, as a kubelet does.
var kubelet = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}

// awaitReady asks a worker by its own probe.
func (r *release) awaitReady(w workload) {
	r.t.Helper()
	c := w.Pod.Spec.Containers[0]
	get := c.ReadinessProbe.HTTPGet
	url := fmt.Sprintf("%s://%s:%d%s", strings.ToLower(string(get.Scheme)), r.addresses[w.Pod.Labels[component]], port(r.t, w, get.Port.StrVal), get.Path)
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		response, err := kubelet.Get(url)
		if err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return
			}
			err = fmt.Errorf("status %d", response.StatusCode)
		}
		if time.Now().After(end) {
			r.t.Fatalf("%s does not become ready: %v", w, err)
		}
	}
}
