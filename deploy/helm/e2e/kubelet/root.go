package kubelet

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ErrNoImage means that no image has the tag.
var ErrNoImage = errors.New("not found")

// image returns the directory of an image.
func (k *Kubelet) image(reference string) (string, error) {
	_, tag, _ := strings.Cut(reference[strings.LastIndexByte(reference, '/')+1:], ":")
	if dir, found := k.Images[tag]; found {
		return dir, nil
	}
	return "", fmt.Errorf("failed to resolve reference %q: %w", reference, ErrNoImage)
}

// makeRoot makes the root of a container: the files of the image as links, places for the
// mounts, and the files that a kubelet writes.
func (p *pod) makeRoot(ctx context.Context, image, root string, mounts []mount) error {
	if err := os.RemoveAll(root); err != nil {
		return err
	}
	if err := link(image, root); err != nil {
		return err
	}
	for _, dir := range []string{"proc", "dev", "etc", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	for _, device := range devices {
		if err := os.WriteFile(filepath.Join(root, device), nil, 0o644); err != nil {
			return err
		}
	}
	for _, m := range mounts {
		if err := place(m.From, filepath.Join(root, m.To)); err != nil {
			return err
		}
	}
	hosts, err := p.hosts(ctx)
	if err != nil {
		return err
	}
	for name, text := range map[string]string{"hosts": hosts, "hostname": p.is.Name + "\n", "resolv.conf": "nameserver 127.0.0.1\noptions attempts:1 timeout:1\n"} {
		path := filepath.Join(root, "etc", name)
		if err := errors.Join(os.RemoveAll(path), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			return err
		}
	}
	return nil
}

// link makes a tree of hard links to the files of another.
func link(from, to string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, relative)
		if entry.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		return os.Link(path, target)
	})
}

// place makes an empty file or directory, like the one that is mounted over it.
func place(from, at string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	if info.IsDir() {
		return os.MkdirAll(at, 0o755)
	}
	return errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, nil, 0o644))
}

// mounts returns the mounts of a container, the shorter paths first.
func (p *pod) mounts(c *corev1.Container) (mounts []mount, err error) {
	for _, m := range c.VolumeMounts {
		dir, found := p.volumes[m.Name]
		if !found {
			return nil, fmt.Errorf("the pod has no volume %s", m.Name)
		}
		_, fromAPI := p.written[m.Name]
		mounts = append(mounts, mount{From: filepath.Join(dir, m.SubPath), To: m.MountPath, ReadOnly: m.ReadOnly || fromAPI})
	}
	slices.SortFunc(mounts, func(a, b mount) int { return len(a.To) - len(b.To) })
	return mounts, nil
}

// hosts returns /etc/hosts: the pod, and the Services of its namespace with the addresses
// of their ready pods, as there is no DNS.
func (p *pod) hosts(ctx context.Context) (string, error) {
	var out strings.Builder
	fmt.Fprintf(&out, "127.0.0.1 localhost\n%s %s\n", p.address, p.is.Name)
	slicesOf, err := p.kubelet.Client.DiscoveryV1().EndpointSlices(p.is.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return "", fmt.Errorf("list EndpointSlices: %w", err)
	}
	for i := range slicesOf.Items {
		service := slicesOf.Items[i].Labels[discoveryv1.LabelServiceName]
		for _, endpoint := range slicesOf.Items[i].Endpoints {
			if ready := endpoint.Conditions.Ready; ready != nil && !*ready {
				continue
			}
			qualified := service + "." + p.is.Namespace
			fmt.Fprintf(&out, "%s %s %s %s.svc %s.svc.cluster.local\n", endpoint.Addresses[0], service, qualified, qualified, qualified)
		}
	}
	return out.String(), nil
}
