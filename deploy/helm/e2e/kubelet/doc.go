// Package kubelet is a small kubelet for tests. It starts the programs of pods as
// processes of this machine, each pod in a network namespace of its own.
//
// A pod gets its command and arguments, its environment, its volumes as files, and its
// user; its readiness is what its own probes answer. It ends as Kubernetes ends it: with
// preStop, SIGTERM and the grace period. An image is a directory with programs.
//
// What is left out: limits of CPU and memory, seccomp, log rotation, sidecars, gRPC
// probes, and events. Services have no addresses of their own: a pod finds the names of
// Services in /etc/hosts, as they were when it started.
//
// The package needs Linux, root, and the programs ip (iproute2) and nsenter (util-linux).
package kubelet
