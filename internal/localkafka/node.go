package localkafka

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// node is a Kafka process that is both broker and controller.
type node struct {
	ID             int    `json:"id"`
	Host           string `json:"host,omitempty"` // of Port; empty for 127.0.0.1
	Port           int    `json:"port"`
	ControllerPort int    `json:"controller_port"`
	ProxyPort      int    `json:"proxy_port,omitempty"` // named to clients of ProxiedPort; may be 0
	ProxiedPort    int    `json:"proxied_port,omitempty"`
	SecurePorts    []int  `json:"secure_ports,omitempty"` // in the order of Secure.Listeners
	PID            int    `json:"pid"`                    // 0 if not started, or stopped by us

	dir string
}

func (n *node) address() string {
	if n.Host == "" {
		return loopback(n.Port)
	}
	return net.JoinHostPort(n.Host, strconv.Itoa(n.Port))
}

// listens returns the addresses that the node listens on.
func (n *node) listens() []string {
	addresses := []string{n.address(), loopback(n.ControllerPort)}
	if n.ProxyPort != 0 {
		addresses = append(addresses, loopback(n.ProxiedPort))
	}
	for i := range n.SecurePorts {
		addresses = append(addresses, n.secureAddress(i))
	}
	return addresses
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// running reports whether the node's process runs. It checks the command line, as
// another process may have got the PID.
func (n *node) running() bool {
	if n.PID == 0 || syscall.Kill(n.PID, 0) != nil {
		return false
	}
	proc := "/proc/" + strconv.Itoa(n.PID)
	command, err := os.ReadFile(filepath.Join(proc, "cmdline"))
	if errors.Is(err, os.ErrNotExist) {
		_, err := os.Stat("/proc/self")
		return err != nil // this system has no /proc, so the PID must do
	}
	return bytes.Contains(command, []byte(n.propertiesFile())) // a zombie has no command line
}

// format formats the data directory, unless it is formatted.
func (n *node) format(ctx context.Context, java, lib, clusterID string) error {
	cmd := exec.CommandContext(ctx, java, "-Xmx128m", "-cp", filepath.Join(lib, "*"),
		"kafka.tools.StorageTool", "format", "-g", "-t", clusterID, "-c", n.propertiesFile())
	cmd.Env = append(os.Environ(), "JAVA_TOOL_OPTIONS=")
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("format the storage of node %d: %w\n%s", n.ID, err, lastLines(output, 10))
	}
	return nil
}

// start starts the process. With detach, it starts it in its own session, so that it can
// outlive this process.
func (n *node) start(java, lib string, detach bool) error {
	log, err := os.OpenFile(n.logFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("open the log of node %d: %w", n.ID, err)
	}
	defer log.Close() // the process has its own file descriptor
	//nolint:noctx // the process may outlive this one
	cmd := exec.Command(java, "-Xms512m", "-Xmx512m", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20",
		"-Dlog4j2.configurationFile="+n.log4jFile(), "-Djdk.net.hosts.file="+n.hostsFile(), "-cp", filepath.Join(lib, "*"), "kafka.Kafka", n.propertiesFile())
	cmd.Dir = n.dir
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: detach}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start node %d: %w", n.ID, err)
	}
	n.PID = cmd.Process.Pid
	go cmd.Wait() //nolint:errcheck // only to reap the zombie; running reports the state
	return nil
}

// signal sends a signal to the node's process, if it runs.
func (n *node) signal(s syscall.Signal) error {
	if !n.running() {
		return nil
	}
	if err := syscall.Kill(n.PID, s); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal node %d: %w", n.ID, err)
	}
	return nil
}

// awaitEnd waits for the process to end, and reports whether it did in time.
func (n *node) awaitEnd(ctx context.Context, within time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for n.running() {
		if !sleep(ctx, 50*time.Millisecond) {
			return false
		}
	}
	return true
}

// lastLog returns the end of the node's log, for error messages.
func (n *node) lastLog() string {
	text, err := os.ReadFile(n.logFile())
	if err != nil {
		return err.Error()
	}
	return lastLines(text, 15)
}

func lastLines(text []byte, count int) string {
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-count):], "\n")
}

// sleep returns false if ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
