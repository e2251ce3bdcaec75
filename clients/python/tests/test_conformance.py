"""Compares the client with the conformance files in schemas/avro/conformance.

The tests need NumPy and the standard library. If fastavro is installed, it also
reads and writes the golden frames, events and ends of runs.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import re
import sys
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

HERE = Path(__file__).resolve()
SCHEMAS = HERE.parents[3] / "schemas" / "avro"
FILES = SCHEMAS / "conformance"
try:
    import oona_client
except ImportError:  # the package is not installed; `python3 -m unittest` runs the tests like this
    sys.path.insert(0, str(HERE.parents[1] / "src"))
    import oona_client
from oona_client import events, frames, wire

sys.path.append(str(HERE.parent))
from unzstd import unzstd

try:
    import fastavro
except ImportError:
    fastavro = None
    print(f"SKIPPED: {HERE.name} does not compare the client with fastavro, because it is not installed", file=sys.stderr)


def read(name: str) -> dict[str, Any]:
    content = json.loads((FILES / name).read_text(encoding="utf-8"))
    if content["version"] != 1:
        raise ValueError(f"{name} has version {content['version']}, and this test reads version 1")
    return content


def number(value: Any) -> float:
    """Return a number of the files. JSON cannot write all of them, so some are strings."""
    return float(value)  # it reads "NaN", "Infinity" and "-0"


def frame_of(fields: dict[str, Any]) -> dict[str, Any]:
    """Convert the fields of a frame to the types that the client takes."""
    frame = dict(fields)
    for name in ("producer_epoch", "sequence", "observed_at", "step"):
        frame[name] = int(frame[name])
    frame["states"] = bytes(frame["states"])
    with np.errstate(over="ignore"):
        frame["metrics"] = [
            {"name": m["name"], "values": np.array([number(v) for v in m["values"]]).astype(np.float32)} for m in frame["metrics"]
        ]
    frame["tensors"] = [
        {**t, "shape": [int(n) for n in t["shape"]], "data": data_of(t["data"])} for t in frame["tensors"]
    ]
    return frame


def data_of(data: Any) -> Any:
    if isinstance(data, str):
        return base64.b64decode(data)
    return {**data, "size": int(data["size"]), "sha256": bytes.fromhex(data["sha256"])}


INTEGERS = ("seed_id", "sequence", "at", "step", "from_state", "to_state", "session", "epoch", "journal_index",
            "trigger_position", "trigger_index", "incarnation", "producer_epoch")


def event_of(fields: dict[str, Any]) -> dict[str, Any]:
    """Convert the fields of an event to the types that the client takes."""
    event = {name: int(value) if name in INTEGERS else value for name, value in fields.items()}
    event["evidence"] = {name: number(value) for name, value in event["evidence"].items()}
    return event


def end_of(fields: dict[str, Any]) -> dict[str, Any]:
    """Convert the fields of the end of a run to the types that the client takes."""
    return {name: int(value) if name in INTEGERS else value for name, value in fields.items()}


class Encoding(unittest.TestCase):
    """The client encodes the fields in the files to the bytes in the files."""

    def test_frames(self) -> None:
        for case in read("frames.json")["frames"]:
            with self.subTest(case["name"]):
                self.assertEqual(frames.encode_frame(**frame_of(case["frame"])).hex(), case["avro"])

    def test_frames_that_are_refused(self) -> None:
        """The client refuses each faulty frame and names the field. It need not name the index or the metric."""
        found = 0
        for case in read("frames.json")["refused"]:
            if "frame" not in case:
                continue
            with self.subTest(case["name"]):
                with self.assertRaises(wire.InvalidFrame) as raised:
                    frames.encode_frame(**frame_of(case["frame"]))
                root = re.compile(r"\w+")
                self.assertEqual(root.match(raised.exception.field)[0], root.match(case["field"])[0])  # type: ignore[index]
                found += 1
        self.assertGreater(found, 20)

    def test_events(self) -> None:
        for case in read("events.json")["events"]:
            if case["schema"] != "seed_event.v2":
                continue
            with self.subTest(case["name"]):
                self.assertEqual(events.encode_event(**event_of(case["event"])).hex(), case["avro"])

    def test_events_that_are_refused(self) -> None:
        """The client refuses each faulty event. If ingest refused it instead, there would be a gap in the numbers of the seed's events."""
        found = 0
        for case in read("events.json")["refused"]:
            if "event" not in case:
                continue
            with self.subTest(case["name"]):
                with self.assertRaises(wire.InvalidFrame) as raised:
                    events.encode_event(**event_of(case["event"]))
                self.assertEqual(raised.exception.field, case["field"])
                found += 1
        self.assertGreater(found, 10)

    def test_ends(self) -> None:
        for case in read("ends.json")["ends"]:
            with self.subTest(case["name"]):
                self.assertEqual(events.encode_end(**end_of(case["end"])).hex(), case["avro"])

    def test_ends_that_are_refused(self) -> None:
        found = 0
        for case in read("ends.json")["refused"]:
            if "end" not in case:
                continue
            with self.subTest(case["name"]):
                with self.assertRaises(wire.InvalidFrame) as raised:
                    events.encode_end(**end_of(case["end"]))
                self.assertEqual(raised.exception.field, case["field"])
                found += 1
        self.assertGreater(found, 5)

    def test_every_state(self) -> None:
        ordinals = {state for case in read("frames.json")["frames"] for state in case["frame"]["states"]}
        self.assertEqual(ordinals, {int(state) for state in oona_client.State})


@unittest.skipIf(fastavro is None, "fastavro is not installed")
class Fastavro(unittest.TestCase):
    """fastavro, which shares no code with the client, writes the same bytes and reads the same values."""

    def check(self, schema: Any, case: dict[str, Any], native: dict[str, Any]) -> None:
        out = io.BytesIO()
        fastavro.schemaless_writer(out, schema, native)
        expected = bytes.fromhex(case["avro"])
        self.assertEqual(out.getvalue().hex(), expected[10:].hex())
        canonical = fastavro.schema.to_parsing_canonical_form(schema)
        self.assertEqual(expected[2:10].hex(), fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))
        rest = io.BytesIO(expected[10:])
        self.assertEqual(repr(fastavro.schemaless_reader(rest, schema, None)), repr(native))
        self.assertEqual(rest.read(), b"")

    def test_frames(self) -> None:
        schema = load("seed_metrics.v1")
        for case in read("frames.json")["frames"]:
            with self.subTest(case["name"]):
                frame = frame_of(case["frame"])
                for metric in frame["metrics"]:
                    metric["values"] = [float(v) for v in metric["values"]]
                self.check(schema, case, frame)

    def test_events(self) -> None:
        for case in read("events.json")["events"]:
            with self.subTest(case["name"]):
                self.check(load(case["schema"]), case, event_of(case["event"]))

    def test_ends(self) -> None:
        for case in read("ends.json")["ends"]:
            with self.subTest(case["name"]):
                self.check(load("run_end.v1"), case, end_of(case["end"]))

    def test_containers(self) -> None:
        golden = {case["name"]: bytes.fromhex(case["avro"]) for case in read("frames.json")["frames"]}
        schema = fastavro.schema.load_schema(str(SCHEMAS / "seed_metrics.v1.avsc"))  # with this schema, times are read as dates
        for case in read("bodies.json")["bodies"]:
            codec = case["as"].partition("/")[2]
            if codec not in ("null", "deflate"):  # fastavro needs more packages for the others
                continue
            with self.subTest(case["name"]):
                found = []
                for frame in fastavro.reader(io.BytesIO(bytes.fromhex(case["bytes"]))):
                    out = io.BytesIO()
                    fastavro.schemaless_writer(out, schema, frame)
                    found.append(out.getvalue())
                self.assertEqual(found, [golden[part["frame"]][10:] for part in case["made_of"]])


def load(name: str) -> Any:
    """Return a schema without its logical types, so that times are integers."""
    schema = json.loads((SCHEMAS / f"{name}.avsc").read_text(encoding="utf-8"))
    for field in schema["fields"]:
        if isinstance(field["type"], dict) and "logicalType" in field["type"]:
            field["type"] = field["type"]["type"]
    return fastavro.parse_schema(schema)


class Reader:
    """Reads the fields that identify a record."""

    def __init__(self, body: bytes) -> None:
        self.body, self.at = body, 0

    def long(self) -> int:
        n = shift = 0
        while True:
            byte = self.body[self.at]
            self.at += 1
            n |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return (n >> 1) ^ -(n & 1)

    def text(self) -> None:
        n = self.long()
        self.at += n


class Record(NamedTuple):
    """A record that the client has sent."""

    step: int  # the test numbers its records with this
    sequence: int
    seeds: tuple[int, ...]
    body: bytes


def records_of(body: bytes) -> list[Record]:
    """Split a body into its records."""
    header = body[:10]
    if header not in (frames.FRAME_HEADER, events.EVENT_HEADER, events.RUN_END_HEADER):
        raise ValueError(f"the body begins with {header.hex()}")
    found = []
    for record in body.split(header)[1:]:
        reader = Reader(record)
        reader.text()
        if header == events.RUN_END_HEADER:
            _, step = reader.long(), reader.long()  # time, step
            found.append(Record(step, 0, (0,), record))
            continue
        reader.text()
        if header == frames.FRAME_HEADER:
            reader.text()
            reader.text()
        _, sequence, _, step = (reader.long() for _ in range(4))  # producer_epoch or seed_id, sequence, time, step
        seeds = tuple(reader.long() for _ in range(reader.long())) if header == frames.FRAME_HEADER else (0,)
        found.append(Record(step, sequence, seeds, record))
    return found


class Request(NamedTuple):
    """A request and its answer."""

    at: float  # seconds of the monotonic clock
    status: int  # 0: the connection was closed, or the answer is not from ingest
    records: list[Record]


class Scripted:
    """A server that answers as the rules of a case say."""

    def __init__(self, rules: list[dict[str, Any]]) -> None:
        self.rules = rules
        self.lock = threading.Lock()
        self.requests: list[Request] = []
        self.faults: list[str] = []
        self.sent_at = 0
        script = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                answer = script.answer(self.path, self.headers, body)
                if answer is None:
                    self.close_connection = True
                    return
                status, headers, text = answer
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def answer(self, path: str, headers: Any, body: bytes) -> tuple[int, dict[str, str], bytes] | None:
        coding = headers.get("Content-Encoding", "")
        if coding == "gzip":
            body = gzip.decompress(body)
        elif coding == "zstd":
            body = unzstd(body)
        records = records_of(body)
        with self.lock:
            if path != ("/v1/frames" if body.startswith(frames.FRAME_HEADER) else "/v1/events"):
                self.faults.append(f"records were sent to {path}")
            sent = headers.get("Oona-Sent-At")
            if sent is not None:
                if abs(int(sent) / 1e6 - time.time()) > 60 or int(sent) <= self.sent_at:
                    self.faults.append(f"Oona-Sent-At is {sent}, which is not the time of this attempt. The previous attempt had {self.sent_at}")
                self.sent_at = int(sent)
            rule = self.rule(len(self.requests), records, coding)
            elsewhere = "text" in rule or rule.get("json", {}).get("accepted", len(records)) != len(records)  # not an answer of ingest
            self.requests.append(Request(time.monotonic(), 0 if elsewhere else rule.get("status", 0), records))
        if rule.get("close"):
            return None
        return reply(rule, len(records))

    def rule(self, n: int, records: list[Record], coding: str) -> dict[str, Any]:
        """Return the answer of the first rule that applies. The string "index" in it stands for the index of the record that the rule looks for."""
        steps, seeds = [record.step for record in records], max(len(record.seeds) for record in records)
        for rule in self.rules:
            when = rule.get("when", {})
            if "before" in when and n >= when["before"] or "has" in when and when["has"] not in steps:
                continue
            if "more" in when and len(steps) <= when["more"] or "coded" in when and not coding:
                continue
            if "seeds" in when and seeds <= when["seeds"]:
                continue
            text = json.dumps(rule["answer"])
            if "has" in when:
                text = text.replace('"index"', str(steps.index(when["has"])))
            return json.loads(text)
        return {"status": 200}


def reply(answer: dict[str, Any], count: int) -> tuple[int, dict[str, str], bytes]:
    headers = dict(answer.get("headers", {}))
    status = answer["status"]
    if "text" in answer:
        return status, {**headers, "Content-Type": "text/html"}, answer["text"].encode()
    if problem := answer.get("problem"):
        text = {**problem, "type": "urn:oona:problem:" + problem["type"], "title": "T", "status": status, "detail": "D"}
        return status, {**headers, "Content-Type": "application/problem+json"}, json.dumps(text).encode()
    text = {"accepted": count, **answer.get("json", {})}
    return status, {**headers, "Content-Type": "application/json"}, json.dumps(text).encode()


class Behaviour(unittest.TestCase):
    """After each answer, the client does what the file says."""

    def test_behaviour(self) -> None:
        cases = read("behaviour.json")["behaviours"]
        with ThreadPoolExecutor(8) as pool:
            for case, faults in zip(cases, pool.map(self.run_case, cases)):
                with self.subTest(case["name"]):
                    self.assertEqual(faults, [])

    def run_case(self, case: dict[str, Any]) -> list[str]:
        """Run the client against a server and return the faults."""
        server = Scripted(case["server"])
        kind, count, seeds = case.get("kind", "frames"), case["records"], case.get("seeds", 4)
        client = oona_client.Client(server.url, "digits", producer="trainer-0", linger=60.0, timeout=100.0, strict=True, sender="thread")
        try:
            for i in range(count):
                if kind == "frames":
                    client.frame("enc.1", i, np.arange(seeds), oona_client.State.TRAINING, {"loss": np.zeros(seeds, np.float32)})
                elif kind == "ends":
                    client.end(step=i)
                else:
                    client.event("enc.1", 3, oona_client.State.TRAINING, oona_client.State.TRAINING, step=i)
            flushed = client.flush(300)
            time.sleep(0.1)  # the client must not send anything now
            counts = client.stats().frames if kind == "frames" else client.stats().events
        finally:
            client.close(0.1)
            server.close()
        faults = server.faults + wrong(case["client"], server.requests)
        if not flushed:
            faults.append("ingest did not answer for all records within five minutes")
        expected = case["client"]
        for name, n in (("accepted", len(expected["accepted"])), ("rejected", expected.get("rejected", 0)), ("aside", expected.get("aside", 0))):
            if getattr(counts, name) != n and "readings" not in expected:  # then the frame was split, and each part counts
                faults.append(f"the client has counted {getattr(counts, name)} as {name}, expected {n}")
        return faults


def wrong(expected: dict[str, Any], requests: list[Request]) -> list[str]:
    """Return the faults that the requests have."""
    faults = []
    accepted = [record for request in requests if request.status in (200, 202) for record in request.records]
    steps = sorted(record.step for record in accepted)
    if readings := expected.get("readings"):
        steps = sorted(set(steps))
        if (n := sum(len(record.seeds) for record in accepted)) != readings:
            faults.append(f"the server has accepted {n} readings, expected {readings}")
        if len({(record.step, seed) for record in accepted for seed in record.seeds}) != n:
            faults.append("the server has accepted the reading of a seed twice")
    if steps != expected["accepted"]:
        faults.append(f"the server has accepted the records {steps}, expected each of {expected['accepted']} once")
    bodies: dict[tuple[int, int], bytes] = {}
    for request in requests:
        for record in request.records:
            part = record.sequence if readings else 0  # the parts of a frame have sequence numbers of their own
            if bodies.setdefault((record.step, part), record.body) != record.body:
                faults.append(f"when record {record.step} was sent again, its bytes were different")
    if pause := expected.get("pause"):
        last = max(i for i, request in enumerate(requests) if request.status not in (200, 202))
        if (took := requests[last + 1].at - requests[last].at) < pause:
            faults.append(f"the client has sent again after {took:.3f} s, expected at least {pause} s")
    return faults


if __name__ == "__main__":
    unittest.main()
