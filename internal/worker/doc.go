// Package worker is what Oona's processes have in common: configuration, logs,
// an admin server, and the start and end of what runs.
//
//	flags > OONA_... > YAML file > defaults
//	                |
//	             Main ──▶ admin server: /livez /readyz /metrics /debug/pprof
//	                └───▶ run ──▶ components, until a signal or the first end
//
// A worker's main calls [Main]. A program with subcommands makes its own parser
// from [Options] and uses [LogConfig], [Admin], [NewRegistry] and [RunAll] by
// themselves: none of them exits the process or touches a global.
package worker
