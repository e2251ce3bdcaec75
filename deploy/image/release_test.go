package image

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

// release returns the directory into which `make release` has put its files, and the
// version.
func release(t *testing.T) (dir, version string) {
	t.Helper()
	dir = os.Getenv("OONA_RELEASE")
	if dir == "" {
		t.Skip("OONA_RELEASE is not set; `make release-test` makes a release and sets it")
	}
	charts, err := filepath.Glob(filepath.Join(dir, "oona-*.tgz"))
	if err != nil || len(charts) != 1 {
		t.Fatalf("the charts are %q (%v), want one", charts, err)
	}
	return dir, strings.TrimSuffix(strings.TrimPrefix(filepath.Base(charts[0]), "oona-"), ".tgz")
}

// archived returns the files of an archive by their names.
func archived(t *testing.T, file string) map[string][]byte {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var in io.Reader = f
	if !strings.HasSuffix(file, ".tar") {
		if in, err = gzip.NewReader(f); err != nil {
			t.Fatal(err)
		}
	}
	files := map[string][]byte{}
	for r := tar.NewReader(in); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if header.Uid != 0 || header.Uname != "" || header.Mode&0o022 != 0 {
			t.Errorf("%s: %s belongs to %d (%s) and has mode %o", file, header.Name, header.Uid, header.Uname, header.Mode)
		}
		if files[path.Clean(header.Name)], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReleaseChecksums(t *testing.T) {
	dir, _ := release(t)
	sums, err := os.ReadFile(filepath.Join(dir, "SHA256SUMS"))
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]string{}
	for line := range strings.Lines(string(sums)) {
		sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		listed[name] = sum
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if entry.Name() == "SHA256SUMS" {
			continue
		}
		content, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%x", sha256.Sum256(content)); listed[entry.Name()] != got {
			t.Errorf("%s has %s, listed is %q", entry.Name(), got, listed[entry.Name()])
		}
		delete(listed, entry.Name())
	}
	if len(listed) > 0 {
		t.Errorf("listed and not there: %v", listed)
	}
}

// The archive of Linux has the binaries of the images, with their version, and the
// list of digests names the images.
func TestReleaseBinaries(t *testing.T) {
	dir, version := release(t)
	name := "oona-" + version + "-linux-" + runtime.GOARCH
	files := archived(t, filepath.Join(dir, name+".tar.gz"))
	digests, err := os.ReadFile(filepath.Join(dir, "oona-"+version+"-digests.txt"))
	if err != nil {
		t.Fatal(err)
	}
	layouts := t.TempDir()
	for _, binary := range binaries {
		content := files[name+"/bin/"+binary]
		unpackLayout(t, filepath.Join(dir, "oona-image-"+binary+"-"+version+".oci.tar"), filepath.Join(layouts, binary))
		index := open(t, layouts, binary)
		walk(t, byArchitecture(t, index)["linux/"+runtime.GOARCH], func(header *tar.Header, in io.Reader) {
			if header.Name != "ko-app/"+binary {
				return
			}
			inImage, err := io.ReadAll(in)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(content, inImage) {
				t.Errorf("%s of the archive has %d bytes and differs from the image's, which has %d", binary, len(content), len(inImage))
			}
		})
		digest, err := index.Digest()
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(digests), binary+"@"+digest.String()+"\n") {
			t.Errorf("%s has the digest %s, and the list\n%s", binary, digest, digests)
		}
		program := filepath.Join(t.TempDir(), binary)
		if err := os.WriteFile(program, content, 0o700); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.CommandContext(t.Context(), program, "--version").CombinedOutput(); err != nil || !strings.HasPrefix(string(out), binary+" "+version+" ") {
			t.Errorf("--version says %q (%v)", out, err)
		}
	}
	for _, file := range []string{"LICENSE", "deploy/systemd/oona@.service", "deploy/systemd/etc/ingest.yaml", "deploy/prometheus/oona-alerts.yml", "deploy/prometheus/network-alerts.yml"} {
		if len(files[name+"/"+file]) == 0 {
			t.Errorf("the archive lacks %s", file)
		}
	}
}

// The pages of the archives and of the chart have no links to files that are not there.
func TestReleaseLinks(t *testing.T) {
	dir, version := release(t)
	name := "oona-" + version + "-linux-" + runtime.GOARCH
	for archive, folder := range map[string]string{name + ".tar.gz": name, "oona-" + version + ".tgz": "oona"} {
		files := archived(t, filepath.Join(dir, archive))
		links := 0
		for page, content := range files {
			if !strings.HasPrefix(page, folder) || !strings.HasSuffix(page, ".md") {
				continue
			}
			for _, match := range markdownLink.FindAllStringSubmatch(string(content), -1) {
				target, _, _ := strings.Cut(match[1], "#")
				links++
				if target == "" || strings.HasPrefix(target, "https://") {
					continue
				}
				if _, there := files[path.Join(path.Dir(page), target)]; !there {
					t.Errorf("%s of %s has a link to %s, which the archive does not have", page, archive, match[1])
				}
			}
		}
		if links == 0 {
			t.Errorf("%s has no page with links", archive)
		}
	}
}

var markdownLink = regexp.MustCompile(`\]\(([^() ]+)\)`)

// A directory with other files is left alone.
func TestReleaseKeepsForeignFiles(t *testing.T) {
	for _, name := range []string{"thesis.tex", "oona-checkout/go.mod"} {
		dir := t.TempDir()
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte("x"), 0o600)); err != nil {
			t.Fatal(err)
		}
		build := exec.CommandContext(t.Context(), "../release", dir)
		build.Env = append(os.Environ(), "VERSION=0.0.0-test", "REVISION=none", "SOURCE_DATE_EPOCH=0")
		if out, err := build.CombinedOutput(); err == nil || !strings.Contains(string(out), "not of a release") {
			t.Errorf("%s: error %v\n%s", name, err, out)
		}
		if _, err := os.Stat(file); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A version is one that charts and tags of images can have.
func TestVersionIsChecked(t *testing.T) {
	for version, want := range map[string]bool{"0.1.0": true, "0.1.0-rc.1": true, "v0.1.0": false, "0.1": false, "0.1.0+build": false, "0.1.0 ": false, "main": false} {
		print := exec.CommandContext(t.Context(), "./version")
		print.Env = append(os.Environ(), "VERSION="+version)
		out, err := print.CombinedOutput()
		if (err == nil) != want || want && string(out) != version+"\n" {
			t.Errorf("%q: %q, error %v", version, out, err)
		}
	}
}

// A directory that is no image is not replaced by one.
func TestImageReplacesOnlyAnImage(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "ingest", "main.go")
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte("x"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "./build", dir, "ingest").CombinedOutput(); err == nil || !strings.Contains(string(out), "no image") {
		t.Errorf("error %v\n%s", err, out)
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}

func unpackLayout(t *testing.T, file, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "tar", "--extract", "--file="+file, "--directory="+dir).CombinedOutput(); err != nil {
		t.Fatalf("unpack %s: %v\n%s", file, err, out)
	}
}

func TestReleaseChart(t *testing.T) {
	dir, version := release(t)
	chart := archived(t, filepath.Join(dir, "oona-"+version+".tgz"))
	for _, want := range []string{"\nversion: " + version + "\n", "\nappVersion: \"" + version + "\"\n"} {
		if !strings.Contains(string(chart["oona/Chart.yaml"]), want) {
			t.Errorf("Chart.yaml lacks %q:\n%s", want, chart["oona/Chart.yaml"])
		}
	}
	var schema any
	if err := json.Unmarshal(chart["oona/values.schema.json"], &schema); err != nil {
		t.Errorf("values.schema.json: %v", err)
	}
}

// The wheel has the version, the code and nothing else, and its page has no links to files
// that it does not have.
func TestReleaseWheel(t *testing.T) {
	dir, version := release(t)
	wheels, err := filepath.Glob(filepath.Join(dir, "oona_client-*.whl"))
	if err != nil || len(wheels) != 1 {
		t.Fatalf("the wheels are %q (%v), want one", wheels, err)
	}
	wheel, err := zip.OpenReader(wheels[0])
	if err != nil {
		t.Fatal(err)
	}
	defer wheel.Close()
	name := strings.TrimSuffix(filepath.Base(wheels[0]), "-py3-none-any.whl") // oona_client-0.1.0.dev0+g0123
	wanted, _, _ := strings.Cut(version, "-")
	if got := strings.TrimPrefix(name, "oona_client-"); got != wanted && !strings.HasPrefix(got, wanted+".") && !strings.HasPrefix(got, wanted+"rc") {
		t.Errorf("the wheel of %s has the version %s", version, got)
	}
	files := map[string]string{}
	for _, file := range wheel.File {
		content, err := wheel.Open(file.Name)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(content)
		content.Close()
		if err != nil {
			t.Fatal(err)
		}
		files[file.Name] = string(text)
		if !strings.HasPrefix(file.Name, "oona_client/") && !strings.HasPrefix(file.Name, name+".dist-info/") {
			t.Errorf("the wheel has %s", file.Name)
		}
	}
	if got := files["oona_client/version.py"]; !strings.Contains(got, `VERSION = "`+strings.TrimPrefix(name, "oona_client-")+`"`) {
		t.Errorf("version.py of %s is %s", name, got)
	}
	for _, file := range []string{"oona_client/py.typed", "oona_client/client.py", name + ".dist-info/licenses/LICENSE"} {
		if _, there := files[file]; !there {
			t.Errorf("the wheel lacks %s", file)
		}
	}
	links := markdownLink.FindAllStringSubmatch(files[name+".dist-info/METADATA"], -1)
	if len(links) == 0 {
		t.Error("the page of the wheel has no links")
	}
	for _, match := range links {
		if !strings.HasPrefix(match[1], "https://") {
			t.Errorf("the page of the wheel has a link to %s", match[1])
		}
	}
}

// TestReleaseAgain makes the release again from a copy of the tree, without git.
func TestReleaseAgain(t *testing.T) {
	dir, version := release(t)
	tree, again := copyTree(t), filepath.Join(t.TempDir(), "release")
	layouts := t.TempDir()
	unpackLayout(t, filepath.Join(dir, "oona-image-ingest-"+version+".oci.tar"), filepath.Join(layouts, "ingest"))
	config := configOf(t, byArchitecture(t, open(t, layouts, "ingest"))["linux/amd64"])

	build := exec.CommandContext(t.Context(), filepath.Join(tree, "deploy", "release"), again)
	build.Env = append(os.Environ(), "VERSION="+version, "IMAGE_CACHE="+t.TempDir(),
		"REVISION="+config.Config.Labels["org.opencontainers.image.revision"],
		fmt.Sprintf("SOURCE_DATE_EPOCH=%d", config.Created.Unix()))
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("make it again: %v\n%s", err, out)
	}
	a, errA := os.ReadFile(filepath.Join(dir, "SHA256SUMS"))
	b, errB := os.ReadFile(filepath.Join(again, "SHA256SUMS"))
	if errA != nil || errB != nil || !bytes.Equal(a, b) {
		t.Errorf("the checksums (%v, %v) are\n%s\nand\n%s", errA, errB, a, b)
	}
}
