package kubelet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// pod is a pod of a node. Its own goroutine runs it.
type pod struct {
	kubelet *Kubelet
	is      *corev1.Pod // as it was when it was bound
	dir     string
	began   time.Time

	sandbox *sandbox
	address netip.Addr
	volumes map[string]string          // directories by name
	written map[string]map[string]file // of the volumes that come from the API

	inits, containers []*container

	ending  chan struct{} // closed when the pod is deleted
	news    chan struct{} // has an element if the status has changed
	mu      sync.Mutex
	deleted bool
	seconds int64 // grace period, if deleted
	failed  bool  // an init container failed for good
	begun   bool  // all init containers have succeeded
}

// sandbox is a process that holds the network namespace of a pod.
type sandbox struct {
	pid  int
	hold io.Closer
	done chan struct{} // closed when it has ended
}

func newPod(k *Kubelet, is *corev1.Pod) *pod {
	p := &pod{
		kubelet: k, is: is, began: time.Now(),
		dir:     filepath.Join(k.Dir, "pods", string(is.UID)),
		volumes: make(map[string]string), written: make(map[string]map[string]file),
		ending: make(chan struct{}), news: make(chan struct{}, 1),
	}
	waiting := corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "PodInitializing"}}
	for i := range is.Spec.InitContainers {
		restart := is.Spec.RestartPolicy
		if restart == corev1.RestartPolicyAlways {
			restart = corev1.RestartPolicyOnFailure // it has to end
		}
		p.inits = append(p.inits, &container{pod: p, spec: &is.Spec.InitContainers[i], restart: restart, state: waiting})
	}
	for i := range is.Spec.Containers {
		p.containers = append(p.containers, &container{pod: p, spec: &is.Spec.Containers[i], restart: is.Spec.RestartPolicy, state: waiting})
	}
	return p
}

// run runs the pod until it is deleted, or until ctx ends.
func (p *pod) run(ctx context.Context) {
	var reporting sync.WaitGroup
	reports, stop := context.WithCancel(ctx)
	reporting.Go(func() { p.report(reports) })
	if err := p.work(ctx); err != nil && ctx.Err() == nil {
		p.kubelet.Logger.Error("a pod cannot run", "pod", p.is.Name, "err", err)
	}
	select {
	case <-p.ending:
	case <-ctx.Done():
	}
	stop()
	reporting.Wait()
	if err := p.clean(ctx); err != nil {
		p.kubelet.Logger.Error("cannot clean up after a pod", "pod", p.is.Name, "err", err)
	}
}

// work makes what the pod needs, and runs its containers.
func (p *pod) work(ctx context.Context) error {
	for _, c := range p.inits {
		if c.spec.RestartPolicy != nil {
			return fmt.Errorf("init container %s has a restart policy: sidecars are not supported", c.spec.Name)
		}
	}
	var err error
	if p.sandbox, err = newSandbox(); err != nil {
		return err
	}
	address, err := p.kubelet.Network.connect(ctx, p.sandbox.pid)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.address = address
	p.mu.Unlock()
	if !p.awaitVolumes(ctx) {
		return nil
	}
	for _, c := range p.inits {
		code := c.run(ctx)
		if p.ends() || ctx.Err() != nil {
			return nil
		}
		if code != 0 {
			p.mu.Lock()
			p.failed = true
			p.mu.Unlock()
			p.changed()
			return nil
		}
	}
	p.mu.Lock()
	p.begun = true
	p.mu.Unlock()
	var running, refreshing sync.WaitGroup
	refresh, stop := context.WithCancel(ctx)
	refreshing.Go(func() { p.refresh(refresh) })
	for _, c := range p.containers {
		running.Go(func() { c.run(ctx) })
	}
	running.Wait()
	stop()
	refreshing.Wait()
	return nil
}

// awaitVolumes makes the volumes, as soon as what they are made of is there. It returns
// false if the pod ends before.
func (p *pod) awaitVolumes(ctx context.Context) bool {
	for {
		err := p.makeVolumes(ctx)
		if err == nil {
			return true
		}
		p.kubelet.Logger.Warn("a pod waits for its volumes", "pod", p.is.Name, "err", err)
		for _, c := range append(append([]*container(nil), p.inits...), p.containers...) {
			c.wait("ContainerCreating", err.Error())
		}
		if !p.pause(ctx, configureAgain) {
			return false
		}
	}
}

// refreshEvery is how often files of Secrets and ConfigMaps are compared with the API.
const refreshEvery = 2 * time.Second

func (p *pod) refresh(ctx context.Context) {
	for len(p.written) > 0 && pause(ctx, refreshEvery) {
		if err := p.refreshVolumes(ctx); err != nil && ctx.Err() == nil {
			p.kubelet.Logger.Warn("cannot refresh the volumes of a pod", "pod", p.is.Name, "err", err)
		}
	}
}

// end ends the pod. The first grace period counts.
func (p *pod) end(seconds *int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.deleted {
		return
	}
	p.deleted = true
	if seconds != nil {
		p.seconds = *seconds
	}
	close(p.ending)
}

func (p *pod) ends() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.deleted
}

// grace returns how long a container may take to end.
func (p *pod) grace() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	seconds := p.seconds
	if !p.deleted {
		seconds = corev1.DefaultTerminationGracePeriodSeconds
		if own := p.is.Spec.TerminationGracePeriodSeconds; own != nil {
			seconds = *own
		}
	}
	return time.Duration(seconds) * time.Second
}

// pause returns false if the pod ends first.
func (p *pod) pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-p.ending:
	case <-ctx.Done():
	}
	return false
}

// changed has the status reported.
func (p *pod) changed() {
	select {
	case p.news <- struct{}{}:
	default:
	}
}

// namespace returns the file of the pod's network namespace.
func (p *pod) namespace() string { return fmt.Sprintf("/proc/%d/ns/net", p.sandbox.pid) }

// clean removes the pod from this machine, and a deleted pod from the API.
func (p *pod) clean(ctx context.Context) error {
	var errs []error
	if p.sandbox != nil {
		errs = append(errs, p.sandbox.close())
		p.kubelet.Network.free(p.address)
	}
	errs = append(errs, os.RemoveAll(p.dir))
	if ctx.Err() == nil {
		errs = append(errs, p.remove(ctx))
	}
	return errors.Join(errs...)
}

func newSandbox() (*sandbox, error) {
	cmd := self(podName, syscall.CLONE_NEWNET|syscall.CLONE_NEWUTS)
	hold, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	s := &sandbox{pid: cmd.Process.Pid, hold: hold, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // it ends when hold is closed
		close(s.done)
	}()
	return s, nil
}

func (s *sandbox) close() error {
	err := s.hold.Close()
	<-s.done
	return err
}
