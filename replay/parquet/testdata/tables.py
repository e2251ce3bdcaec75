"""Prints the rows of tables as JSON, as DuckDB and pyarrow read them. They must agree."""
import json
import sys
from datetime import datetime

import duckdb
import pyarrow.dataset


def plain(value):
    if isinstance(value, datetime):
        return round(value.timestamp() * 1e6)
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [plain(v) for v in value]
    return value


def read(table):
    cursor = duckdb.sql(f"select * from read_parquet('{table}/**/*.parquet', hive_partitioning = true)")
    ours = [plain(dict(zip(cursor.columns, r))) for r in cursor.fetchall()]
    theirs = [plain(r) for r in pyarrow.dataset.dataset(table, partitioning="hive").to_table().to_pylist()]
    key = lambda row: json.dumps(row, sort_keys=True)
    if sorted(ours, key=key) != sorted(theirs, key=key):
        sys.exit(f"DuckDB reads {ours[:1]}, pyarrow {theirs[:1]}")
    return ours


json.dump([read(table) for table in sys.argv[1:]], sys.stdout)
