package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

// maxBytes is the greatest size of an image, compressed.
const maxBytes = 25 << 20

func TestImages(t *testing.T) {
	dir := images(t)
	for _, binary := range binaries {
		t.Run(binary, func(t *testing.T) {
			all := byArchitecture(t, open(t, dir, binary))
			if len(all) != 2 {
				t.Errorf("there are %d images, want two", len(all))
			}
			for _, platform := range []string{"linux/amd64", "linux/arm64"} {
				image := all[platform]
				if image == nil {
					t.Errorf("there is no image for %s", platform)
					continue
				}
				checkConfig(t, binary, platform, configOf(t, image))
				checkSize(t, platform, image)
				checkFiles(t, binary, platform, image)
				checkMaterials(t, dir, binary, platform)
			}
		})
	}
}

func checkConfig(t *testing.T, binary, platform string, config *v1.ConfigFile) {
	t.Helper()
	if got := config.OS + "/" + config.Architecture; got != platform {
		t.Errorf("%s: the configuration says %s", platform, got)
	}
	if got, want := config.Config.User, "65532:65532"; got != want {
		t.Errorf("%s: runs as %q, want %q", platform, got, want)
	}
	if got, want := config.Config.Entrypoint, []string{"/ko-app/" + binary}; !slices.Equal(got, want) {
		t.Errorf("%s: the entry point is %q, want %q", platform, got, want)
	}
	for _, want := range []string{"PATH=/ko-app", "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"} {
		if !slices.Contains(config.Config.Env, want) {
			t.Errorf("%s: the environment %q lacks %s", platform, config.Config.Env, want)
		}
	}
	for _, label := range []string{"title", "version", "revision", "source", "licenses", "base.digest"} {
		if config.Config.Labels["org.opencontainers.image."+label] == "" {
			t.Errorf("%s: the label %s is empty", platform, label)
		}
	}
}

func checkSize(t *testing.T, platform string, image v1.Image) {
	t.Helper()
	manifest, err := image.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	size := manifest.Config.Size
	for _, layer := range manifest.Layers {
		size += layer.Size
	}
	if size >= maxBytes {
		t.Errorf("%s: %d bytes, at most %d are allowed", platform, size, maxBytes)
	}
	t.Logf("%s: %.1f MB", platform, float64(size)/1e6)
}

// checkFiles checks the owners and modes of all files, and that nothing but the base
// and the binary is there.
func checkFiles(t *testing.T, binary, platform string, image v1.Image) {
	t.Helper()
	want := []string{"etc/group", "etc/passwd", "etc/ssl/certs/ca-certificates.crt", "ko-app/" + binary}
	var got []string
	walk(t, image, func(header *tar.Header, content io.Reader) {
		mode := header.FileInfo().Mode()
		if mode&privileged != 0 {
			t.Errorf("%s: %s has mode %s", platform, header.Name, mode)
		}
		if mode.Perm()&0o022 != 0 && header.Name != "tmp" {
			t.Errorf("%s: %s has mode %s: others may write to it", platform, header.Name, mode)
		}
		if mode.IsRegular() {
			got = append(got, header.Name)
		}
	})
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("%s: the files are %q, want %q", platform, got, want)
	}
}

// walk calls do for each file of an image. Names begin and end without a slash.
func walk(t *testing.T, image v1.Image, do func(*tar.Header, io.Reader)) {
	t.Helper()
	files := mutate.Extract(image)
	defer files.Close()
	for r := tar.NewReader(files); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		header.Name = strings.Trim(header.Name, "/")
		do(header, r)
	}
}

// checkMaterials checks the bill of materials of an image.
func checkMaterials(t *testing.T, dir, binary, platform string) {
	t.Helper()
	var bill struct {
		SPDXVersion string
		Packages    []struct{ Name string }
	}
	readJSON(t, filepath.Join(dir, "sbom", binary+"-"+strings.ReplaceAll(platform, "/", "-")+".spdx.json"), &bill)
	if !strings.HasPrefix(bill.SPDXVersion, "SPDX-2.") {
		t.Errorf("%s: the version of the bill is %q", platform, bill.SPDXVersion)
	}
	for _, want := range []string{"github.com/alecthomas/kong", "github.com/morphogenetic/oona"} {
		if !slices.ContainsFunc(bill.Packages, func(p struct{ Name string }) bool { return p.Name == want }) {
			t.Errorf("%s: %s is not in the bill", platform, want)
		}
	}
}

// TestSameDigests builds the images again from a copy of the tree in another place,
// without git, and with nothing kept but Go's build cache.
func TestSameDigests(t *testing.T) {
	dir := images(t)
	first := configOf(t, byArchitecture(t, open(t, dir, "aggregate"))["linux/amd64"])
	again, tree := t.TempDir(), copyTree(t)

	build := exec.Command(filepath.Join(tree, "deploy", "image", "build"), again)
	build.Env = append(os.Environ(), "IMAGE_CACHE="+t.TempDir(),
		"VERSION="+first.Config.Labels["org.opencontainers.image.version"],
		"REVISION="+first.Config.Labels["org.opencontainers.image.revision"],
		fmt.Sprintf("SOURCE_DATE_EPOCH=%d", first.Created.Unix()))
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build again: %v\n%s", err, out)
	}
	for _, binary := range binaries {
		a, errA := open(t, dir, binary).Digest()
		b, errB := open(t, again, binary).Digest()
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		if a != b {
			t.Errorf("%s: %s and %s", binary, a, b)
		}
	}
	sameFiles(t, filepath.Join(dir, "sbom"), filepath.Join(again, "sbom"))
}

// copyTree copies the files of this checkout to a new directory.
func copyTree(t *testing.T) string {
	t.Helper()
	tree := t.TempDir()
	copied := exec.Command("bash", "-euo", "pipefail", "-c",
		`cd ../.. && git ls-files -co --exclude-standard -z | tar --null --create --files-from=- | tar --extract --directory="$0"`, tree)
	if out, err := copied.CombinedOutput(); err != nil {
		t.Fatalf("copy the tree: %v\n%s", err, out)
	}
	return tree
}

// sameFiles compares two directories.
func sameFiles(t *testing.T, a, b string) {
	t.Helper()
	entries, err := os.ReadDir(a)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		x, errX := os.ReadFile(filepath.Join(a, entry.Name()))
		y, errY := os.ReadFile(filepath.Join(b, entry.Name()))
		if errX != nil || errY != nil || !bytes.Equal(x, y) {
			t.Errorf("%s differs (%v, %v)", entry.Name(), errX, errY)
		}
	}
}
