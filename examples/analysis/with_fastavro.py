"""Draws the life of a run from the exact archive of `oona replay --archive`, with fastavro and NumPy."""

from __future__ import annotations

import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import fastavro
import numpy as np
from fastavro.schema import fingerprint, to_parsing_canonical_form

import life

SCHEMAS = Path(__file__).resolve().parents[2] / "schemas" / "avro"
DEAD = [life.STATES.index(name) for name in ("CULLED", "CANCELLED", "ROLLED_BACK")]


class Decoder:
    """Decodes values that have a given schema.

    A value is in Avro's single-object encoding: two bytes of marker, the fingerprint of its
    schema in little-endian order, and the body.
    """

    def __init__(self, *files: str) -> None:
        self.schemas = {}
        for file in files:
            schema = json.loads((SCHEMAS / file).read_text())
            mark = b"\xc3\x01" + bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))
            self.schemas[mark] = fastavro.parse_schema(schema)

    def decode(self, value: bytes | None) -> dict | None:
        """Return the record, or None if the value has another schema."""
        schema = self.schemas.get(value[:10]) if value else None
        return schema and fastavro.schemaless_reader(io.BytesIO(value[10:]), schema, None)


def records(directory: Path, topic: str, decoder: Decoder) -> Iterator[dict]:
    """Yield the decoded records of the topics whose names have this in them."""
    manifest = json.loads((directory / "_oona.json").read_text())
    for log in manifest["topics"]:
        if topic not in log["name"]:
            continue
        for partition in log["partitions"]:
            for listed in partition["files"]:
                with (directory / listed["name"]).open("rb") as file:
                    for record in fastavro.reader(file):
                        if decoded := decoder.decode(record["value"]):
                            yield decoded


class Run:
    """What the tables are made of."""

    def __init__(self) -> None:
        self.seen: set[tuple] = set()
        self.counts: dict[tuple[str, int], Counter] = defaultdict(Counter)  # by layer and step
        self.norms: dict[tuple[str, int], list[np.ndarray]] = defaultdict(list)  # by layer and first step
        self.born: dict[tuple[str, int], int] = {}  # by layer and seed, as the next two
        self.died: dict[tuple[str, int], int] = {}
        self.last: dict[tuple[str, int], int] = {}

    def add(self, frame: dict) -> None:
        # A trainer that has had no answer sends a frame again. Both are on the log.
        identity = (frame["producer_id"], frame["producer_epoch"], frame["timeline"], frame["layer_id"], frame["sequence"])
        if identity in self.seen:
            return
        self.seen.add(identity)

        layer, step = frame["layer_id"], frame["step"]
        self.counts[layer, step].update(frame["states"])
        for metric in frame["metrics"]:
            if metric["name"] == "gradient_norm":
                values = np.array(metric["values"])  # NaN: not measured
                self.norms[layer, step // life.BUCKET * life.BUCKET].append(values[~np.isnan(values)])
        for seed, state in zip(frame["seed_ids"], frame["states"]):
            seed = layer, seed
            self.last[seed] = max(step, self.last.get(seed, step))
            if state != 0:
                self.born[seed] = min(step, self.born.get(seed, step))
            if state in DEAD:
                self.died[seed] = min(step, self.died.get(seed, step))

    def states(self) -> list[life.Count]:
        return [life.Count(*key, life.STATES[state], seeds) for key, counts in sorted(self.counts.items()) for state, seeds in sorted(counts.items())]

    def gradients(self) -> list[life.Quantiles]:
        rows = []
        for key, parts in sorted(self.norms.items()):
            norms = np.concatenate(parts)
            if len(norms):
                rows.append(life.Quantiles(*key, len(norms), *np.quantile(norms, [0.1, 0.5, 0.9]).tolist()))
        return rows

    def survival(self, blueprints: dict[tuple[str, int], str]) -> list[life.Survival]:
        ages: dict[str, list[tuple[int, bool]]] = defaultdict(list)
        for seed, born in self.born.items():
            group = blueprints.get(seed, "no blueprint") if blueprints else seed[0]
            ages[group].append((self.died.get(seed, self.last[seed]) - born, seed in self.died))
        rows = []
        for group, members in sorted(ages.items()):
            alive = 1.0
            for age, deaths in sorted(Counter(age for age, died in members if died).items()):
                at_risk = sum(a >= age for a, _ in members)
                alive *= 1 - deaths / at_risk
                rows.append(life.Survival(group, age, at_risk, deaths, alive))
        return rows


def main() -> None:
    args = life.arguments(__doc__, "archive")
    runs: dict[str, Run] = defaultdict(Run)
    for frame in records(args.directory, ".telemetry.seed.metrics", Decoder("seed_metrics.v1.avsc")):
        runs[frame["run_id"]].add(frame)
    run = life.chosen(list(runs), args.run)

    blueprints: dict[tuple[str, int], str] = {}
    for event in records(args.directory, ".events.seed.", Decoder("seed_event.v1.avsc", "seed_event.v2.avsc")):
        if event["run_id"] == run and event.get("blueprint_id"):
            blueprints[event["layer_id"], event["seed_id"]] = event["blueprint_id"]
    life.write(life.Life(run, runs[run].states(), runs[run].gradients(), runs[run].survival(blueprints)), args.out)


if __name__ == "__main__":
    main()
