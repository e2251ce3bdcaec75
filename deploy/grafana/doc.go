// Command grafana writes the Grafana dashboards of Oona, which are code here and JSON in
// the Helm chart:
//
//	go run . -out ../helm/oona/dashboards
//
// A test compares the JSON with what this code generates. They are dashboards of Grafana's
// schema v1, which every Grafana since 10 reads. Package draw draws them without Grafana.
package main
