package image

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// inImage runs a program as a container runtime would: as the user 65532, with the
// files of the image as its root, read-only. It prints the user and fails if the root
// can be written to.
const inImage = `
mount --bind "$0" "$0"
mount -o remount,bind,ro "$0"
[[ $(id -u):$(id -g) == 65532:65532 ]] || { echo "the user is $(id -u):$(id -g)"; exit 99; }
if touch "$0/file" 2>/dev/null; then echo "the root can be written to"; exit 99; fi
exec chroot "$0" "$@"
`

// container returns a command that runs a program of the image in root.
func container(ctx context.Context, root string, args ...string) *exec.Cmd {
	unshare := append([]string{"--user", "--map-user=65532", "--map-group=65532", "--keep-caps", "--mount", "bash", "-euo", "pipefail", "-c", inImage, root}, args...)
	cmd := exec.CommandContext(ctx, "unshare", unshare...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	return cmd
}

// needNamespaces skips the test where user namespaces are not allowed.
func needNamespaces(t *testing.T) {
	t.Helper()
	out, err := exec.Command("unshare", "--user", "--map-user=65532", "--map-group=65532", "--keep-caps", "--mount", "id", "-u").CombinedOutput()
	if err == nil {
		return
	}
	if os.Getenv("OONA_REQUIRE_NAMESPACES") != "" {
		t.Fatalf("OONA_REQUIRE_NAMESPACES is set, and user namespaces are not allowed here: %v: %s", err, out)
	}
	t.Skipf("user namespaces are not allowed here, so no image is started: %v: %s", err, out)
}

// unpack writes the files of a binary's image into a directory.
func unpack(t *testing.T, binary, architecture string) string {
	t.Helper()
	image := byArchitecture(t, open(t, images(t), binary))["linux/"+architecture]
	if image == nil {
		t.Skipf("there is no image for %s", architecture)
	}
	root := t.TempDir()
	walk(t, image, func(header *tar.Header, content io.Reader) {
		path := filepath.Join(root, header.Name)
		if header.FileInfo().IsDir() {
			if err := os.MkdirAll(path, 0o755); err != nil {
				t.Fatal(err)
			}
			return
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(content)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, header.FileInfo().Mode().Perm()); err != nil {
			t.Fatal(err)
		}
	})
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	return root
}

func TestVersion(t *testing.T) {
	needNamespaces(t)
	for _, binary := range binaries {
		t.Run(binary, func(t *testing.T) {
			want := stamped(t, binary, runtime.GOARCH)
			out, err := container(t.Context(), unpack(t, binary, runtime.GOARCH), "/ko-app/"+binary, "--version").CombinedOutput()
			if err != nil || !strings.HasPrefix(string(out), want) {
				t.Errorf("--version says %q, want %q and the rest (%v)", out, want, err)
			}
		})
	}
}

// stamped returns how the output of --version must begin.
func stamped(t *testing.T, binary, architecture string) string {
	t.Helper()
	labels := configOf(t, byArchitecture(t, open(t, images(t), binary))["linux/"+architecture]).Config.Labels
	return fmt.Sprintf("%s %s %s go", binary, labels["org.opencontainers.image.version"], labels["org.opencontainers.image.revision"])
}

// TestARM64 starts the binaries of the arm64 images in the emulator that OONA_QEMU names;
// `make arm64` sets it.
func TestARM64(t *testing.T) {
	emulator := os.Getenv("OONA_QEMU")
	if emulator == "" && runtime.GOARCH != "arm64" {
		t.Skip("OONA_QEMU is not set; `make arm64` sets it")
	}
	for _, binary := range binaries {
		t.Run(binary, func(t *testing.T) {
			args := []string{filepath.Join(unpack(t, binary, "arm64"), "ko-app", binary), "--version"}
			if emulator != "" {
				args = append([]string{emulator}, args...)
			}
			out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput()
			if want := stamped(t, binary, "arm64"); err != nil || !strings.HasPrefix(string(out), want) {
				t.Errorf("--version says %q, want %q and the rest (%v)", out, want, err)
			}
		})
	}
}

// TestWorkersStart starts each worker without a broker: it must serve its admin port,
// and end on a signal.
func TestWorkersStart(t *testing.T) {
	needNamespaces(t)
	for _, binary := range []string{"ingest", "aggregate", "exporter"} {
		t.Run(binary, func(t *testing.T) {
			admin := freePort(t)
			args := []string{"/ko-app/" + binary, "--brokers", "127.0.0.1:1", "--admin-address", admin}
			if binary == "ingest" {
				args = append(args, "--listen", "127.0.0.1:0")
			}
			var output bytes.Buffer
			cmd := container(t.Context(), unpack(t, binary, runtime.GOARCH), args...)
			cmd.Stdout, cmd.Stderr = &output, &output
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			metrics := answer(t, "http://"+admin+"/metrics", ended, &output)
			if !strings.Contains(metrics, "oona_build_info{") {
				t.Errorf("/metrics lacks oona_build_info:\n%s", metrics)
			}
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-ended:
				t.Logf("it ended: %v", err)
			case <-time.After(30 * time.Second):
				t.Error("it does not end on SIGTERM")
			}
		})
	}
}

// answer returns what a server that is starting answers.
func answer(t *testing.T, url string, ended <-chan error, output fmt.Stringer) string {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		select {
		case err := <-ended:
			t.Fatalf("it ended: %v\n%s", err, output)
		case <-time.After(50 * time.Millisecond):
		}
		response, err := http.Get(url)
		if err != nil {
			continue
		}
		body, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	t.Fatalf("%s does not answer", url)
	return ""
}

// freePort returns an address that nothing listens on. The only one that a test may ask for: the
// next call could return the same.
func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}
