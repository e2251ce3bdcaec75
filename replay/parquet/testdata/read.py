"""Reads a directory that Oona wrote with four tools, and prints as JSON what each finds.

Every tool gives, for each layer: rows, and for each column: values that are not NULL, and their mean.
"""
import json
import sys

import duckdb
import pandas
import polars
import pyarrow.dataset

root = sys.argv[1]
columns = sys.argv[2].split(",")
frames = root + "/seed_metrics"
found = {}


def row(count, *pairs):
    return {"rows": count, "values": {c: {"count": n, "mean": m} for c, (n, m) in zip(columns, pairs)}}


def keep(tool, layers):
    found[tool] = layers


selected = ", ".join(f'count("{c}"), avg("{c}")' for c in columns)
source = f"read_parquet('{frames}/**/*.parquet', hive_partitioning = true, union_by_name = true)"
rows = duckdb.sql(f"select run, layer, count(*), {selected} from {source} group by all").fetchall()
keep("duckdb", {f"{r[0]}/{r[1]}": row(r[2], *zip(r[3::2], r[4::2])) for r in rows})

fragments = list(pyarrow.dataset.dataset(frames, partitioning="hive").get_fragments())
schema = pyarrow.unify_schemas([f.physical_schema for f in fragments] + [pyarrow.schema([("run", "string"), ("layer", "string")])])
table = pyarrow.dataset.dataset(frames, schema=schema, partitioning=pyarrow.dataset.partitioning(pyarrow.schema([("run", "string"), ("layer", "string")]), flavor="hive")).to_table()


def from_pandas(frame):
    out = {}
    for (run, layer), group in frame.groupby(["run", "layer"], observed=True):
        pairs = []
        for c in columns:
            n = int(group[c].count())
            pairs.append((n, float(group[c].astype("float64").mean()) if n else None))
        out[f"{run}/{layer}"] = row(len(group), *pairs)
    return out


keep("pyarrow", from_pandas(table.to_pandas()))
keep("pandas", from_pandas(pandas.read_parquet(frames, schema=schema)))

lazy = polars.concat([polars.scan_parquet(f.path, hive_partitioning=True, hive_schema={"run": polars.String, "layer": polars.String}) for f in fragments], how="diagonal")
grouped = lazy.group_by("run", "layer").agg(
    polars.len().alias("rows"),
    *[polars.col(c).count().alias("n " + c) for c in columns],
    *[polars.col(c).cast(polars.Float64).mean().alias("m " + c) for c in columns],
).collect()
keep("polars", {f"{r['run']}/{r['layer']}": row(r["rows"], *[(r["n " + c], r["m " + c]) for c in columns]) for r in grouped.to_dicts()})

first = duckdb.sql(f"select min(time)::timestamptz::varchar, min(epoch_us(time)), max(epoch_us(time)), sum(step)::bigint, sum(sequence)::bigint, sum(seed)::bigint from {source}").fetchall()[0]
found["frame"] = {"first": first[1], "last": first[2], "steps": first[3], "sequences": first[4], "seeds": first[5], "time_type": str(table.schema.field("time").type)}
found["states"] = {
    r[0]: r[1]
    for r in duckdb.sql(f"select state_name, count(*) from {source} join '{root}/states.parquet' using (state) group by all").fetchall()
}
found["producers"] = {
    f"{r[0]}/{r[1]}": r[2]
    for r in duckdb.sql(f"select producer_id, epoch_us(producer_epoch), count(*) from {source} join '{root}/producers.parquet' using (producer) group by all").fetchall()
}
json.dump(found, sys.stdout)
