package kubelet

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// file is a file of a volume that comes from the API.
type file struct {
	data string
	mode fs.FileMode
}

// makeVolumes makes the directories of the pod's volumes.
func (p *pod) makeVolumes(ctx context.Context) error {
	for i := range p.is.Spec.Volumes {
		v := &p.is.Spec.Volumes[i]
		dir, err := p.makeVolume(ctx, v)
		if err != nil {
			return fmt.Errorf("volume %s: %w", v.Name, err)
		}
		p.volumes[v.Name] = dir
	}
	return nil
}

func (p *pod) makeVolume(ctx context.Context, v *corev1.Volume) (dir string, err error) {
	dir = filepath.Join(p.dir, "volumes", v.Name)
	switch {
	case v.EmptyDir != nil:
		return dir, p.makeDirectory(dir, 0o777)
	case v.PersistentVolumeClaim != nil:
		claim := v.PersistentVolumeClaim.ClaimName
		dir = filepath.Join(p.kubelet.Dir, "claims", p.is.Namespace, claim)
		return dir, errors.Join(p.makeDirectory(dir, 0o775), p.bindClaim(ctx, claim))
	}
	files, err := p.filesOf(ctx, v)
	if err != nil {
		return "", err
	}
	if err := p.makeDirectory(dir, 0o755); err != nil {
		return "", err
	}
	p.written[v.Name] = files
	return dir, p.writeFiles(dir, files)
}

// makeDirectory makes a directory that the pod's group may use.
func (p *pod) makeDirectory(dir string, mode fs.FileMode) error {
	err := os.MkdirAll(dir, mode)
	if group := p.group(); group >= 0 {
		err = errors.Join(err, os.Chown(dir, -1, group))
		mode |= fs.ModeSetgid
	}
	return errors.Join(err, os.Chmod(dir, mode))
}

// group returns the fsGroup of the pod, or -1.
func (p *pod) group() int {
	if s := p.is.Spec.SecurityContext; s != nil && s.FSGroup != nil {
		return int(*s.FSGroup)
	}
	return -1
}

// bindClaim reports a claim as bound. Its directory is the volume.
func (p *pod) bindClaim(ctx context.Context, name string) error {
	_, err := p.kubelet.Client.CoreV1().PersistentVolumeClaims(p.is.Namespace).
		Patch(ctx, name, types.MergePatchType, []byte(`{"status":{"phase":"Bound"}}`), metav1.PatchOptions{}, "status")
	if err != nil {
		return fmt.Errorf("bind the claim %s: %w", name, err)
	}
	return nil
}

// filesOf returns the files of a volume that comes from the API.
func (p *pod) filesOf(ctx context.Context, v *corev1.Volume) (map[string]file, error) {
	switch {
	case v.Secret != nil:
		data, err := p.secret(ctx, v.Secret.SecretName, v.Secret.Optional)
		if err != nil {
			return nil, err
		}
		return filesFrom(data, v.Secret.Items, v.Secret.DefaultMode)
	case v.ConfigMap != nil:
		data, err := p.configMap(ctx, v.ConfigMap.Name, v.ConfigMap.Optional)
		if err != nil {
			return nil, err
		}
		return filesFrom(data, v.ConfigMap.Items, v.ConfigMap.DefaultMode)
	case v.DownwardAPI != nil:
		return p.fields(v.DownwardAPI.Items, v.DownwardAPI.DefaultMode)
	case v.Projected != nil:
		return p.projected(ctx, v.Projected)
	}
	return nil, fmt.Errorf("this kind of volume is not supported: %v", v.VolumeSource)
}

func (p *pod) projected(ctx context.Context, v *corev1.ProjectedVolumeSource) (map[string]file, error) {
	all := make(map[string]file)
	for _, source := range v.Sources {
		var files map[string]file
		var err error
		switch {
		case source.Secret != nil:
			var data map[string][]byte
			if data, err = p.secret(ctx, source.Secret.Name, source.Secret.Optional); err == nil {
				files, err = filesFrom(data, source.Secret.Items, v.DefaultMode)
			}
		case source.ConfigMap != nil:
			var data map[string][]byte
			if data, err = p.configMap(ctx, source.ConfigMap.Name, source.ConfigMap.Optional); err == nil {
				files, err = filesFrom(data, source.ConfigMap.Items, v.DefaultMode)
			}
		case source.DownwardAPI != nil:
			files, err = p.fields(source.DownwardAPI.Items, v.DefaultMode)
		default:
			err = fmt.Errorf("this source is not supported: %v", source)
		}
		if err != nil {
			return nil, err
		}
		maps.Copy(all, files)
	}
	return all, nil
}

// filesFrom returns the files of data: those of items, or all.
func filesFrom(data map[string][]byte, items []corev1.KeyToPath, mode *int32) (map[string]file, error) {
	files := make(map[string]file)
	if len(items) == 0 {
		for key, value := range data {
			files[key] = file{string(value), modeOf(mode)}
		}
	}
	for _, item := range items {
		value, found := data[item.Key]
		if !found {
			return nil, fmt.Errorf("references a key that does not exist: %s", item.Key)
		}
		itemMode := modeOf(mode)
		if item.Mode != nil {
			itemMode = modeOf(item.Mode)
		}
		files[item.Path] = file{string(value), itemMode}
	}
	return files, nil
}

func (p *pod) fields(items []corev1.DownwardAPIVolumeFile, mode *int32) (map[string]file, error) {
	files := make(map[string]file)
	for _, item := range items {
		if item.FieldRef == nil {
			return nil, fmt.Errorf("%s: only fieldRef is supported", item.Path)
		}
		value, err := p.field(item.FieldRef.FieldPath)
		if err != nil {
			return nil, err
		}
		files[item.Path] = file{value, modeOf(mode)}
	}
	return files, nil
}

func modeOf(mode *int32) fs.FileMode {
	if mode == nil {
		return 0o644
	}
	return fs.FileMode(*mode)
}

// dataLink is the symbolic link through which all files of a volume change at the same
// time.
const dataLink = "..data"

// writeFiles replaces the files of a volume like a kubelet: programs see all the old files
// or all the new ones, each a link through dataLink.
func (p *pod) writeFiles(dir string, files map[string]file) error {
	version, err := os.MkdirTemp(dir, "..")
	if err != nil {
		return err
	}
	if err := p.makeDirectory(version, 0o755); err != nil {
		return err
	}
	for path, f := range files {
		if err := p.writeFile(filepath.Join(version, path), f); err != nil {
			return err
		}
	}
	before, _ := os.Readlink(filepath.Join(dir, dataLink)) // empty the first time
	temporary := filepath.Join(dir, "..tmp")
	if err := errors.Join(os.Symlink(filepath.Base(version), temporary), os.Rename(temporary, filepath.Join(dir, dataLink))); err != nil {
		return err
	}
	for path := range files {
		top, _, _ := strings.Cut(path, "/")
		if err := os.Symlink(filepath.Join(dataLink, top), filepath.Join(dir, top)); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if before == "" {
		return nil
	}
	return os.RemoveAll(filepath.Join(dir, before))
}

// writeFile writes a file that belongs to root, and that the pod's group may read.
func (p *pod) writeFile(path string, f file) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path, []byte(f.data), 0o600); err != nil {
		return err
	}
	mode := f.mode
	if group := p.group(); group >= 0 {
		mode |= 0o440
		if err := os.Chown(path, -1, group); err != nil {
			return err
		}
	}
	return os.Chmod(path, mode)
}

// refreshVolumes writes the volumes again whose objects have changed.
func (p *pod) refreshVolumes(ctx context.Context) error {
	for i := range p.is.Spec.Volumes {
		v := &p.is.Spec.Volumes[i]
		before, fromAPI := p.written[v.Name]
		if !fromAPI {
			continue
		}
		files, err := p.filesOf(ctx, v)
		if err != nil {
			return fmt.Errorf("volume %s: %w", v.Name, err)
		}
		if maps.Equal(files, before) {
			continue
		}
		if err := p.writeFiles(p.volumes[v.Name], files); err != nil {
			return fmt.Errorf("volume %s: %w", v.Name, err)
		}
		p.written[v.Name] = files
	}
	return nil
}
