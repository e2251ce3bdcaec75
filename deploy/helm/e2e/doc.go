// Package e2e installs the chart on a real Kubernetes API server with a real controller
// manager, beside a real Kafka broker. Package kubelet starts the real binaries as the
// pods say, and asks their real probes, so `helm install --wait` means that Oona works.
//
// `make helm-e2e` at the root runs it. It is a separate module, as it needs root and
// programs that take a quarter of an hour to build the first time.
package e2e
