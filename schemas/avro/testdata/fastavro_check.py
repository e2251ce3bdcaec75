"""Cross-checks the codec with fastavro; run by TestFastavro.

usage: fastavro_check.py DIRECTORY

DIRECTORY holds, for each record type and version, NAME.avsc and one or more NAME.I.json
(the values by field name) with NAME.I.bin (the same, encoded by Oona). Each
NAME.I.bin must be what fastavro writes and must read as the values. Then the
script writes, for Oona to read, NAME.I.fastavro (single-object encoding) and
the recordings union.avro, frames.avro and events.avro.

In the JSON, {"$bytes": HEX} stands for bytes, {"$float": HEX} for the four
bytes of a float and {"$double": HEX} for the eight of a double.
"""

import datetime
import io
import json
import math
import pathlib
import struct
import sys

import fastavro
from fastavro.schema import fingerprint, to_parsing_canonical_form

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
FRAME, EVENT = "kasmina.telemetry.SeedMetrics", "kasmina.events.SeedEvent"
CLAIM = "kasmina.telemetry.TensorClaim"


def untag(value):
    if isinstance(value, list):
        return [untag(v) for v in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        (key, inner), = value.items()
        if key == "$bytes":
            return bytes.fromhex(inner)
        if key == "$float":
            return struct.unpack("<f", bytes.fromhex(inner))[0]
        if key == "$double":
            return struct.unpack("<d", bytes.fromhex(inner))[0]
        if key in ("bytes", CLAIM):  # a branch of a union
            return untag(inner)
    return {k: untag(v) for k, v in value.items()}


def same(a, b):
    if isinstance(a, datetime.datetime):
        a = (a - EPOCH) // datetime.timedelta(microseconds=1)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, float) and math.isnan(a):
        return math.isnan(b)
    return type(a) is type(b) and a == b


def header(text):
    canonical = to_parsing_canonical_form(json.loads(text))
    # fastavro gives the fingerprint as hexadecimal digits in the order of the wire.
    return b"\xc3\x01" + bytes.fromhex(fingerprint(canonical, "CRC-64-AVRO"))


def check(directory):
    values = {}
    for schema_file in sorted(directory.glob("*.avsc")):
        text = schema_file.read_text()
        schema = fastavro.parse_schema(json.loads(text))
        for case in sorted(directory.glob(schema_file.stem + ".*.json")):
            value = untag(json.loads(case.read_text()))
            values.setdefault(schema_file.stem, []).append(value)
            out = io.BytesIO()
            out.write(header(text))
            fastavro.schemaless_writer(out, schema, value)
            case.with_suffix(".fastavro").write_bytes(out.getvalue())

            ours = case.with_suffix(".bin").read_bytes()
            if ours[:10] != header(text):
                sys.exit(f"{case.stem}: framing is {ours[:10].hex()}, fastavro's {header(text).hex()}")
            body = io.BytesIO(ours[10:])
            read = fastavro.schemaless_reader(body, schema)
            if body.read():
                sys.exit(f"{case.stem}: fastavro leaves bytes")
            if not same(read, value):
                sys.exit(f"{case.stem}: fastavro reads {read}\nwant {value}")
            if out.getvalue() != ours:
                sys.exit(f"{case.stem}: fastavro writes {out.getvalue().hex()}\nOona wrote {ours.hex()}")
            print("checked", case.stem)
    return values


def record(directory, values):
    def schema(name):
        return json.loads((directory / f"{name}.avsc").read_text())

    metrics, event = "kasmina.telemetry.SeedMetrics.v1", "kasmina.events.SeedEvent.v2"
    frames, events = values[metrics], values[event]
    both = [(FRAME, f) for f in frames] + [(EVENT, e) for e in events]
    for name, schemas, entries, codec in (
        ("union", [schema(metrics), schema(event)], both, "deflate"),
        ("frames", schema(metrics), frames, "null"),
        ("deflated", schema(metrics), frames, "deflate"),
        ("events", schema(event), events, "deflate"),
    ):
        with open(directory / f"{name}.avro", "wb") as out:
            fastavro.writer(out, fastavro.parse_schema(schemas), entries, codec=codec, sync_interval=2_000)


if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1])
    record(folder, check(folder))
