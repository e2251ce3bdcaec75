package kubelet

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// process is a started container.
type process struct {
	cmd   *exec.Cmd
	began time.Time
	done  chan struct{} // closed when it has ended
	code  int           // then
}

// launch starts a container whose output goes to a file.
func launch(s *start, output string) (_ *process, err error) {
	if err := os.MkdirAll(filepath.Dir(output), 0o755); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(output, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the container has its own descriptor
	description, writer, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer description.Close()
	cmd := self(containerName, syscall.CLONE_NEWNS|syscall.CLONE_NEWPID|syscall.CLONE_NEWIPC)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{description}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, writer.Close())
	}
	p := &process{cmd: cmd, began: time.Now(), done: make(chan struct{})}
	go p.wait()
	if err := errors.Join(json.NewEncoder(writer).Encode(s), writer.Close()); err != nil {
		return nil, fmt.Errorf("describe the container: %w", errors.Join(err, p.signal(syscall.SIGKILL)))
	}
	return p, nil
}

// wait notes how the process ends, as a container runtime would report it.
func (p *process) wait() {
	defer close(p.done)
	_ = p.cmd.Wait() // the state has more than the error
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ok && status.Signaled() {
		p.code = 128 + int(status.Signal())
		return
	}
	p.code = p.cmd.ProcessState.ExitCode()
}

func (p *process) signal(s syscall.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// end sends SIGTERM, and SIGKILL after the grace period. It returns when the process has
// ended.
func (p *process) end(grace time.Duration) error {
	if err := p.signal(syscall.SIGTERM); err != nil {
		return err
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.done:
		return nil
	case <-timer.C:
	}
	err := p.signal(syscall.SIGKILL)
	<-p.done
	return err
}
