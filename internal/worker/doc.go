// Package worker is the common part of Oona's processes: configuration, logs, an
// admin server, and the start and end of components.
//
//	flags > OONA_... > YAML file > defaults
//	                |
//	             Main ──▶ admin server: /livez /readyz /metrics
//	                └───▶ run ──▶ components, until a signal, or until one of them ends
//
// A worker's main calls [Main]. A program with subcommands makes its own parser
// from [Options], and uses [LogConfig], [Admin], [NewRegistry] and [RunAll] without
// Main. They neither exit the process nor use globals.
package worker
