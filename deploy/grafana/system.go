package main

import (
	"fmt"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/variants"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

// system returns the dashboard about Oona itself.
func system() *board {
	return newBoard("oona-system", "Oona / Oona itself",
		"The state of Oona itself: requests, errors and durations of ingest, lag, commits, records that are put aside, limits, and the exporter.",
		variables(theRun(), theLayers(), theMetric())...).
		row("Now", systemStats()...).
		row("Alerts", alertsTable()).
		row("Ingest", ingestPanels()...).
		row("Aggregate", aggregatePanels()...).
		row("Limits", limitPanels()...).
		row("Put aside, lost and refused", asidePanels()...).
		row("Raw topic and tensors", rawPanels()...).
		row("Exporter", exporterPanels()...).
		row("Processes", processPanels()...)
}

// ratesBy returns a query for the rate of a counter, summed over all processes, by a label.
func ratesBy(label, name string, more ...string) string {
	return fmt.Sprintf("sum by (%s) (rate(%s[$__rate_interval]))", label, series(name, installation, more...))
}

// total returns a query for the rate of a counter, summed over all processes.
func total(name string, more ...string) string {
	return fmt.Sprintf("sum(rate(%s[$__rate_interval]))", series(name, installation, more...))
}

// highest returns a query for the n highest values of a gauge, by a label.
func highest(n int, label, name string) string {
	return fmt.Sprintf("topk(%d, max by (%s) (%s))", n, label, series(name, installation))
}

// inLastHour returns a query for how much a counter of all processes has risen within an hour.
// A counter that is new counts from 0. For what a spool finds damaged when its ingest starts is
// in its counters before Prometheus reads them for the first time, and they have no rate.
func inLastHour(name string) string {
	return fmt.Sprintf("sum(%[1]s unless %[1]s offset 1h or increase(%[1]s[1h]))", series(name, installation))
}

// full returns a query for how full the fullest spools are. A spool that may have no bytes is
// full, and its ratio is 0/0.
func full() string {
	most := series("oona_ingest_spool_max_bytes", installation)
	return fmt.Sprintf("topk(10, max by (instance) (%s / (%[2]s > 0) or (%[2]s == 0) + 1))", series("oona_ingest_spool_bytes", installation), most)
}

// durations returns a query for a quantile of a histogram of durations, over all processes.
func durations(q float64, name string) string {
	return quantile(q, fmt.Sprintf("sum by (le) (rate(%s[$__rate_interval]))", named(name+"$histogram", installation)))
}

func systemStats() []cog.Builder[dashboard.Panel] {
	return []cog.Builder[dashboard.Panel]{
		shortStat("Bus", "Whether the bus answers all workers.", "none", "min("+series("oona_bus_up", installation)+")", levels(quiet)).
			Mappings(words(critical, "down", fine, "up")).ColorMode(common.BigValueColorModeBackground).GraphMode(common.BigValueGraphModeNone),
		shortStat("Workers", "Number of processes that Prometheus scrapes: ingest, aggregate and exporter.", "none", "count("+series("oona_build_info", installation)+")", levels(quiet)),
		shortStat("Requests", "Requests to ingest per second.", "reqps", total("oona_ingest_requests_total"), levels(quiet)),
		shortStat("Refused", "Share of the requests that ingest refuses.", "percentunit",
			"(sum(rate("+series("oona_ingest_requests_total", installation, `code!~"2.."`)+"[$__rate_interval])) or vector(0)) / "+total("oona_ingest_requests_total"), levels(fine, 0.01, warning, 0.1, critical)),
		shortStat("Aggregators behind", "How long the oldest record has been waiting to be folded.", "s", "max("+series("oona_aggregate_lag_seconds", installation)+")", levels(fine, 10.0, warning, 60.0, critical)),
		shortStat("Exporters behind", "Age of the oldest rollup that an exporter has not read.", "s", "max("+series("oona_exporter_lag_seconds", installation)+")", levels(fine, 30.0, warning, 120.0, critical)),
	}
}

// alertsTable lists the alerts that fire, with the labels of the run, layer or partition that they
// are about.
func alertsTable() cog.Builder[dashboard.Panel] {
	return grid("Firing alerts", "Alerts on Oona that are firing or pending. docs/operations.md explains each of them.", targets{
		cells("A", `topk(50, max by (alertname, alertstate, severity, run, layer, partition, reason) (ALERTS{alertname=~"Oona.+", namespace=~"$namespace"}))`),
	},
		column{"severity", "Severity", []dashboard.DynamicConfigValue{property("custom.width", 90)}},
		column{"alertname", "Alert", []dashboard.DynamicConfigValue{links("What it means", "https://github.com/morphogenetic/oona/blob/main/docs/operations.md#alerts")}},
		column{"alertstate", "State", nil},
		column{"run", "Run", nil},
		column{"layer", "Layer", nil},
		column{"partition", "Partition", nil},
		column{"reason", "Reason", nil},
		column{"Value", "Alerts", nil},
	).Height(6).SortBy([]cog.Builder[common.TableSortByFieldState]{sortedBy("Severity").Desc(false)})
}

func ingestPanels() []cog.Builder[dashboard.Panel] {
	return []cog.Builder[dashboard.Panel]{
		stacked("Requests by answer", "Requests per second by status code.", "reqps", targets{
			query("A", "{{code}}", ratesBy("code", "oona_ingest_requests_total")),
		}).Span(8),
		lines("Refused requests", "Refused requests per second by reason. docs/protocol.md explains the reasons.", "reqps", targets{
			query("A", "{{reason}}", "topk(12, "+ratesBy("reason", "oona_ingest_rejected_total")+" > 0)"),
		}).Span(8),
		lines("Durations", "How long requests take, and how long publishing takes, which is a part of it: all in-sync replicas of the bus must answer.", "s", targets{
			query("A", "request p99", durations(0.99, "oona_ingest_request_seconds")),
			query("B", "request p50", durations(0.5, "oona_ingest_request_seconds")),
			query("C", "publish p99", durations(0.99, "oona_ingest_publish_seconds")),
		}).Span(8),
		lines("Frames and readings", "Accepted frames and readings per second.", "short", targets{
			query("A", "frames", total("oona_ingest_frames_total")),
			query("B", "readings", total("oona_ingest_readings_total")),
		}).Span(8).OverrideByName("readings", []dashboard.DynamicConfigValue{property("custom.axisPlacement", "right")}),
		lines("Bytes", "Bytes of accepted frames per second.", "Bps", targets{
			query("A", "accepted", total("oona_ingest_bytes_total")),
		}).Span(8),
		lines("Requests in flight", "Number of requests in progress, and frames per second that may be on the bus although the answer was 503.", "short", targets{
			query("A", "in flight", "sum("+series("oona_ingest_in_flight", installation)+")"),
			query("B", "unconfirmed", total("oona_ingest_unconfirmed_frames_total")),
		}).Span(8),
		lines("Spool", "The fullest spools: how full they are, and how long their oldest requests have been waiting. The panel is empty if no ingest has a spool.", "percentunit", targets{
			query("A", "{{instance}} full", full()),
			query("B", "{{instance}} oldest", highest(10, "instance", "oona_ingest_spool_oldest_seconds")),
		}).Span(12).OverrideByQuery("B", []dashboard.DynamicConfigValue{property("custom.axisPlacement", "right"), property("unit", "s")}),
		lines("Spools in trouble", "All of these must be zero. The number within the last hour of: requests that could not be written to a spool; requests that were lost in damaged parts of it; requests that can never be sent; requests that were refused because it was full; and damaged ends of its newest file, which may have been requests.", "none", targets{
			query("A", "not written", inLastHour("oona_ingest_spool_write_failures_total")),
			query("B", "damaged", inLastHour("oona_ingest_spool_lost_records_total")),
			query("C", "never sent", inLastHour("oona_ingest_spool_set_aside_total")),
			query("D", "full", inLastHour("oona_ingest_spool_refused_total")),
			query("E", "damaged end", inLastHour("oona_ingest_spool_damaged_ends_total")),
		}).Span(12),
	}
}

func aggregatePanels() []cog.Builder[dashboard.Panel] {
	return []cog.Builder[dashboard.Panel]{
		lines("Lag", "How long the oldest record has been waiting, for the partitions with the largest lag. A partition that no aggregator owns is not shown: see the alerts.", "s", targets{
			query("A", "partition {{partition}}", highest(10, "partition", "oona_aggregate_lag_seconds")),
			query("B", "age of the end offset", "max("+series("oona_aggregate_end_offset_age_seconds", installation)+")"),
		}).Span(8),
		lines("Waiting records", "Number of records that wait to be folded, for the partitions with the most.", "none", targets{
			query("A", "partition {{partition}}", highest(10, "partition", "oona_aggregate_lag_records")),
		}).Span(8),
		lines("Partitions", "Number of partitions of seed.metrics, number of them that an aggregator owns, and assignments per minute.", "none", targets{
			query("A", "partitions", "max("+series("oona_aggregate_topic_partitions", installation)+")"),
			query("B", "owned", "count(count by (partition) ("+series("oona_aggregate_lag_records", installation)+"))"),
			query("C", "assigned per minute", "60 * "+total("oona_aggregate_assignments_total")),
		}).Span(8),
		lines("Folded", "Records and rollups per second. Records with the verdict own are ticks and configurations.", "short", targets{
			query("A", "{{verdict}}", ratesBy("verdict", "oona_aggregate_records_total", `verdict=~"folded|duplicate|own"`)),
			query("B", "rollups", total("oona_aggregate_rollups_total")),
		}).Span(8),
		lines("Age of the last commit", "Time since the last commit, for the partitions with the oldest commits. After a restart, the records since the commit are folded again.", "s", targets{
			query("A", "partition {{partition}}", highest(10, "partition", "oona_aggregate_commit_age_seconds")),
		}).Span(8),
		lines("Commits", "Commits per second by result, and rollups that the bus has not accepted yet.", "short", targets{
			query("A", "{{result}}", ratesBy("result", "oona_aggregate_commits_total")),
			query("B", "waiting rollups", "sum("+series("oona_aggregate_pending_messages", installation)+")"),
			query("C", "failed to publish", total("oona_aggregate_publish_failures_total")),
		}).Span(8),
	}
}

func limitPanels() []cog.Builder[dashboard.Panel] {
	// A limit has the labels of its process. It does not always have a label partition.
	part := func(name, of string) string {
		return fmt.Sprintf("max(%s / on (namespace, job, instance) group_left () max by (namespace, job, instance) (%s))", series(name, installation), series(of, installation))
	}
	return []cog.Builder[dashboard.Panel]{
		lines("Share of the limits of an aggregator", "How much of each limit is used, in the partition that uses the most. At 100%, windows are sealed, timelines are forgotten, or Kafka deletes records that a restart needs.", "percentunit", targets{
			query("A", "layers in open windows", part("oona_aggregate_open_layer_windows", "oona_aggregate_max_open_layer_windows")),
			query("B", "timelines", part("oona_aggregate_timelines", "oona_aggregate_max_timelines")),
			query("C", "commit", "max("+series("oona_aggregate_commit_metadata_bytes", installation)+") / 4096"),
			query("D", "age of records against retention", part("oona_aggregate_needed_seconds", "oona_aggregate_retention_seconds")),
		}).Min(0).Span(8),
		lines("Open windows", "Open windows of all partitions, the number of them that are sealed because there were too many layers, and the age of the oldest in minutes.", "none", targets{
			query("A", "open", "sum("+series("oona_aggregate_open_windows", installation)+")"),
			query("B", "sealed", "sum("+series("oona_aggregate_sealed_windows", installation)+")"),
			query("C", "minutes of the oldest", "max("+series("oona_aggregate_oldest_window_seconds", installation)+") / 60"),
		}).Span(8),
		lines("Memory of ingest", "How much of --max-memory-bytes is in use, by purpose.", "bytes", targets{
			query("A", "{{by}}", "sum by (by) ("+series("oona_ingest_memory_bytes", installation)+")"),
		}).Span(8),
	}
}

func asidePanels() []cog.Builder[dashboard.Panel] {
	return []cog.Builder[dashboard.Panel]{
		stacked("Put aside by aggregators", "Records per second that are in no rollup, by verdict (late, quarantined, overflowed or dead) and reason. They are in the side topics.", "short", targets{
			query("A", "{{verdict}} {{reason}}", "topk(12, "+ratesBy("verdict, reason", "oona_aggregate_records_total", `verdict!~"folded|duplicate|own"`)+" > 0)"),
		}).Span(12),
		lines("Must be zero", "All of these must be zero. Per second: rollups that the bus will never accept, timelines that were forgotten, log lines that were dropped, changed secret files that could not be used. Also: the largest difference between the configuration generations of two partitions, and the number of ingests that have the same name as another.", "short", targets{
			query("A", "unpublishable", total("oona_aggregate_unpublishable_records_total")),
			query("B", "timelines forgotten", total("oona_aggregate_evicted_timelines_total")),
			query("C", "log lines dropped", total("oona_log_lines_dropped_total")),
			query("D", "secret files", "sum(rate("+series("oona_secret_file_failures_total", installation)+"[$__rate_interval])) or vector(0)"),
			query("E", "configurations apart", "max("+series("oona_aggregate_configuration_generation", installation)+") - min("+series("oona_aggregate_configuration_generation", installation)+")"),
			query("F", "names twice", "max(count by (namespace, name) ("+series("oona_ingest_info", installation)+")) - 1"),
		}).Span(12),
	}
}

func rawPanels() []cog.Builder[dashboard.Panel] {
	return []cog.Builder[dashboard.Panel]{
		lines("Raw topic", "Records of the raw topic per second: forwarded, written to the dead-letter topic, lost; and attempts that will be repeated.", "short", targets{
			query("A", "{{outcome}}", ratesBy("outcome", "oona_ingest_raw_records_total")),
			query("B", "again: {{of}}", ratesBy("of", "oona_ingest_raw_retries_total")),
			query("C", "lost", total("oona_ingest_raw_lost_total")),
			query("D", "dead: {{reason}}", "topk(4, "+ratesBy("reason", "oona_ingest_raw_dead_total")+" > 0)"),
		}).Span(8),
		lines("Waiting raw records", "Number of records that wait to be forwarded, for the partitions with the most.", "none", targets{
			query("A", "partition {{partition}}", highest(10, "partition", "oona_ingest_raw_lag_records")),
		}).Span(8),
		lines("Tensors", "Tensors per second by result, the time in which the tensors of a request are stored, and whether the store works.", "short", targets{
			query("A", "{{result}}", ratesBy("result", "oona_ingest_tensors_total")),
			query("B", "p99 in seconds", durations(0.99, "oona_ingest_store_seconds")),
			query("C", "store up", "min("+series("oona_ingest_store_up", installation)+")"),
		}).Span(8),
	}
}

func exporterPanels() []cog.Builder[dashboard.Panel] {
	each := func(ref, legend, name string) cog.Builder[variants.Dataquery] {
		return query(ref, legend, "sum(max without (instance, pod) (rate("+series(name, installation)+"[$__rate_interval])))")
	}
	return []cog.Builder[dashboard.Panel]{
		lines("Rollups", "New rollups per second that an exporter reads, and rollups that it drops. Repeats are normal after an aggregator has restarted. Conflicts and behind must be 0.", "short", targets{
			each("A", "read", "oona_exporter_rollups_total"),
			each("B", "repeats", "oona_exporter_repeats_total"),
			each("C", "conflicts", "oona_exporter_conflicts_total"),
			each("D", "behind", "oona_exporter_behind_total"),
			each("E", "made again", "oona_exporter_remade_total"),
			each("F", "too old", "oona_exporter_stale_total"),
			each("G", "undecodable", "oona_exporter_undecodable_total"),
		}).Span(8),
		lines("Lag", "Age of the oldest rollup that was not read yet, by topic.", "s", targets{
			query("A", "{{topic}}", "topk(10, max by (topic) ("+series("oona_exporter_lag_seconds", installation)+"))"),
		}).Span(8),
		lines("Size", "Number of series and layers of an exporter, and series per second that were merged into other because a limit was reached.", "none", targets{
			query("A", "series", "max("+series("oona_exporter_series", installation)+")"),
			query("B", "layers", "max("+series("oona_exporter_layers", installation)+")"),
			query("C", "merged: {{label}}", "topk(5, sum by (label) ("+once("rate("+series("oona_exporter_folded_series_total", installation)+"[$__rate_interval])")+"))"),
		}).Span(8).OverrideByName("series", []dashboard.DynamicConfigValue{property("custom.axisPlacement", "right")}),
		lines("Remote write", "For exporters with --remote-write-url: age of the oldest rollup that the receiver has not accepted, by topic; whether the receiver refuses requests; and samples and records per second that it will never get.", "short", targets{
			query("A", "lag of {{topic}} in seconds", "topk(4, max by (topic) ("+series("oona_exporter_remote_write_lag_seconds", installation)+"))"),
			query("B", "refuses", "max("+series("oona_exporter_remote_write_refusing", installation)+")"),
			query("C", "skipped: {{reason}}", ratesBy("reason", "oona_exporter_remote_write_skipped_samples_total", `reason!="repeated"`)),
			query("D", "lost records", total("oona_exporter_remote_write_lost_records_total")),
		}).Span(24).Height(6),
	}
}

func processPanels() []cog.Builder[dashboard.Panel] {
	return []cog.Builder[dashboard.Panel]{
		lines("Processors", "Number of cores that each process uses, for the processes that use the most.", "short", targets{
			query("A", "{{job}} {{instance}}", "topk(10, rate("+series("process_cpu_seconds_total", installation)+"[$__rate_interval]))"),
		}).Span(8),
		lines("Memory", "Resident memory, for the processes that use the most.", "bytes", targets{
			query("A", "{{job}} {{instance}}", "topk(10, "+series("process_resident_memory_bytes", installation)+")"),
		}).Span(8),
		grid("Certificates", "When the certificates of the workers expire. Without TLS there are none.", targets{
			cells("A", "1000 * bottomk(20, min by (job, setting) ("+series("oona_certificate_expiry_timestamp_seconds", installation)+"))"),
		},
			column{"job", "Job", nil},
			column{"setting", "Certificate of", nil},
			column{"Value", "Expires", []dashboard.DynamicConfigValue{property("unit", "dateTimeFromNow")}},
		).Span(8),
	}
}
