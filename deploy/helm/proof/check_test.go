package proof

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// cluster has the objects of the user's that pods mount, with the content of their keys.
var cluster = map[string]map[string]string{
	"Secret/s3-credentials":  {"secret-access-key": "secret"},
	"Secret/s3-ca":           {"ca.crt": certificate},
	"Secret/cluster-ca-cert": {"ca.crt": certificate},
	"Secret/trace-user":      {"headers": "authorization: Bearer secret\n"},
	"Secret/oona-user":       {"password": "secret", "token": "a.b.c", "user.crt": certificate, "user.key": privateKey},
	"Secret/ingest-tls":      {"tls.crt": certificate, "tls.key": privateKey},
	"Secret/admin-tls":       {"tls.crt": certificate, "tls.key": privateKey, "ca.crt": certificate},
	"Secret/trainers-ca":     {"ca.crt": certificate},
	"Secret/access":          {"access.yaml": accessFile},
	"Secret/test-token":      {"token": "secret"},
	"ConfigMap/my-metrics":   {"catalogue.yaml": "metrics: {my_metric: {group: health, direction: lower_is_better, help: A metric of mine.}}\n"},
}

// accessFile has one identity. The hash is that of the token "secret".
const accessFile = `identities:
  - name: trainers
    tokens: [2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b]
    runs: ["*"]
    producers: ["*"]
    roles: [frames, tensors, metrics]
`

// Every worker accepts the configuration that the chart gives it: its arguments and its
// environment, with the files that are mounted in its container.
func TestWorkersAccept(t *testing.T) {
	checked := map[string]bool{}
	for _, name := range valueFiles(t) {
		t.Run(name, func(t *testing.T) {
			for _, w := range workloads(t, renderFile(t, name)) {
				for _, c := range w.Pod.Spec.Containers {
					program := filepath.Base(c.Command[0])
					if program == "oona" {
						continue // it has no --check: TestToolsAccept
					}
					checked[program] = true
					effective := check(t, w, c)
					if got := effective["brokers"]; got == nil {
						t.Errorf("%s: the effective configuration has no brokers: %v", w, effective)
					}
				}
			}
		})
	}
	for _, program := range []string{"ingest", "aggregate", "exporter"} {
		if !checked[program] {
			t.Errorf("%s was not checked", program)
		}
	}
}

// The command oona accepts the arguments that the chart gives it, in the Job and in the
// test of the release. There is nothing at the addresses, so it fails, but not with the
// exit status of wrong arguments.
func TestToolsAccept(t *testing.T) {
	const failed = 1
	addresses := regexp.MustCompile(`^(--brokers=|--ingest=https?://|--exporter=https?://).*`)
	for _, name := range valueFiles(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, w := range workloads(t, renderFile(t, name)) {
				c := w.Pod.Spec.Containers[0]
				if filepath.Base(c.Command[0]) != "oona" {
					continue
				}
				for i, arg := range c.Args {
					c.Args[i] = addresses.ReplaceAllString(arg, "${1}127.0.0.1:1")
					if strings.HasPrefix(arg, "--timeout=") {
						c.Args[i] = "--timeout=1s"
					}
				}
				out, err := start(t, w, c).CombinedOutput()
				if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != failed {
					t.Errorf("%s: %v\n%s", w, err, out)
				}
			}
		})
	}
}

// The configurations of a release's workers agree with each other: `oona check` finds
// nothing wrong between them.
func TestWorkersAgree(t *testing.T) {
	agreed := 0
	for _, name := range valueFiles(t) {
		t.Run(name, func(t *testing.T) {
			args := []string{"check", "--offline", "--bin", binaries}
			for _, w := range workloads(t, renderFile(t, name)) {
				c := w.Pod.Spec.Containers[0]
				program := filepath.Base(c.Command[0])
				if program == "oona" {
					continue
				}
				text, err := yaml.Marshal(check(t, w, c))
				if err != nil {
					t.Fatal(err)
				}
				file := filepath.Join(t.TempDir(), program+".yaml")
				write(t, file, text)
				args = append(args, "--"+program, file)
			}
			if out, err := exec.Command(filepath.Join(binaries, "oona"), args...).CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
			agreed++
		})
	}
	if agreed == 0 {
		t.Error("nothing was checked")
	}
}

// check runs the container's program with --check and returns the effective configuration.
func check(t *testing.T, w workload, c core.Container) map[string]any {
	t.Helper()
	out, err := start(t, w, c, "--check").Output()
	if err != nil {
		t.Fatalf("%s refuses what the chart gives it: %v\n%s", w, err, stderr(err))
	}
	var effective map[string]any
	if err := yaml.UnmarshalStrict(out, &effective); err != nil {
		t.Fatal(err)
	}
	return effective
}

// start returns the command of a container as a kubelet would start it, with more
// arguments. Its environment is that of the container alone, and paths of its mounts are
// those of directories on this machine.
func start(t *testing.T, w workload, c core.Container, more ...string) *exec.Cmd {
	t.Helper()
	env := environment(t, w, c)
	var args []string
	for _, arg := range append(c.Args[:len(c.Args):len(c.Args)], more...) {
		args = append(args, expand(arg, env))
	}
	for _, m := range c.VolumeMounts {
		dir := mount(t, w, m.Name)
		for i, arg := range args {
			if flag, path, ok := strings.Cut(arg, "="); ok && (path == m.MountPath || strings.HasPrefix(path, m.MountPath+"/")) {
				args[i] = flag + "=" + dir + strings.TrimPrefix(path, m.MountPath)
			}
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	command := exec.CommandContext(ctx, filepath.Join(binaries, filepath.Base(c.Command[0])), args...)
	command.Env = []string{}
	for name, value := range env {
		command.Env = append(command.Env, name+"="+value)
	}
	return command
}

// podIP is the address of every pod.
const podIP = "10.1.2.3"

func environment(t *testing.T, w workload, c core.Container) map[string]string {
	t.Helper()
	fields := map[string]string{"metadata.name": w.Name + "-0", "metadata.namespace": "ns", "status.podIP": podIP}
	env := map[string]string{}
	for _, e := range c.Env {
		switch {
		case e.ValueFrom == nil:
			env[e.Name] = expand(e.Value, env)
		case e.ValueFrom.FieldRef != nil:
			value, ok := fields[e.ValueFrom.FieldRef.FieldPath]
			if !ok {
				t.Fatalf("%s: %s is of the field %s, which this test does not know", w, e.Name, e.ValueFrom.FieldRef.FieldPath)
			}
			env[e.Name] = value
		default:
			env[e.Name] = "value"
		}
	}
	return env
}

var reference = regexp.MustCompile(`\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)`)

// expand replaces references to variables as Kubernetes does: those to unknown ones stay.
func expand(text string, env map[string]string) string {
	return reference.ReplaceAllStringFunc(text, func(match string) string {
		if value, ok := env[reference.FindStringSubmatch(match)[1]]; ok {
			return value
		}
		return match
	})
}

// mount returns a directory with the content of a volume.
func mount(t *testing.T, w workload, volume string) string {
	t.Helper()
	dir := t.TempDir()
	for _, v := range w.Pod.Spec.Volumes {
		if v.Name != volume {
			continue
		}
		var object string
		var items []core.KeyToPath
		switch {
		case v.Secret != nil:
			object, items = "Secret/"+v.Secret.SecretName, v.Secret.Items
		case v.ConfigMap != nil:
			object, items = "ConfigMap/"+v.ConfigMap.Name, v.ConfigMap.Items
		default:
			return dir // empty, or a claim
		}
		data, ok := cluster[object]
		if !ok {
			t.Fatalf("%s mounts %s, which this test has no content for", w, object)
		}
		if items == nil {
			for key := range data {
				items = append(items, core.KeyToPath{Key: key, Path: key})
			}
		}
		for _, item := range items {
			content, ok := data[item.Key]
			if !ok {
				t.Fatalf("%s mounts the key %s of %s, which has none", w, item.Key, object)
			}
			if err := os.WriteFile(filepath.Join(dir, item.Path), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

// seconds returns the value of a flag, which is a time.
func seconds(args []string, flag string) (int64, bool) {
	for _, arg := range args {
		if value, ok := strings.CutPrefix(arg, flag+"="); ok {
			d, err := time.ParseDuration(value)
			return int64(d / time.Second), err == nil
		}
	}
	return 0, false
}

func stderr(err error) string {
	if exit, ok := err.(*exec.ExitError); ok {
		return string(bytes.TrimSpace(exit.Stderr))
	}
	return ""
}

// What decides between pods and releases reaches the worker.
func TestWorkersAreTold(t *testing.T) {
	want := map[string]map[string]any{
		"r-oona-ingest":    {"instance": "ns.r-oona-ingest-0", "max-message-bytes": 4000000.0, "prefix": "team-a", "listen": podIP + ":8080", "admin-address": podIP + ":9101"},
		"r-oona-aggregate": {"group-instance": "r-oona-aggregate-0", "worker": "r-oona-aggregate-0", "prefix": "team-a", "window-length": "30s"},
		"r-oona-exporter":  {"lookback": "2h0m0s", "prefix": "team-a"},
	}
	for _, w := range workloads(t, renderFile(t, "production")) {
		for key, value := range want[w.Name] {
			if got := check(t, w, w.Pod.Spec.Containers[0])[key]; got != value {
				t.Errorf("%s has %s %v (%T); want %v", w, key, got, got, value)
			}
		}
		delete(want, w.Name)
	}
	for name := range want {
		t.Errorf("%s is not rendered", name)
	}
}
