// Package controlplane runs a real Kubernetes API server and controller manager with etcd
// on loopback, for tests.
//
// The programs are built once from their modules, in ../tools, and kept in a cache: the API
// server and the controller manager take a quarter of an hour of one core.
package controlplane

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Programs are paths.
type Programs struct{ Etcd, APIServer, ControllerManager, Helm string }

// Build returns the programs, which it builds or fetches if they are not in the cache. The
// directory tools has a module for each.
func Build(ctx context.Context, cache, tools string) (p Programs, err error) {
	if p.Etcd, err = etcd(ctx, cache); err != nil {
		return p, err
	}
	kubernetes, err := build(ctx, filepath.Join(cache, "kubernetes"), filepath.Join(tools, "kubernetes"), "k8s.io/kubernetes", "kube-apiserver", "kube-controller-manager")
	if err != nil {
		return p, err
	}
	helm, err := build(ctx, filepath.Join(cache, "helm"), filepath.Join(tools, "helm"), "helm.sh/helm/v3", "helm")
	if err != nil {
		return p, err
	}
	p.APIServer, p.ControllerManager = filepath.Join(kubernetes, "kube-apiserver"), filepath.Join(kubernetes, "kube-controller-manager")
	p.Helm = filepath.Join(helm, "helm")
	return p, nil
}

// build builds commands of a module that the module in tool requires. It returns their
// directory, which has the version as its name.
func build(ctx context.Context, cache, tool, module string, commands ...string) (dir string, err error) {
	version, err := goCommand(ctx, tool, "list", "-m", "-f", "{{.Version}}", module)
	if err != nil {
		return "", err
	}
	dir = filepath.Join(cache, version)
	if present(dir, commands) {
		return dir, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("make the cache of programs: %w", err)
	}
	work, err := os.MkdirTemp(cache, "build-") // an incomplete build must not have the final name
	if err != nil {
		return "", fmt.Errorf("make a directory to build in: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	args := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags", linkerFlags(version), "-o", work + "/"}
	for _, name := range commands {
		args = append(args, module+"/cmd/"+name)
	}
	if _, err := goCommand(ctx, tool, args...); err != nil {
		return "", err
	}
	if err := os.RemoveAll(dir); err != nil {
		return "", fmt.Errorf("replace an incomplete build: %w", err)
	}
	if err := os.Rename(work, dir); err != nil {
		return "", fmt.Errorf("keep the programs: %w", err)
	}
	return dir, nil
}

// linkerFlags stamp the version of Kubernetes, which Helm compares with a chart's
// kubeVersion. Other programs do not have these variables.
func linkerFlags(version string) string {
	parts := strings.Split(strings.TrimPrefix(version, "v"), ".")
	const stamp = " -X k8s.io/component-base/version."
	return "-s -w" + stamp + "gitVersion=" + version + stamp + "gitMajor=" + parts[0] + stamp + "gitMinor=" + parts[1]
}

func goCommand(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly", "GOWORK=off")
	var failed strings.Builder
	cmd.Stderr = &failed
	output, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("in %s: go %s: %w\n%s", dir, strings.Join(args, " "), err, failed.String())
	}
	return strings.TrimSpace(string(output)), nil
}

func present(dir string, names []string) bool {
	for _, name := range names {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return false
		}
	}
	return true
}

// ErrNoEtcd means that etcd is missing on this machine.
var ErrNoEtcd = errors.New("there is no etcd on the PATH, and it could not be fetched (Debian: apt-get install etcd-server)")

// etcd returns the path of etcd: the installed one, or that of Debian's package, whose
// files are extracted into the cache.
func etcd(ctx context.Context, cache string) (string, error) {
	if path, err := exec.LookPath("etcd"); err == nil {
		return path, nil
	}
	dir := filepath.Join(cache, "etcd")
	path := filepath.Join(dir, "usr", "bin", "etcd")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("make the cache of etcd: %w", err)
	}
	script := exec.CommandContext(ctx, "sh", "-ec", "apt-get download etcd-server; dpkg-deb --extract etcd-server_*.deb .")
	script.Dir = dir
	if output, err := script.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %w\n%s", ErrNoEtcd, err, output)
	}
	return path, nil
}
