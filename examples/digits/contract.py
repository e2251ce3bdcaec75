"""Oona's Avro contract, read from the tree: schemas/avro/*.avsc."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import fastavro
from fastavro.schema import fingerprint, to_parsing_canonical_form

SCHEMAS = Path(__file__).resolve().parents[2] / "schemas" / "avro"

FRAME = "kasmina.telemetry.SeedMetrics"
EVENT = "kasmina.events.SeedEvent"


def load(name: str) -> dict[str, Any]:
    """Return the schema in that file, as it is written."""
    return json.loads((SCHEMAS / name).read_text())


def union() -> Any:
    """Return the schema of a recording: a frame or an event."""
    return fastavro.parse_schema([load("seed_metrics.v1.avsc"), load("seed_event.v2.avsc")])


class SingleObject:
    """Encodes frames in Avro's single-object encoding.

    Two bytes of marker, the schema's CRC-64-AVRO fingerprint in little-endian
    order, and the body.
    """

    def __init__(self) -> None:
        schema = load("seed_metrics.v1.avsc")
        self.schema = fastavro.parse_schema(schema)
        self.header = b"\xc3\x01" + bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))

    def encode(self, frame: dict[str, Any]) -> bytes:
        out = io.BytesIO()
        out.write(self.header)
        fastavro.schemaless_writer(out, self.schema, frame)
        return out.getvalue()
