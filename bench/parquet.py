"""Reads the frames that `oona replay --parquet` wrote to DIR into memory, and measures how fast pyarrow and DuckDB write
these rows again, by processor time.

    python3 bench/parquet.py DIR
"""
import json
import os
import sys
import tempfile
import time

import duckdb
import pyarrow.dataset
import pyarrow.parquet

frames = pyarrow.dataset.dataset(sys.argv[1] + "/seed_metrics")
rows = frames.to_table()
figures = {}


def measure(name, write):
    with tempfile.TemporaryDirectory() as dir:
        file = os.path.join(dir, "out.parquet")
        began = time.process_time()
        write(file)
        used = time.process_time() - began
        figures[name + "_mrows_core"] = rows.num_rows / 1e6 / used
        figures[name + "_bytes_row"] = os.path.getsize(file) / rows.num_rows


floats = [f.name for f in rows.schema if pyarrow.types.is_floating(f.type)]
encodings = {f.name: "BYTE_STREAM_SPLIT" if f.name in floats else "DELTA_BINARY_PACKED" for f in rows.schema}
measure("pyarrow_split", lambda file: pyarrow.parquet.write_table(
    rows, file, use_dictionary=False, column_encoding=encodings, compression="zstd", compression_level=1, row_group_size=128_000))
measure("pyarrow_default", lambda file: pyarrow.parquet.write_table(rows, file, compression="zstd", row_group_size=128_000))

database = duckdb.connect()
database.execute("create table held as select * from rows")
measure("duckdb", lambda file: database.execute(f"copy held to '{file}' (format parquet, compression zstd, row_group_size 122880)"))

json.dump(figures, sys.stdout)
