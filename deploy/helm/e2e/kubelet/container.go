package kubelet

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// container is a container of a pod. Its fields after spec are guarded by pod.mu.
type container struct {
	pod     *pod
	spec    *corev1.Container
	restart corev1.RestartPolicy

	state, last    corev1.ContainerState
	restarts       int32
	ready, started bool
	process        *process
	description    *start
}

const (
	// pullAgain is the interval between attempts to pull an image.
	pullAgain = 5 * time.Second
	// configureAgain is the interval between attempts to start a container whose
	// Secrets or ConfigMaps are missing.
	configureAgain = 2 * time.Second
	// A container that has ended is started again at once, and after these intervals
	// when it ends again. One that ran for as long as forgetAfter begins anew.
	firstBackOff = 10 * time.Second
	lastBackOff  = 5 * time.Minute
	forgetAfter  = 10 * time.Minute
)

// run runs the container until it ends for good or the pod ends. It returns the last exit
// code.
func (c *container) run(ctx context.Context) int {
	backOff := time.Duration(0)
	for {
		process := c.start(ctx)
		if process == nil {
			return 0 // the pod ends
		}
		code := c.supervise(ctx, process)
		ended := c.ended(process)
		if c.pod.ends() || ctx.Err() != nil || c.final(code) {
			return code
		}
		if time.Since(process.began) > forgetAfter {
			backOff = 0
		}
		c.pod.kubelet.Logger.Warn("a container ended and is started again", "pod", c.pod.is.Name, "container", c.spec.Name, "code", code, "after", backOff)
		if backOff > 0 {
			c.wait("CrashLoopBackOff", fmt.Sprintf("back-off %s restarting failed container=%s", backOff, c.spec.Name))
			if !c.pod.pause(ctx, backOff) {
				c.change(func() { c.state = ended }) // the last state of a pod that ends
				return code
			}
		}
		backOff = min(max(2*backOff, firstBackOff), lastBackOff)
		c.change(func() { c.restarts++ })
	}
}

// start starts the container, as soon as its image and its configuration are there. It
// returns nil if the pod ends before.
func (c *container) start(ctx context.Context) *process {
	for attempt := 0; ; attempt++ {
		process, err := c.launch(ctx)
		if err == nil {
			return process
		}
		if c.pod.ends() || ctx.Err() != nil {
			return nil
		}
		again, reason := configureAgain, "CreateContainerConfigError"
		if errors.Is(err, ErrNoImage) {
			again, reason = pullAgain, "ErrImagePull"
			if attempt > 0 {
				reason = "ImagePullBackOff"
			}
		}
		c.wait(reason, err.Error())
		c.pod.kubelet.Logger.Warn("a container cannot be started", "pod", c.pod.is.Name, "container", c.spec.Name, "reason", reason, "err", err)
		if !c.pod.pause(ctx, again) {
			return nil
		}
	}
}

func (c *container) launch(ctx context.Context) (*process, error) {
	description, image, err := c.describe(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.pod.makeRoot(ctx, image, description.Root, description.Mounts); err != nil {
		return nil, fmt.Errorf("make the root: %w", err)
	}
	name := fmt.Sprintf("%s_%s_%s_%s.log", c.pod.is.Namespace, c.pod.is.Name, c.pod.is.UID[:8], c.spec.Name)
	process, err := launch(description, filepath.Join(c.pod.kubelet.Dir, "logs", name))
	if err != nil {
		return nil, err
	}
	c.change(func() {
		c.process, c.description = process, description
		c.state = corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.NewTime(process.began)}}
	})
	return process, nil
}

// describe returns how the container is started.
func (c *container) describe(ctx context.Context) (_ *start, image string, err error) {
	if image, err = c.pod.kubelet.image(c.spec.Image); err != nil {
		return nil, "", err
	}
	if len(c.spec.Command) == 0 {
		return nil, "", errors.New("images are directories without an entry point; the pod must have a command")
	}
	s := &start{
		Namespace: c.pod.namespace(),
		Root:      filepath.Join(c.pod.dir, "roots", c.spec.Name),
		Dir:       "/",
	}
	if c.spec.WorkingDir != "" {
		s.Dir = c.spec.WorkingDir
	}
	if s.Env, err = c.pod.environment(ctx, c.spec); err != nil {
		return nil, "", err
	}
	s.Command = expandAll(append(append([]string(nil), c.spec.Command...), c.spec.Args...), s.Env)
	if s.Mounts, err = c.pod.mounts(c.spec); err != nil {
		return nil, "", err
	}
	return s, image, c.user(s)
}

// user sets the user of the container.
func (c *container) user(s *start) error {
	pod, own := c.pod.is.Spec.SecurityContext, c.spec.SecurityContext
	must := false
	if pod != nil {
		if pod.RunAsUser != nil {
			s.UID = int(*pod.RunAsUser)
		}
		if pod.RunAsGroup != nil {
			s.GID = int(*pod.RunAsGroup)
		}
		must = pod.RunAsNonRoot != nil && *pod.RunAsNonRoot
	}
	if group := c.pod.group(); group >= 0 {
		s.Groups = []int{group}
	}
	if own != nil {
		if own.RunAsUser != nil {
			s.UID = int(*own.RunAsUser)
		}
		if own.RunAsGroup != nil {
			s.GID = int(*own.RunAsGroup)
		}
		if own.RunAsNonRoot != nil {
			must = *own.RunAsNonRoot
		}
		s.ReadOnly = own.ReadOnlyRootFilesystem != nil && *own.ReadOnlyRootFilesystem
	}
	if must && s.UID == 0 {
		return errors.New("container has runAsNonRoot and image will run as root")
	}
	return nil
}

// supervise runs the probes of a process until it ends, and ends it if the pod ends or if
// it does not live. It returns the exit code.
func (c *container) supervise(ctx context.Context, process *process) int {
	dead := make(chan struct{}, 1)
	stop := c.runProbes(ctx, func() {
		select {
		case dead <- struct{}{}:
		default:
		}
	})
	defer stop()
	var err error
	select {
	case <-process.done:
		return process.code
	case <-ctx.Done():
		err = process.end(0)
	case <-dead:
		c.pod.kubelet.Logger.Warn("a container failed its liveness or startup probe and is ended", "pod", c.pod.is.Name, "container", c.spec.Name)
		err = process.end(c.pod.grace())
	case <-c.pod.ending:
		err = c.finish(ctx, process)
	}
	if err != nil {
		c.pod.kubelet.Logger.Error("cannot end a container", "pod", c.pod.is.Name, "container", c.spec.Name, "err", err)
	}
	<-process.done
	return process.code
}

// finish ends a process of a pod that ends: preStop, SIGTERM, and SIGKILL after the grace
// period.
func (c *container) finish(ctx context.Context, process *process) error {
	grace := c.pod.grace()
	deadline := time.Now().Add(grace)
	if c.spec.Lifecycle != nil && c.spec.Lifecycle.PreStop != nil && grace > 0 {
		hook, cancel := context.WithDeadline(ctx, deadline)
		if err := c.preStop(hook, process, c.spec.Lifecycle.PreStop); err != nil {
			c.pod.kubelet.Logger.Warn("preStop failed", "pod", c.pod.is.Name, "container", c.spec.Name, "err", err)
		}
		cancel()
	}
	// A kubelet gives at least two seconds after a hook.
	return process.end(max(time.Until(deadline), min(grace, 2*time.Second)))
}

func (c *container) preStop(ctx context.Context, process *process, hook *corev1.LifecycleHandler) error {
	switch {
	case hook.Sleep != nil:
		ctx, cancel := context.WithTimeout(ctx, time.Duration(hook.Sleep.Seconds)*time.Second)
		defer cancel()
		select {
		case <-process.done:
		case <-ctx.Done():
		}
		return nil
	case hook.Exec != nil:
		return c.execute(ctx, hook.Exec.Command)
	case hook.HTTPGet != nil:
		return c.get(ctx, hook.HTTPGet)
	}
	return errors.New("this kind of hook is not supported")
}

// runProbes starts the probes. stop ends them and waits for them.
func (c *container) runProbes(ctx context.Context, die func()) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var probes sync.WaitGroup
	others := func() {
		c.change(func() { c.started, c.ready = true, c.spec.ReadinessProbe == nil })
		if spec := c.spec.ReadinessProbe; spec != nil {
			probes.Go(func() { c.probe(ctx, spec, func(success bool) { c.change(func() { c.ready = success }) }) })
		}
		if spec := c.spec.LivenessProbe; spec != nil {
			probes.Go(func() {
				c.probe(ctx, spec, func(success bool) {
					if !success {
						die()
					}
				})
			})
		}
	}
	if spec := c.spec.StartupProbe; spec != nil {
		probes.Go(func() { c.awaitStartup(ctx, spec, others, die) })
	} else {
		others()
	}
	return func() {
		cancel()
		probes.Wait()
	}
}

// awaitStartup calls started when the startup probe succeeds, or die if it fails.
func (c *container) awaitStartup(ctx context.Context, spec *corev1.Probe, started, die func()) {
	ctx, done := context.WithCancel(ctx)
	defer done()
	c.probe(ctx, spec, func(success bool) {
		done()
		if success {
			started()
		} else {
			die()
		}
	})
}

// ended notes that a process has ended.
func (c *container) ended(process *process) corev1.ContainerState {
	reason := "Completed"
	switch {
	case process.code == cannotStart:
		reason = "StartError"
	case process.code != 0:
		reason = "Error"
	}
	state := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
		ExitCode: int32(process.code), Reason: reason, StartedAt: metav1.NewTime(process.began), FinishedAt: metav1.Now(),
		ContainerID: c.id(process),
	}}
	c.change(func() {
		c.state, c.last, c.ready, c.started, c.process = state, state, false, false, nil
	})
	return state
}

// wait notes why the container does not run.
func (c *container) wait(reason, message string) {
	c.change(func() {
		c.state = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
	})
}

// change changes the container, and has the pod's status reported.
func (c *container) change(how func()) {
	c.pod.mu.Lock()
	how()
	c.pod.mu.Unlock()
	c.pod.changed()
}

func (c *container) running() (*process, *start) {
	c.pod.mu.Lock()
	defer c.pod.mu.Unlock()
	return c.process, c.description
}

func (c *container) id(process *process) string {
	return fmt.Sprintf("process://%s/%s/%d", c.pod.is.UID, c.spec.Name, process.cmd.Process.Pid)
}
