// Package draw reads Grafana dashboards, sends their queries to Prometheus and draws the
// answers as SVG. It knows what Oona's dashboards use of Grafana, and nothing else: it is
// for looking at them, and for tests, where Grafana cannot run.
package draw
