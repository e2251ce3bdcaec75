"""Says what is in a recording: counts, duration, transitions."""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import fastavro
import numpy as np

import contract
from lifecycle import State

CLAIM_CHECK_BYTES = 16 * 1024  # ingest keeps larger tensors in object storage


@dataclass
class Content:
    """What a recording holds."""

    bytes: int = 0
    sha256: str = ""
    notes: dict[str, str] = field(default_factory=dict)
    frames: Counter[tuple[str, str]] = field(default_factory=Counter)  # producer, layer
    readings: int = 0
    samples: int = 0  # metric values that were measured
    unmeasured: int = 0  # metric values that are NaN
    tensors: Counter[str] = field(default_factory=Counter)
    tensor_bytes: int = 0
    large_tensors: int = 0
    largest_frame: int = 0  # bytes in single-object encoding
    events: Counter[tuple[State, State]] = field(default_factory=Counter)
    times: list[int] = field(default_factory=list)  # of frames, microseconds

    @property
    def seconds(self) -> float:
        return (max(self.times) - min(self.times)) / 1e6


def read(path: Path) -> Content:
    """Read a recording through."""
    data = path.read_bytes()
    content = Content(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    encoder = contract.SingleObject()
    with path.open("rb") as file:
        reader = fastavro.reader(file, return_record_name=True)
        content.notes = {k: v for k, v in reader.metadata.items() if k.startswith("oona.")}
        for name, record in reader:
            if name == contract.EVENT:
                content.events[State(record["from_state"]), State(record["to_state"])] += 1
                continue
            # The reader gives times as datetimes; both directions keep microseconds.
            content.times.append(round(record["observed_at"].timestamp() * 1e6))
            content.frames[record["producer_id"], record["layer_id"]] += 1
            content.readings += len(record["seed_ids"])
            values = np.concatenate([m["values"] for m in record["metrics"]])
            content.unmeasured += int(np.isnan(values).sum())
            content.samples += int((~np.isnan(values)).sum())
            content.largest_frame = max(content.largest_frame, len(encoder.encode(record)))
            for tensor in record["tensors"]:
                content.tensors[tensor["name"]] += 1
                content.tensor_bytes += len(tensor["data"])
                content.large_tensors += len(tensor["data"]) > CLAIM_CHECK_BYTES
    return content


def table(content: Content) -> str:
    """Return the content as Markdown."""
    rows = [
        ("file", f"{content.bytes:,} bytes, deflate"),
        ("SHA-256", f"`{content.sha256}`"),
        ("made with", ", ".join(f"{k.removeprefix('oona.')} {v}" for k, v in sorted(content.notes.items()))),
        ("duration", f"{content.seconds:.1f} s of event time"),
        ("frames", f"{content.frames.total():,}"),
    ]
    rows += [(f"frames of {layer} by {producer}", f"{n:,}") for (producer, layer), n in sorted(content.frames.items())]
    rows += [
        ("largest frame", f"{content.largest_frame:,} bytes in single-object encoding"),
        ("readings", f"{content.readings:,}"),
        ("samples", f"{content.samples:,} measured, {content.unmeasured:,} NaN"),
        ("tensors", ", ".join(f"{n} {name}" for name, n in sorted(content.tensors.items()))),
        ("tensor bytes", f"{content.tensor_bytes:,}; {content.large_tensors} tensors are above 16 KiB"),
        ("events", f"{content.events.total():,}"),
    ]
    rows += [(f"{a.name} to {b.name}", f"{n:,}") for (a, b), n in sorted(content.events.items())]
    return "\n".join(["| what | how much |", "|---|---|"] + [f"| {what} | {much} |" for what, much in rows])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recording", type=Path)
    print(table(read(parser.parse_args().recording)))
    sys.exit(0)
