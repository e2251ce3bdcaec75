"""Prints the records of Avro files as lines of JSON, with the number of bytes of the file."""

import json
import sys

import fastavro


def plain(value):
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {name: plain(v) for name, v in value.items()}
    if isinstance(value, list):
        return [plain(v) for v in value]
    if hasattr(value, "timestamp"):
        return round(value.timestamp() * 1e6)
    return value


for name in sys.argv[1:]:
    with open(name, "rb") as file:
        for record in fastavro.reader(file):
            print(json.dumps(plain(record)))
