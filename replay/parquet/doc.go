// Package parquet writes the records of a replay to Parquet files, for pandas, DuckDB, Polars
// and other analysis tools:
//
//	DIR/seed_metrics/run=R/layer=L/part-PARTITION-FIRST-LAST.parquet   a row for a seed and an instant
//	DIR/layer_health/...                                               a row for a rollup and a metric
//	DIR/layer_health_windows/...                                       a row for a rollup
//	DIR/layer_performance/..., DIR/layer_performance_windows/...       the same
//	DIR/events_seed_culled/...                                         a row for an event
//	DIR/events_run_ended/run=R/...                                     a row for the end of a run
//	DIR/states.parquet                                                 the names of the states
//	DIR/producers.parquet                                              the producers of the frames
//	DIR/_oona.json                                                     the manifest
//
// FIRST and LAST are the offsets of the first and the last record in a file. Which records
// are in which file depends only on the records and the Options. So if a replay is killed and run
// again, it writes the same files, byte for byte.
package parquet
