"""Computes the rollups of a log anew, with NumPy, and compares; run by TestContent.

usage: oracle.py DIRECTORY SCHEMAS

Nothing in it is Oona's: fastavro decodes the records by the published schemas,
and time, windows and content are done here from what the documentation says.

DIRECTORY holds settings.json (the windows, in microseconds, as the log must
configure them, and what is known of metrics) and, as JSON lines, log.jsonl (the seed-metrics topic), side.jsonl
(what went to side topics), rollups.jsonl (the rollup topics) and spoiled.jsonl
(rollups that are wrong in one field, each with its place among the group's of
its partition). The result is JSON on stdout: counts of what was there to see,
where the topics differ from what the log should have come to, and by field
where the spoiled rollups do.
"""

import base64
import hashlib
import io
import json
import math
import pathlib
import struct
import sys
from fractions import Fraction

import fastavro
import numpy as np

UNSET = -(2**63)
TRAINING, GRAFTING, FINE_TUNING, STATES = 2, 3, 6, 11
BUCKETS = 32  # an octave
LEAST_NORMAL = 2.0**-126
TOLERANCE = 1e-9
QUANTILE_BOUND = 0.011
EPSILON = np.finfo(np.float64).eps


class Partition:
    """Folds the log of a partition, record by record."""

    def __init__(self, settings):
        self.settings = settings
        self.bucket_width = -(-settings["idle_horizon"] // 4)
        self.clock, self.previous = 0, None
        self.incarnation, self.configuration = 0, None
        self.timelines = {}
        self.verdicts = {}  # offset: verdict, of frames
        self.expected = []  # rollups

    def begin(self, start):
        """Takes the start of an incarnation, the first record of a log. Time does not begin with it."""
        if self.previous is not None or start["number"] <= self.incarnation:
            raise ValueError(f"an incarnation begins in the midst of a log, or is not above the last: {start}")
        self.incarnation = start["number"]

    def configure(self, record, configuration):
        """Takes the configuration that follows it, which must be that of the settings."""
        want = {
            "length": "length", "allowed_lateness": "lateness", "out_of_orderness": "out_of_orderness", "tick_interval": "tick",
            "idle_horizon": "idle_horizon", "reducer": "reducer", "generation": "generation",
        }
        if self.previous is not None or any(configuration[field] != self.settings[name] for field, name in want.items()):
            raise ValueError(f"the log is configured as {configuration}, want {self.settings} at its beginning")
        if configuration["catalogue"] != catalogue_hash(self.settings["metrics"]):
            raise ValueError(f"the log names another catalogue: {configuration['catalogue']}")
        self.configuration = configuration
        self.fold(record, None)

    def fold(self, record, frame):
        self.record, self.index = record, 0
        for t in self.timelines.values():
            t.before = t.watermark
        if self.pass_time(record["appended"]):
            self.close(self.timelines.values())
        if frame is None:
            return
        key = frame["run_id"], frame["timeline"]
        t = self.timelines.setdefault(key, Timeline(key))
        self.verdicts[record["offset"]] = self.take(t, frame)
        reached = t.reached.setdefault((frame["producer_id"], record["path"]), {})
        bucket = self.clock // self.bucket_width
        reached[bucket] = max(reached.get(bucket, UNSET), frame["observed_at"])
        self.close([t])

    def pass_time(self, appended):
        before = self.clock
        if self.previous is not None:
            self.clock += min(max(0, appended - self.previous), 2 * self.settings["tick"])
        self.previous = appended
        return any(before // width != self.clock // width for width in (self.settings["tick"], self.bucket_width))

    def closes(self, start):
        return start + self.settings["length"] + self.settings["lateness"]

    def take(self, t, frame):
        start = frame["observed_at"] // self.settings["length"] * self.settings["length"]
        if self.closes(start) <= t.watermark:
            return "late"
        frames = t.windows.setdefault(start, {})
        identity = frame["producer_id"], frame["producer_epoch"], frame["sequence"]
        if identity in frames:
            first = frames[identity]
            if first["body"] != frame["body"]:
                return "quarantine"
            first["repeats"] += 1
            return "duplicate"
        frames[identity] = frame | {"repeats": 0, "offset": self.record["offset"]}
        return "folded"

    def close(self, timelines):
        closed = []
        for t in timelines:
            t.advance(self)
            for start in [s for s in t.windows if self.closes(s) <= t.watermark]:
                closed.append((start, t.key, t, list(t.windows.pop(start).values())))
        for start, _, t, frames in sorted(closed, key=lambda c: c[:2]):
            for layer in sorted({f["layer_id"] for f in frames}):
                self.emit(t, start, [f for f in frames if f["layer_id"] == layer])
                self.index += 1

    def emit(self, t, start, frames):
        first, last = frames[0], frames[-1]
        times = [f["observed_at"] for f in frames]
        steps, step_micros = progress(frames)
        readings = sum(len(f["seed_ids"]) for f in frames)
        states = {}
        for f in frames:
            states.update(zip(f["seed_ids"], f["states"]))
        by_state = np.bincount(np.array(list(states.values())), minlength=STATES).tolist()
        seconds = self.settings["length"] / 1e6
        of_both = {
            "run_id": t.key[0], "layer_id": first["layer_id"], "timeline": t.key[1],
            "window_start": start, "window_end": start + self.settings["length"],
            "trigger_offset": self.record["offset"], "trigger_index": self.index, "watermark": t.before,
            "first_offset": first["offset"], "last_offset": last["offset"],
            "frames": len(frames), "readings": readings, "duplicates": sum(f["repeats"] for f in frames),
            "generation": self.configuration["generation"], "reducer": self.configuration["reducer"], "catalogue": self.configuration["catalogue"],
            "incarnation": self.incarnation, "window_kind": 0, "window_hop_micros": 0,
        }
        of_health = {
            "seeds_seen": len(states), "seeds_by_state": by_state,
            "seeds_active": by_state[TRAINING] + by_state[GRAFTING] + by_state[FINE_TUNING],
        }
        of_performance = {
            "frames_per_second": len(frames) / seconds, "readings_per_second": readings / seconds,
            "steps_per_second": steps / (step_micros / 1e6) if step_micros else 0.0,
            "steps": steps, "step_micros": step_micros,
            "delay_micros": self.record["appended"] - max(times),
        }
        columns = {}
        for f in frames:
            for c in f["metrics"]:
                columns.setdefault(c["name"], []).append((f["seed_ids"], c["values"], f["states"], f["offset"]))
        for group, own in ("health", of_health), ("performance", of_performance):
            metrics = [self.samples(name, columns[name]) for name in sorted(columns) if self.known(name)["group"] == group]
            self.expected.append((group, of_both | own, metrics))

    def known(self, name):
        return self.settings["metrics"].get(name, {"group": "performance", "direction": "neutral"})

    def samples(self, name, columns):
        return Samples(
            name, self.known(name)["direction"],
            np.concatenate([np.array(seeds) for seeds, _, _, _ in columns]),
            np.concatenate([np.array(values, np.float64) for _, values, _, _ in columns]),
            np.concatenate([np.array(list(states)) for _, _, states, _ in columns]),
            np.concatenate([np.full(len(seeds), offset) for seeds, _, _, offset in columns]),
        )


def progress(frames):
    """Rises of the step between neighbours of a producer by sequence, and the event time between these."""
    by_producer = {}
    for f in frames:
        by_producer.setdefault((f["producer_id"], f["producer_epoch"]), []).append((f["sequence"], f["step"], f["observed_at"]))
    pairs = [(b[1] - a[1], b[2] - a[2]) for of in by_producer.values() for a, b in zip(sorted(of), sorted(of)[1:])]
    counted = [(rise, time) for rise, time in pairs if rise >= 0 and time > 0]
    return sum(rise for rise, _ in counted), sum(time for _, time in counted)


def catalogue_hash(metrics):
    groups, directions = ("health", "performance"), ("neutral", "higher_is_better", "lower_is_better")
    form = b""
    for name in sorted(metrics, key=str.encode):
        of = metrics[name]
        if len(name) > 127:
            raise ValueError("a length of more than one byte")
        form += bytes([len(name)]) + name.encode() + bytes([groups.index(of["group"]), directions.index(of["direction"])])
    return hashlib.sha256(form).digest()[:8]


class Timeline:
    def __init__(self, key):
        self.key = key
        self.watermark = self.before = UNSET
        self.reached = {}  # by (producer, path): by bucket of the clock, the latest event time
        self.windows = {}  # by start: frames by identity, as they came

    def advance(self, partition):
        oldest = partition.clock // partition.bucket_width - 4
        active = [max(recent) for by in self.reached.values() if (recent := [at for bucket, at in by.items() if bucket >= oldest])]
        if active:
            to = min(active) - partition.settings["out_of_orderness"]
        else:
            to = max(map(partition.closes, self.windows), default=UNSET)
        self.watermark = max(self.watermark, to)


class Samples:
    """All samples of a metric of a layer's window, as they were sent."""

    def __init__(self, name, direction, seeds, values, states, offsets):
        self.name, self.direction, self.worst_seeds = name, direction, 5
        measured, finite = ~np.isnan(values), np.isfinite(values)
        self.not_measured = int((~measured).sum())
        self.not_measured_active = int((~measured & np.isin(states, (TRAINING, GRAFTING, FINE_TUNING))).sum())
        self.infinite = int((measured & ~finite).sum())
        self.seeds, self.values, self.offsets = seeds[finite], values[finite], offsets[finite]

    def differences(self, got):
        """Yields in which fields a summary is wrong, and how."""
        x = self.values
        exactly = {"name": self.name, "count": len(x), "not_measured": self.not_measured, "infinite": self.infinite,
                   "not_measured_active": self.not_measured_active,
                   "min": x.min() if len(x) else 0.0, "max": x.max() if len(x) else 0.0, "worst": self.worst(got["mean"]), "histogram": self.histogram()}
        for field, want in exactly.items():
            if got[field] != want:
                yield f"{field}: {got[field]!r}, want {want!r}"
        yield from self.moments(got)
        if len(x) and got["count"] == len(x) and got["histogram"] == exactly["histogram"]:
            yield from self.quantiles(got["histogram"])

    def moments(self, got):
        x, n = self.values, max(1, len(self.values))
        total = math.fsum(x)
        mean = total / n
        m2 = math.fsum((x - mean) ** 2)
        size = math.fsum(abs(x))  # sums may cancel
        # Two means of equal values may differ by a rounding.
        rounding = n * (4 * EPSILON * size / n) ** 2
        for field, want, tolerance in (("sum", total, TOLERANCE * size), ("mean", mean, TOLERANCE * size / n),
                                       ("m2", m2, TOLERANCE * m2 + rounding),
                                       ("stddev", math.sqrt(m2 / n), TOLERANCE * math.sqrt(m2 / n) + math.sqrt(rounding / n))):
            if not abs(got[field] - want) <= tolerance:
                yield f"{field}: {got[field]!r}, want {want!r} within {tolerance!r}"

    def histogram(self):
        x = self.values
        return {"zero": int((abs(x) <= LEAST_NORMAL).sum()),
                "positive": self.buckets(x[x > LEAST_NORMAL]), "negative": self.buckets(-x[x < -LEAST_NORMAL])}

    @staticmethod
    def buckets(x):
        mantissa, exponent = np.frexp(x)  # 0.5 <= mantissa < 1: exact at powers of two
        index = (exponent - 1) * BUCKETS + np.ceil(np.log2(2 * mantissa) * BUCKETS).astype(int)
        indexes, counts = np.unique(index, return_counts=True)
        return {"indexes": indexes.tolist(), "counts": counts.tolist()}

    def quantiles(self, h):
        """Quantiles by the histogram, in the middle of a bucket, against those of the samples."""
        middle = lambda indexes: 2.0 ** ((np.array(indexes, float) - 0.5) / BUCKETS)
        values = np.concatenate([-middle(h["negative"]["indexes"])[::-1], [0.0], middle(h["positive"]["indexes"])])
        counts = np.cumsum(h["negative"]["counts"][::-1] + [h["zero"]] + h["positive"]["counts"])
        exact = np.sort(self.values)
        for q in (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999):
            rank = max(1, math.ceil(q * len(exact)))
            got, want = values[np.searchsorted(counts, rank)], exact[rank - 1]
            if not abs(got - want) <= QUANTILE_BOUND * abs(want) + LEAST_NORMAL:
                yield f"histogram: quantile {q} is {got!r}, want {want!r}"

    def worst(self, mean):
        """The worst seeds, each with the first sample that is its worst. Without a direction they are those
        farthest from the mean, which is the rollup's own: a rounding of it would change the order."""
        greatest, least = self.extremes(1), self.extremes(-1)
        if self.direction == "lower_is_better":
            ranked = [(-value, seed, value, offset) for seed, (value, offset) in greatest.items()]
        elif self.direction == "higher_is_better":
            ranked = [(value, seed, value, offset) for seed, (value, offset) in least.items()]
        else:
            ranked = [min((Fraction(mean) - Fraction(greatest[seed][0]), seed, 0, *greatest[seed]),
                          (Fraction(least[seed][0]) - Fraction(mean), seed, 1, *least[seed])) for seed in greatest]
        return [{"seed_id": int(r[1]), "value": float(r[-2]), "offset": int(r[-1])} for r in sorted(ranked)[: self.worst_seeds]]

    def extremes(self, sign):
        """By seed the greatest value, or with sign -1 the least, and the offset of the first frame that has it."""
        order = np.lexsort((self.offsets, -sign * self.values, self.seeds))
        seeds, first = np.unique(self.seeds[order], return_index=True)
        at = order[first]
        return {int(seed): (float(self.values[i]), int(self.offsets[i])) for seed, i in zip(seeds, at)}


def content_hash(group, r):
    """The first eight bytes of the SHA-256 of all else, as in decision 0004. Its second part came with reducer 2."""
    whole = lambda *values: b"".join(struct.pack(">q", v) for v in values)
    floats = lambda *values: b"".join(struct.pack(">d", v) for v in values)
    text = lambda s: whole(len(s)) + s.encode()
    buckets = lambda b: whole(len(b["indexes"]), *b["indexes"], len(b["counts"]), *b["counts"])
    form = whole(("health", "performance").index(group)) + text(r["run_id"]) + text(r["layer_id"]) + text(r["timeline"])
    form += whole(*(r[f] for f in ("window_start", "window_end", "trigger_offset", "trigger_index", "watermark", "first_offset",
                                   "last_offset", "frames", "readings", "duplicates", "generation")))
    form += whole(r.get("seeds_seen", 0), r.get("seeds_active", 0), r.get("delay_micros", 0), *r.get("seeds_by_state", [0] * STATES))
    form += floats(*(r.get(f, 0.0) for f in ("frames_per_second", "readings_per_second", "steps_per_second")))
    form += whole(len(r["metrics"]))
    for m in r["metrics"]:
        h = m["histogram"]
        form += text(m["name"]) + whole(m["count"], m["not_measured"], m["infinite"])
        form += floats(*(m[f] for f in ("sum", "min", "max", "mean", "m2")))
        form += whole(h["zero"]) + buckets(h["positive"]) + buckets(h["negative"]) + whole(len(m["worst"]))
        form += b"".join(whole(w["seed_id"]) + floats(w["value"]) for w in m["worst"])
    form += whole(r["reducer"]) + r["catalogue"] + whole(r["window_kind"], r["window_hop_micros"], r.get("steps", 0), r.get("step_micros", 0))
    for m in r["metrics"]:
        form += whole(m["not_measured_active"], *(w["offset"] for w in m["worst"]))
    return hashlib.sha256(form).digest()[:8]


def differences(group, got, want, metrics):
    for field, value in want.items():
        if got[field] != value:
            yield f"{field}: {got[field]!r}, want {value!r}"
    names = [m["name"] for m in got["metrics"]]
    if names != [m.name for m in metrics]:
        yield f"metrics: {names}, want {[m.name for m in metrics]}"
    else:
        for of, samples in zip(got["metrics"], metrics):
            yield from (f"{samples.name}.{d}" for d in samples.differences(of))
    if got["content_hash"] != content_hash(group, got):
        yield "content_hash: is not that of the content"
    if unknown := got.keys() - want.keys() - {"metrics", "content_hash"}:
        yield f"fields that are not compared: {unknown}"


class Schema:
    def __init__(self, path):
        plain = lambda node: (
            {k: plain(v) for k, v in node.items() if k != "logicalType"} if isinstance(node, dict)
            else [plain(v) for v in node] if isinstance(node, list) else node)
        self.schema = fastavro.parse_schema(plain(json.loads(path.read_text())))

    def read(self, payload):
        if payload[:2] != b"\xc3\x01":
            raise ValueError("no single-object encoding")
        return fastavro.schemaless_reader(io.BytesIO(payload[10:]), self.schema, None)


def lines(path):
    with path.open() as f:
        for line in f:
            entry = json.loads(line)
            entry["value"] = base64.b64decode(entry.get("value") or "")
            yield entry


def fold(directory, schema, incarnation, configuration):
    settings = json.loads((directory / "settings.json").read_text())
    partitions = {}
    for record in lines(directory / "log.jsonl"):
        partition = partitions.setdefault(record["partition"], Partition(settings))
        frame = None
        if record["kind"] == "configuration/incarnation-1":
            partition.begin(incarnation.read(record["value"]))
            continue
        if record["kind"] == "configuration/1":
            partition.configure(record, configuration.read(record["value"]))
            continue
        if record["kind"] == "":
            frame = schema.read(record["value"])
            frame["body"] = record["value"][10:]
        elif record["kind"] != "tick/1":
            raise ValueError(f"the log has a record of kind {record['kind']}")
        partition.fold(record, frame)
    return partitions


def of_group(partition, group):
    return [(fields, metrics) for g, fields, metrics in partition.expected if g == group]


def compare(path, schemas, partitions):
    got = {}
    for entry in lines(path):
        got.setdefault((entry["group"], entry["partition"]), []).append(schemas[entry["group"]].read(entry["value"]))
    for number, p in partitions.items():
        for group in schemas:
            want, emitted = of_group(p, group), got.pop((group, number), [])
            if len(emitted) != len(want):
                yield f"partition {number}: {len(emitted)} rollups of {group}, want {len(want)}"
            for rollup, (fields, metrics) in zip(emitted, want):
                where = f"{group} of {fields['run_id']} {fields['layer_id']} at {fields['window_start']}: "
                yield from (where + d for d in differences(group, rollup, fields, metrics))
    yield from (f"{group} of partition {n}, which has no record" for group, n in got)


def compare_spoiled(entry, schemas, partitions):
    group = entry["group"]
    want = of_group(partitions[entry["partition"]], group)[entry["place"]]
    return list(differences(group, schemas[group].read(entry["value"]), *want))


def compare_sides(directory, partitions):
    got = sorted((e["side"], e["partition"], e["offset"]) for e in lines(directory / "side.jsonl"))
    want = sorted((v, n, o) for n, p in partitions.items() for o, v in p.verdicts.items() if v not in ("folded", "duplicate"))
    if got != want:
        yield f"side records {got}, want {want}"


def main(directory, sources):
    schemas = {"health": Schema(sources / "layer_health.v2.avsc"), "performance": Schema(sources / "layer_performance.v2.avsc")}
    of_log = (Schema(sources / name) for name in ("seed_metrics.v1.avsc", "incarnation_start.v1.avsc", "window_configuration.v3.avsc"))
    partitions = fold(directory, *of_log)
    verdicts = [v for p in partitions.values() for v in p.verdicts.values()]
    samples = [m for p in partitions.values() for _, _, metrics in p.expected for m in metrics]
    seen = {v: verdicts.count(v) for v in ("folded", "duplicate", "late", "quarantine")} | {
        "rollups": sum(len(p.expected) for p in partitions.values()),
        "samples": sum(len(m.values) for m in samples),
        "not_measured": sum(m.not_measured for m in samples),
        "not_measured_active": sum(m.not_measured_active for m in samples),
        "steps": sum(fields.get("steps", 0) for p in partitions.values() for _, fields, _ in p.expected),
        "infinite": sum(m.infinite for m in samples),
        "negative": sum(int((m.values < 0).sum()) for m in samples),
        "zeros": sum(int((m.values == 0).sum()) for m in samples),
        "denormal": sum(int(((m.values != 0) & (abs(m.values) < LEAST_NORMAL)).sum()) for m in samples),
        "empty": sum(len(m.values) == 0 for m in samples),
    }
    json.dump({
        "seen": seen,
        "differences": [*compare(directory / "rollups.jsonl", schemas, partitions), *compare_sides(directory, partitions)],
        "spoiled": {e["field"]: compare_spoiled(e, schemas, partitions) for e in lines(directory / "spoiled.jsonl")},
    }, sys.stdout)


if __name__ == "__main__":
    main(*map(pathlib.Path, sys.argv[1:]))
