// Package proof tests the chart deploy/helm/oona without a cluster: what it renders, that
// Kubernetes can decode it, that an upgrade changes no field that cannot be changed, that
// nonsense is refused, and that every worker accepts the configuration that it gets.
//
// It is a module of its own, so that Helm and the types of Kubernetes are no dependencies
// of Oona. `make helm` runs it.
package proof
