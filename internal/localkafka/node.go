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

// node is a Kafka process, broker and controller in one.
type node struct {
	ID             int `json:"id"`
	Port           int `json:"port"`
	ControllerPort int `json:"controller_port"`
	ProxyPort      int `json:"proxy_port,omitempty"` // where clients of the listener at ProxiedPort are sent; 0: there is none
	ProxiedPort    int `json:"proxied_port,omitempty"`
	PID            int `json:"pid"` // 0: not started, or stopped by us

	dir string
}

func (n *node) address() string { return loopback(n.Port) }

// ports are those at which the node listens.
func (n *node) ports() []int {
	ports := []int{n.Port, n.ControllerPort}
	if n.ProxyPort != 0 {
		ports = append(ports, n.ProxiedPort)
	}
	return ports
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// running reports whether the node's process is alive: its number may have gone
// to another process since.
func (n *node) running() bool {
	if n.PID == 0 || syscall.Kill(n.PID, 0) != nil {
		return false
	}
	proc := "/proc/" + strconv.Itoa(n.PID)
	command, err := os.ReadFile(filepath.Join(proc, "cmdline"))
	if errors.Is(err, os.ErrNotExist) {
		_, err := os.Stat("/proc/self")
		return err != nil // without /proc there is no more to know
	}
	return bytes.Contains(command, []byte(n.propertiesFile())) // a zombie has no command line
}

// format prepares the data directory; one that is formatted is left alone.
func (n *node) format(ctx context.Context, java, lib, clusterID string) error {
	cmd := exec.CommandContext(ctx, java, "-Xmx128m", "-cp", filepath.Join(lib, "*"),
		"kafka.tools.StorageTool", "format", "-g", "-t", clusterID, "-c", n.propertiesFile())
	cmd.Env = append(os.Environ(), "JAVA_TOOL_OPTIONS=")
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("format the storage of node %d: %w\n%s", n.ID, err, lastLines(output, 10))
	}
	return nil
}

// start starts the process, in a session of its own where it must outlive this
// one.
func (n *node) start(java, lib string, detach bool) error {
	log, err := os.OpenFile(n.logFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("open the log of node %d: %w", n.ID, err)
	}
	defer log.Close() // the process has its own
	//nolint:noctx // it outlives whoever starts it
	cmd := exec.Command(java, "-Xms512m", "-Xmx512m", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20",
		"-Dlog4j2.configurationFile="+n.log4jFile(), "-cp", filepath.Join(lib, "*"), "kafka.Kafka", n.propertiesFile())
	cmd.Dir = n.dir
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: detach}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start node %d: %w", n.ID, err)
	}
	n.PID = cmd.Process.Pid
	go cmd.Wait() //nolint:errcheck // only so that it is no zombie while we live; ready and gone tell how it is
	return nil
}

// signal sends a signal to the node's process, if it is that.
func (n *node) signal(s syscall.Signal) error {
	if !n.running() {
		return nil
	}
	if err := syscall.Kill(n.PID, s); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal node %d: %w", n.ID, err)
	}
	return nil
}

// awaitEnd reports whether the process ended in time.
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

// sleep returns false when ctx ended first.
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
