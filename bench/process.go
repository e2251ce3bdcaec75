package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// process is another process of this program, which does a part of a measurement.
type process struct {
	command *exec.Cmd
	stdin   io.WriteCloser // a byte makes it continue; closing it makes it end
	stdout  *bufio.Reader
	said    string // its output when it was ready
}

// begin starts a process with a flag for a topic of this bus, and waits until it is ready.
func (w *wire) begin(ctx context.Context, flag, topic string, more ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	args := append([]string{flag, topic, "--kafka", strings.Join(w.bus.Brokers, ",")}, more...)
	if security := w.bus.Security; security.TLS {
		args = append(args, "--bus-tls", "--bus-tls-ca-file="+security.TLSFiles.CAFile, "--bus-tls-server-name="+security.TLSFiles.ServerName)
	}
	return start(exec.CommandContext(ctx, self, args...))
}

// beginIdle starts a process that gets processor time only if nothing else wants it, and
// waits until it is ready.
func beginIdle(ctx context.Context, args ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	return start(exec.CommandContext(ctx, "chrt", append([]string{"--idle", "0", self}, args...)...))
}

// start starts a process, and waits until it is ready.
func start(command *exec.Cmd) (p *process, err error) {
	p = &process{command: command}
	p.command.Stderr = os.Stderr
	if p.stdin, err = p.command.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.command.Start(); err != nil {
		return nil, fmt.Errorf("start another process: %w", err)
	}
	p.stdout = bufio.NewReader(out)
	said, err := p.stdout.ReadString('\n')
	if err != nil {
		return nil, errors.Join(fmt.Errorf("another process, %s, did not become ready: %w", command, err), p.end())
	}
	p.said = strings.TrimSpace(said)
	return p, nil
}

// proceed makes the process continue with its task.
func (p *process) proceed() error {
	_, err := p.stdin.Write([]byte{'!'})
	return err
}

// end makes the process end, and waits for it.
func (p *process) end() error {
	_ = p.stdin.Close() // it is closed already if the process has ended
	return p.command.Wait()
}

// endWith makes the process end, waits for it, and returns what it has said last.
func (p *process) endWith() (said string, err error) {
	_ = p.stdin.Close() // it is closed already if the process has ended
	text, err := io.ReadAll(p.stdout)
	return strings.TrimSpace(string(text)), errors.Join(err, p.command.Wait())
}

// await is the other side: it prints that this process is ready, and waits until it may
// continue. It returns io.EOF if this process is to end, or if its parent has died.
func await(said string) error {
	if _, err := fmt.Println(said); err != nil {
		return err
	}
	_, err := os.Stdin.Read(make([]byte, 1))
	return err
}
