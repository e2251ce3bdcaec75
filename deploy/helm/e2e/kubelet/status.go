package kubelet

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// reportAgain is the interval after a report that failed.
const reportAgain = time.Second

// report reports the status of the pod to the API when it has changed, and once more when
// ctx ends.
func (p *pod) report(ctx context.Context) {
	since := make(map[corev1.PodConditionType]corev1.PodCondition)
	for {
		if err := p.patch(ctx, p.status(since)); err != nil && ctx.Err() == nil {
			if !apierrors.IsNotFound(err) {
				p.kubelet.Logger.Warn("cannot report the status of a pod", "pod", p.is.Name, "err", err)
			}
			if pause(ctx, reportAgain) {
				continue
			}
		}
		select {
		case <-p.news:
		case <-ctx.Done():
			return
		}
	}
}

// patch merges the status into the pod's. Conditions of others stay.
func (p *pod) patch(ctx context.Context, status *corev1.PodStatus) error {
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": p.is.UID}, "status": status})
	if err != nil {
		return fmt.Errorf("marshal the status: %w", err)
	}
	_, err = p.kubelet.Client.CoreV1().Pods(p.is.Namespace).Patch(ctx, p.is.Name, types.StrategicMergePatchType, body, metav1.PatchOptions{}, "status")
	return err
}

// remove deletes the pod from the API for good, after it has ended.
func (p *pod) remove(ctx context.Context) error {
	since := make(map[corev1.PodConditionType]corev1.PodCondition)
	if err := p.patch(ctx, p.status(since)); err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("report the last status: %w", err)
	}
	now := int64(0)
	options := metav1.DeleteOptions{GracePeriodSeconds: &now, Preconditions: metav1.NewUIDPreconditions(string(p.is.UID))}
	err := p.kubelet.Client.CoreV1().Pods(p.is.Namespace).Delete(ctx, p.is.Name, options)
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("delete the pod: %w", err)
	}
	return nil
}

// status returns the status of the pod. since has the conditions of the last call.
func (p *pod) status(since map[corev1.PodConditionType]corev1.PodCondition) *corev1.PodStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	began := metav1.NewTime(p.began)
	status := &corev1.PodStatus{Phase: p.phase(), StartTime: &began, HostIP: p.kubelet.Network.Host().String()}
	if p.address.IsValid() {
		status.PodIP = p.address.String()
		status.PodIPs = []corev1.PodIP{{IP: status.PodIP}}
	}
	for _, c := range p.inits {
		status.InitContainerStatuses = append(status.InitContainerStatuses, c.status())
	}
	ready := true
	for _, c := range p.containers {
		status.ContainerStatuses = append(status.ContainerStatuses, c.status())
		ready = ready && c.ready
	}
	condition := func(name corev1.PodConditionType, holds bool) {
		is := corev1.PodCondition{Type: name, Status: corev1.ConditionFalse, LastTransitionTime: metav1.Now()}
		if holds {
			is.Status = corev1.ConditionTrue
		}
		if before, found := since[name]; found && before.Status == is.Status {
			is = before
		}
		since[name] = is
		status.Conditions = append(status.Conditions, is)
	}
	condition(corev1.PodScheduled, true)
	condition(corev1.PodInitialized, p.begun)
	condition(corev1.ContainersReady, ready)
	condition(corev1.PodReady, ready)
	return status
}

// phase returns the phase of the pod.
func (p *pod) phase() corev1.PodPhase {
	if p.failed {
		return corev1.PodFailed
	}
	over, failed, ran := true, false, false
	for _, c := range p.containers {
		final := c.state.Terminated != nil && (p.deleted || c.final(int(c.state.Terminated.ExitCode)))
		over = over && final
		failed = failed || final && c.state.Terminated.ExitCode != 0
		ran = ran || c.state.Waiting == nil || c.last.Terminated != nil
	}
	switch {
	case over && failed:
		return corev1.PodFailed
	case over:
		return corev1.PodSucceeded
	case ran:
		return corev1.PodRunning
	}
	return corev1.PodPending
}

// final reports whether a container that ended with this code is not started again.
func (c *container) final(code int) bool {
	return c.restart == corev1.RestartPolicyNever || c.restart == corev1.RestartPolicyOnFailure && code == 0
}

func (c *container) status() corev1.ContainerStatus {
	started := c.started
	s := corev1.ContainerStatus{
		Name: c.spec.Name, Image: c.spec.Image, ImageID: c.spec.Image, Ready: c.ready, Started: &started,
		RestartCount: c.restarts, State: c.state,
	}
	if c.restarts > 0 || c.state.Waiting != nil {
		s.LastTerminationState = c.last
	}
	if c.process != nil {
		s.ContainerID = c.id(c.process)
	}
	return s
}
