package e2e

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// cordon says whether pods may be bound to a node.
func (w *world) cordon(ctx context.Context, node string, cordoned bool) error {
	patch := fmt.Appendf(nil, `{"spec":{"unschedulable":%t}}`, cordoned)
	_, err := w.client.CoreV1().Nodes().Patch(ctx, node, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}

// drained says what happened while a node was drained.
type drained struct {
	evicted, refused int // pods; answers that a disruption budget would be violated
	fewest           int // aggregators that were ready at a time
}

// drain evicts all pods of a node, like kubectl drain: it asks again where a disruption
// budget refuses. It waits until the pods have ended.
func (w *world) drain(ctx context.Context, node string) (d drained, err error) {
	if err := w.cordon(ctx, node, true); err != nil {
		return d, err
	}
	list, err := w.client.CoreV1().Pods(w.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return d, err
	}
	left := make(map[types.UID]*corev1.Pod)
	for i := range list.Items {
		if pod := &list.Items[i]; pod.Spec.NodeName == node && pod.Status.Phase == corev1.PodRunning {
			left[pod.UID] = pod
		}
	}
	d.evicted, d.fewest = len(left), 1000
	for evicted := make(map[types.UID]bool); len(left) > 0; {
		for uid, pod := range left {
			if !evicted[uid] {
				switch err := w.evict(ctx, pod); {
				case err == nil:
					evicted[uid] = true
				case apierrors.IsTooManyRequests(err):
					d.refused++
				default:
					return d, fmt.Errorf("evict %s: %w", pod.Name, err)
				}
			}
			is, err := w.client.CoreV1().Pods(w.namespace).Get(ctx, pod.Name, metav1.GetOptions{})
			if apierrors.IsNotFound(err) || err == nil && is.UID != uid {
				delete(left, uid)
			}
		}
		n, err := w.readyAggregators(ctx)
		if err != nil {
			return d, err
		}
		d.fewest = min(d.fewest, n)
		select {
		case <-ctx.Done():
			return d, fmt.Errorf("%d pods are left on %s: %w", len(left), node, ctx.Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
	return d, nil
}

func (w *world) evict(ctx context.Context, pod *corev1.Pod) error {
	return w.client.CoreV1().Pods(w.namespace).EvictV1(ctx, &policyv1.Eviction{
		ObjectMeta:    metav1.ObjectMeta{Name: pod.Name, Namespace: w.namespace},
		DeleteOptions: &metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(pod.UID))},
	})
}

func (w *world) readyAggregators(ctx context.Context) (n int, err error) {
	pods, err := w.pods(ctx, "aggregate")
	for i := range pods {
		if ready(&pods[i]) {
			n++
		}
	}
	return n, err
}

// drainNode drains the node with two of the three aggregators.
func (w *world) drainNode(ctx context.Context) error {
	pods, err := w.pods(ctx, "aggregate")
	if err != nil {
		return err
	}
	counts := make(map[string]int)
	for i := range pods {
		counts[pods[i].Spec.NodeName]++
	}
	node := nodes[0]
	if counts[nodes[1]] > counts[nodes[0]] {
		node = nodes[1]
	}
	if counts[node] != 2 {
		return fmt.Errorf("aggregators by node are %v; one should have two", counts)
	}
	d, err := w.drain(ctx, node)
	if err != nil {
		return err
	}
	w.figure("a drain evicted %d pods of %s; the disruption budget refused %d times; at least %d of 3 aggregators were ready", d.evicted, node, d.refused, d.fewest)
	var errs []error
	if d.refused == 0 {
		errs = append(errs, errors.New("the disruption budget refused nothing, although two aggregators were on the node"))
	}
	if d.fewest < 2 {
		errs = append(errs, fmt.Errorf("only %d aggregators were ready", d.fewest))
	}
	return errors.Join(append(errs, w.cordon(ctx, node, false))...)
}

// scale sets the number of pods of a StatefulSet through its scale subresource, like an
// autoscaler.
func (w *world) scale(ctx context.Context, set string, replicas int32) error {
	sets := w.client.AppsV1().StatefulSets(w.namespace)
	scale, err := sets.GetScale(ctx, set, metav1.GetOptions{})
	if err != nil {
		return err
	}
	scale.Spec.Replicas = replicas
	_, err = sets.UpdateScale(ctx, set, scale, metav1.UpdateOptions{})
	return err
}
