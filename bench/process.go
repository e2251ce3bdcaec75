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

// process is this program once more, doing a part of a measure.
type process struct {
	command *exec.Cmd
	stdin   io.WriteCloser // a byte tells it to go on, its end to end
	said    string         // when it was ready
}

// begin starts a process that does what flag says with a topic of this bus, and
// waits until it is ready.
func (w *wire) begin(ctx context.Context, flag, topic string, more ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	p := &process{command: exec.CommandContext(ctx, self, append([]string{flag, topic, "--kafka", strings.Join(w.bus.Brokers, ",")}, more...)...)}
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
	said, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return nil, errors.Join(fmt.Errorf("another process, %s, did not begin: %w", flag, err), p.end())
	}
	p.said = strings.TrimSpace(said)
	return p, nil
}

// goOn tells the process to do what it is there for.
func (p *process) goOn() error {
	_, err := p.stdin.Write([]byte{'!'})
	return err
}

// end tells the process to end, and waits until it has.
func (p *process) end() error {
	_ = p.stdin.Close() // where it has ended by itself, it is
	return p.command.Wait()
}

// await is the other side: it says that this process is ready, and waits until it
// is told to go on, or, which gives io.EOF, to end. So it ends too where who
// began it has died.
func await(said string) error {
	if _, err := fmt.Println(said); err != nil {
		return err
	}
	_, err := os.Stdin.Read(make([]byte, 1))
	return err
}
