package kubelet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Names of this program when it is the first process of a pod or of a container.
const (
	podName       = "oona-e2e-pod"
	containerName = "oona-e2e-container"
)

// start describes a container to the process that becomes it.
type start struct {
	Namespace string            // file of the network namespace
	Root      string            // directory of the container's files
	ReadOnly  bool              // mount Root read-only
	Mounts    []mount           // in order
	Dir       string            // working directory
	Command   []string          // with its arguments
	Env       map[string]string // all of it
	UID, GID  int
	Groups    []int
}

type mount struct {
	From, To string // To is in the container
	ReadOnly bool
}

// Become makes this process a pod or a container if a Kubelet has started it as one, and
// then does not return. Call it first, for example in TestMain.
func Become() {
	switch os.Args[0] {
	case podName:
		// The Kubelet holds the other end. When it ends, so does the pod.
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	case containerName:
		fmt.Fprintln(os.Stderr, "cannot start the container:", become())
		os.Exit(cannotStart)
	}
}

// cannotStart is the exit code of a container whose command cannot be executed.
const cannotStart = 128

// become reads a description from descriptor 3, and executes the container's command.
func become() error {
	runtime.LockOSThread() // the network namespace is of this thread, which also executes
	var s start
	description := os.NewFile(3, "description")
	if err := json.NewDecoder(description).Decode(&s); err != nil {
		return fmt.Errorf("read the description: %w", err)
	}
	if err := errors.Join(description.Close(), enter(s.Namespace)); err != nil {
		return err
	}
	if err := s.mount(); err != nil {
		return err
	}
	if err := errors.Join(os.Chdir(s.Root), unix.Chroot("."), os.Chdir(s.Dir)); err != nil {
		return fmt.Errorf("change the root: %w", err)
	}
	if err := s.dropPrivileges(); err != nil {
		return err
	}
	env := make([]string, 0, len(s.Env))
	for name, value := range s.Env {
		env = append(env, name+"="+value)
	}
	if err := os.Setenv("PATH", s.Env["PATH"]); err != nil {
		return err
	}
	program, err := exec.LookPath(s.Command[0])
	if err != nil {
		return err
	}
	return fmt.Errorf("%s: %w", program, syscall.Exec(program, s.Command, env))
}

func enter(namespace string) error {
	f, err := os.Open(namespace)
	if err != nil {
		return fmt.Errorf("open the network namespace: %w", err)
	}
	defer f.Close()
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter the network namespace: %w", err)
	}
	return nil
}

// devices are those that each container has.
var devices = []string{"/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"}

// mount mounts the container's root and volumes in the mount namespace of this process.
func (s *start) mount() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := bind(s.Root, s.Root, false); err != nil {
		return err
	}
	if err := unix.Mount("proc", filepath.Join(s.Root, "proc"), "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	for _, device := range devices {
		if err := bind(device, filepath.Join(s.Root, device), false); err != nil {
			return err
		}
	}
	for _, m := range s.Mounts {
		if err := bind(m.From, filepath.Join(s.Root, m.To), m.ReadOnly); err != nil {
			return err
		}
	}
	if !s.ReadOnly {
		return nil
	}
	return readOnly(s.Root)
}

// bind mounts a file or directory at another place.
func bind(from, to string, only bool) error {
	if err := unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mount %s at %s: %w", from, to, err)
	}
	if only {
		return readOnly(to)
	}
	return nil
}

func readOnly(path string) error {
	if err := unix.Mount("", path, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("make %s read-only: %w", path, err)
	}
	return nil
}

// dropPrivileges becomes the container's user, who never gets privileges again. The
// process is killed if the Kubelet ends.
func (s *start) dropPrivileges() error {
	err := errors.Join(
		syscall.Setgroups(s.Groups),
		syscall.Setgid(s.GID),
		syscall.Setuid(s.UID),
		unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
		unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0),
	)
	if err != nil {
		return fmt.Errorf("become user %d: %w", s.UID, err)
	}
	return nil
}

// self returns a command that runs this program under another name.
func self(name string, namespaces uintptr) *exec.Cmd {
	return &exec.Cmd{
		Path: "/proc/self/exe",
		Args: []string{name},
		Env:  []string{},
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: namespaces,
			Setpgid:    true, // an interrupt from the terminal is for the test only
			Pdeathsig:  syscall.SIGKILL,
		},
	}
}
