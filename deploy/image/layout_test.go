package image

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// binaries are the commands that have an image.
var binaries = []string{"ingest", "aggregate", "exporter", "oona"}

// images returns the directory into which `make image` has built the images.
func images(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("OONA_IMAGES")
	if dir == "" {
		t.Skip("OONA_IMAGES is not set; `make image-test` builds the images and sets it")
	}
	return dir
}

// open returns the index of a binary's images.
func open(t *testing.T, dir, binary string) v1.ImageIndex {
	t.Helper()
	top, err := layout.ImageIndexFromPath(filepath.Join(dir, binary))
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := top.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if n := len(manifest.Manifests); n != 1 {
		t.Fatalf("the layout of %s has %d entries, want the index alone", binary, n)
	}
	index, err := top.ImageIndex(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	return index
}

// byArchitecture returns the images of an index.
func byArchitecture(t *testing.T, index v1.ImageIndex) map[string]v1.Image {
	t.Helper()
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]v1.Image{}
	for _, m := range manifest.Manifests {
		image, err := index.Image(m.Digest)
		if err != nil {
			t.Fatal(err)
		}
		all[m.Platform.String()] = image
	}
	return all
}

func configOf(t *testing.T, image v1.Image) *v1.ConfigFile {
	t.Helper()
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// readJSON decodes a file.
func readJSON(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// privileged are modes that no file of an image may have.
const privileged = fs.ModeSetuid | fs.ModeSetgid
