// Command base writes the base image of Oona's images into a directory, as an OCI
// layout: users and groups, root certificates and /tmp, for linux/amd64 and
// linux/arm64. It prints the digest. Its output depends on nothing but this program,
// its modules and the version of Go, so every machine makes the same image.
//
//	go run ./base DIR
package main

import (
	"archive/tar"
	"bytes"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// nonroot is the user and group that the images run as, the same as in distroless.
const nonroot = 65532

const (
	home   = "home/nonroot"
	passwd = "root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/" + home + ":/sbin/nologin\n"
	group  = "root:x:0:\nnonroot:x:65532:\n"

	rootCertificates = "/etc/ssl/certs/ca-certificates.crt"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: base DIR")
		os.Exit(2)
	}
	digest, err := write(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "base:", err)
		os.Exit(1)
	}
	fmt.Println(digest)
}

// write adds the image to the layout in dir, which may not exist yet, and returns its
// digest.
func write(dir string) (v1.Hash, error) {
	index, images, err := build()
	if err != nil {
		return v1.Hash{}, err
	}
	target, err := layout.Write(dir, empty.Index)
	if err != nil {
		return v1.Hash{}, fmt.Errorf("create a layout in %s: %w", dir, err)
	}
	if err := target.AppendIndex(index); err != nil {
		return v1.Hash{}, fmt.Errorf("write the index to %s: %w", dir, err)
	}
	// ko looks for images in the index of the layout only, not in nested ones.
	for _, image := range images {
		if err := target.AppendImage(image); err != nil {
			return v1.Hash{}, fmt.Errorf("write an image to %s: %w", dir, err)
		}
	}
	return index.Digest()
}

// build returns an index of one image for each architecture.
func build() (v1.ImageIndex, []v1.Image, error) {
	files, err := archive()
	if err != nil {
		return nil, nil, fmt.Errorf("make the layer: %w", err)
	}
	layer, err := tarball.LayerFromOpener(
		func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(files)), nil },
		tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, nil, fmt.Errorf("make the layer: %w", err)
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	var images []v1.Image
	for _, architecture := range []string{"amd64", "arm64"} {
		image, err := imageFor(architecture, layer)
		if err != nil {
			return nil, nil, fmt.Errorf("make the image for %s: %w", architecture, err)
		}
		images = append(images, image)
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add:        image,
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: architecture}},
		})
	}
	return index, images, nil
}

func imageFor(architecture string, layer v1.Layer) (v1.Image, error) {
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err := mutate.ConfigFile(image, &v1.ConfigFile{
		OS:           "linux",
		Architecture: architecture,
		Created:      v1.Time{Time: time.Unix(0, 0).UTC()},
		RootFS:       v1.RootFS{Type: "layers"},
		Config: v1.Config{
			User:       fmt.Sprintf("%d:%d", nonroot, nonroot),
			WorkingDir: "/",
			Env:        []string{"SSL_CERT_FILE=" + rootCertificates},
		},
	})
	if err != nil {
		return nil, err
	}
	return mutate.Append(image, mutate.Addendum{
		Layer:   layer,
		History: v1.History{CreatedBy: "deploy/image/base", Created: v1.Time{Time: time.Unix(0, 0).UTC()}},
	})
}

// archive returns the files of the image as a tar archive.
func archive() ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	entries := []struct {
		name  string
		mode  int64
		owner int
		data  []byte // nil: a directory
	}{
		{"etc/", 0o755, 0, nil},
		{"etc/passwd", 0o644, 0, []byte(passwd)},
		{"etc/group", 0o644, 0, []byte(group)},
		{"etc/ssl/", 0o755, 0, nil},
		{"etc/ssl/certs/", 0o755, 0, nil},
		{rootCertificates[1:], 0o644, 0, certificates()},
		{"home/", 0o755, 0, nil},
		{home + "/", 0o700, nonroot, nil},
		{"tmp/", 0o1777, 0, nil},
	}
	for _, e := range entries {
		header := &tar.Header{Name: e.name, Mode: e.mode, Uid: e.owner, Gid: e.owner, Size: int64(len(e.data)),
			Typeflag: tar.TypeReg, ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}
		if e.data == nil {
			header.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(header); err != nil {
			return nil, fmt.Errorf("%s: %w", e.name, err)
		}
		if _, err := w.Write(e.data); err != nil {
			return nil, fmt.Errorf("%s: %w", e.name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// certificates returns Mozilla's root certificates as PEM. A root that Mozilla trusts
// only for some certificates is left out, as a PEM file cannot say so.
func certificates() []byte {
	var out bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			out.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}))
		}
	}
	return out.Bytes()
}
