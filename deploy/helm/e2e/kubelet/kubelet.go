package kubelet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// Options configure a Kubelet.
type Options struct {
	Client kubernetes.Interface
	// Nodes are the names of the nodes. One Kubelet serves all of them.
	Nodes []string
	// Images are directories by the tag of an image. The directory is the root of the
	// image's files. A tag that is not here cannot be pulled.
	Images map[string]string
	// Dir is for roots, volumes, claims and logs. It must be on the file system of the
	// images, as their files are linked.
	Dir     string
	Network *Network
	Logger  *slog.Logger
}

// Kubelet runs the pods of its nodes, and binds pods to them.
type Kubelet struct {
	Options
	running sync.WaitGroup

	mu   sync.Mutex
	pods map[types.UID]*pod
}

// New returns a Kubelet. Run starts it.
func New(options Options) *Kubelet {
	return &Kubelet{Options: options, pods: make(map[types.UID]*pod)}
}

// Run runs pods until ctx ends, and kills what is left then.
func (k *Kubelet) Run(ctx context.Context) error {
	for _, node := range k.Nodes {
		if err := k.register(ctx, node); err != nil {
			return err
		}
	}
	factory := informers.NewSharedInformerFactory(k.Client, 0)
	pods := factory.Core().V1().Pods().Informer()
	_, err := pods.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { k.sync(ctx, object) },
		UpdateFunc: func(_, object any) { k.sync(ctx, object) },
		DeleteFunc: k.deleted,
	})
	if err != nil {
		return fmt.Errorf("watch pods: %w", err)
	}
	factory.StartWithContext(ctx)
	<-ctx.Done()
	factory.Shutdown()
	k.running.Wait()
	return nil
}

// register makes a node that is ready.
func (k *Kubelet) register(ctx context.Context, name string) error {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Name: name, Labels: map[string]string{corev1.LabelHostname: name, corev1.LabelOSStable: "linux"},
	}}
	node, err := k.Client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("register node %s: %w", name, err)
	}
	node.Status.Capacity = corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("16"), corev1.ResourceMemory: resource.MustParse("64Gi"), corev1.ResourcePods: resource.MustParse("110"),
	}
	node.Status.Allocatable = node.Status.Capacity
	node.Status.Conditions = []corev1.NodeCondition{{
		Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady", LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.Now(),
	}}
	if _, err := k.Client.CoreV1().Nodes().UpdateStatus(ctx, node, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("report node %s as ready: %w", name, err)
	}
	return nil
}

// sync binds a new pod to a node, starts a pod that is bound, and ends one that is deleted.
func (k *Kubelet) sync(ctx context.Context, object any) {
	is, ok := object.(*corev1.Pod)
	if !ok || ctx.Err() != nil {
		return
	}
	if is.Spec.NodeName == "" {
		if is.DeletionTimestamp == nil {
			if err := k.bind(ctx, is); err != nil && ctx.Err() == nil {
				k.Logger.Error("no node for a pod", "pod", is.Name, "err", err)
			}
		}
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.pods[is.UID]
	if p == nil {
		p = newPod(k, is.DeepCopy())
		k.pods[is.UID] = p
		k.running.Go(func() { p.run(ctx) })
	}
	if is.DeletionTimestamp != nil {
		p.end(is.DeletionGracePeriodSeconds)
	}
}

// deleted kills a pod that was deleted by force.
func (k *Kubelet) deleted(object any) {
	if unknown, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = unknown.Obj
	}
	is, ok := object.(*corev1.Pod)
	if !ok {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if p := k.pods[is.UID]; p != nil {
		p.end(new(int64))
		delete(k.pods, is.UID)
	}
}

// bind binds a pod to the node that has the fewest pods of the same controller, and then
// the fewest at all. Nodes that are cordoned get none.
func (k *Kubelet) bind(ctx context.Context, is *corev1.Pod) error {
	nodes, err := k.Client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list nodes: %w", err)
	}
	pods, err := k.Client.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list pods: %w", err)
	}
	owner := metav1.GetControllerOf(is)
	best, least := "", 0
	for i := range nodes.Items {
		node := &nodes.Items[i]
		if node.Spec.Unschedulable {
			continue
		}
		weight := 0
		for j := range pods.Items {
			other := &pods.Items[j]
			if other.Spec.NodeName != node.Name {
				continue
			}
			weight++
			if same := metav1.GetControllerOf(other); same != nil && owner != nil && same.UID == owner.UID {
				weight += 1000
			}
		}
		if best == "" || weight < least {
			best, least = node.Name, weight
		}
	}
	if best == "" {
		return errors.New("all nodes are cordoned")
	}
	err = k.Client.CoreV1().Pods(is.Namespace).Bind(ctx, &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Name: is.Name, Namespace: is.Namespace, UID: is.UID},
		Target:     corev1.ObjectReference{Kind: "Node", Name: best},
	}, metav1.CreateOptions{})
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) { // an older state of the pod
		return nil
	}
	return err
}
