package controlplane

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// process is a program of the control plane. It is killed if this process ends.
type process struct {
	name, log string
	cmd       *exec.Cmd
	done      chan struct{} // closed when it has ended
}

func (c *ControlPlane) start(name, program string, args ...string) error {
	cmd := exec.Command(program, args...) //nolint:noctx // Stop ends it
	p := &process{name: name, log: c.path(name + ".log"), cmd: cmd, done: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		return fmt.Errorf("make the log of %s: %w", name, err)
	}
	defer log.Close() // the process has its own descriptor
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.Dir = c.dir
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		_ = p.cmd.Wait() // ended reports the state
		close(p.done)
	}()
	c.processes = append(c.processes, p)
	return nil
}

// ended returns an error if a program has ended by itself.
func (c *ControlPlane) ended() error {
	for _, p := range c.processes {
		select {
		case <-p.done:
			text, err := os.ReadFile(p.log)
			lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
			last := bytes.Join(lines[max(0, len(lines)-10):], []byte("\n"))
			return errors.Join(fmt.Errorf("%s ended: %v (log: %s):\n%s", p.name, p.cmd.ProcessState, p.log, last), err)
		default:
		}
	}
	return nil
}

const stopTimeout = 10 * time.Second

func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case <-p.done:
		return nil
	case <-timer.C:
	}
	err := p.cmd.Process.Kill()
	<-p.done
	return errors.Join(fmt.Errorf("%s still ran %s after SIGTERM and was killed", p.name, stopTimeout), err)
}
