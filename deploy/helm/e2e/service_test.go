package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// service connects to the ready pods of a Service, as its EndpointSlices say. Like a client
// of a Service with sessionAffinity, it stays with one pod for as long as that is ready.
type service struct {
	client    kubernetes.Interface
	namespace string
	name      string
	first     int // which of the pods is taken first

	mu      sync.Mutex
	current string
}

func (s *service) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	address, err := s.choose(ctx)
	if err != nil {
		return nil, err
	}
	var dialer net.Dialer
	return dialer.DialContext(ctx, network, address)
}

func (s *service) choose(ctx context.Context) (string, error) {
	ready, err := endpoints(ctx, s.client, s.namespace, s.name)
	if err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(ready, s.current) {
		s.current = ready[s.first%len(ready)]
	}
	return s.current, nil
}

var errNoEndpoint = errors.New("the Service has no pod that is ready")

// endpoints returns the addresses of the ready pods of a Service, each with its first port.
func endpoints(ctx context.Context, client kubernetes.Interface, namespace, service string) (addresses []string, err error) {
	list, err := client.DiscoveryV1().EndpointSlices(namespace).List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + service})
	if err != nil {
		return nil, err
	}
	for i := range list.Items {
		for _, endpoint := range list.Items[i].Endpoints {
			if (endpoint.Conditions.Ready == nil || *endpoint.Conditions.Ready) && len(list.Items[i].Ports) > 0 {
				addresses = append(addresses, net.JoinHostPort(endpoint.Addresses[0], fmt.Sprint(*list.Items[i].Ports[0].Port)))
			}
		}
	}
	if len(addresses) == 0 {
		return nil, fmt.Errorf("%s: %w", service, errNoEndpoint)
	}
	slices.Sort(addresses)
	return addresses, nil
}
