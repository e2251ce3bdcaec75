"""Prints the records of archive files as JSON, one on each line, as fastavro reads them."""

import json
import sys
from datetime import datetime, timedelta, timezone

import fastavro

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def hexed(value):
    return None if value is None else value.hex()


for name in sys.argv[1:]:
    with open(name, "rb") as file:
        for r in fastavro.reader(file):
            print(json.dumps({
                "topic": r["topic"],
                "partition": r["partition"],
                "incarnation": r["incarnation"],
                "offset": r["offset"],
                "append_time": (r["append_time"] - EPOCH) // timedelta(microseconds=1),
                "key": hexed(r["key"]),
                "headers": [[h["name"], hexed(h["value"])] for h in r["headers"]],
                "value": hexed(r["value"]),
            }))
