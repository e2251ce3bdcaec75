"""Recordings, and frames sent live."""

import shutil
import ssl
import subprocess
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import fastavro
import numpy as np
import pytest

import contract
import describe
import live
import recorder
import train
from lifecycle import State
from training import Frame, Tensor


def frame(layer: str = "enc.0", tensors: list[Tensor] | None = None) -> Frame:
    columns = {"blend": np.array([np.nan, 0.5], dtype=np.float32)}
    return Frame(layer, 30, [State.DORMANT, State.GRAFTING], columns, tensors or [])


class Ingest(ThreadingHTTPServer):
    """Stands for ingest: answers as told, then 200, and keeps what it takes."""

    def __init__(self, *answers: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = list(answers)
        self.bodies: list[bytes] = []
        self.authorizations: list[str | None] = []
        self.gate = threading.Event()
        self.gate.set()
        self.thread = threading.Thread(target=self.serve_forever)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"

    def __enter__(self) -> "Ingest":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.thread.join()
        self.server_close()

    def frames(self) -> list[dict]:
        found = []
        encoder = contract.SingleObject()
        for body in self.bodies:
            stream = BytesIO(body)
            while header := stream.read(10):
                assert header == encoder.header
                found.append(fastavro.schemaless_reader(stream, encoder.schema))
        return found


class Handler(BaseHTTPRequestHandler):
    server: Ingest

    def do_POST(self) -> None:
        assert (self.path, self.headers["Content-Type"]) == ("/v1/frames", "application/avro")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.gate.wait()
        self.server.authorizations.append(self.headers["Authorization"])
        status = self.server.answers.pop(0) if self.server.answers else 200
        if status == 200:
            self.server.bodies.append(body)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(b"states[1]: is ordinal 11" if status == 400 else b"")

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "PAUSE", 0.001)


def test_events_are_of_the_newest_version(tmp_path: Path):
    """A recording names the newest schema, whose new fields have their defaults."""
    newest = max(contract.SCHEMAS.glob("seed_event.v*.avsc"), key=lambda p: int(p.name.split(".v")[1].split(".")[0]))
    path = tmp_path / "events.avro"
    event = {"run_id": "r", "layer_id": "l", "seed_id": 1, "sequence": 2, "at": 1_700_000_000_000_000, "from_state": 0, "to_state": 1}
    with recorder.Recording(path, {}) as recording:
        recording.event(event)
    with path.open("rb") as file:
        (read,) = fastavro.reader(file)
    assert set(read) == {field["name"] for field in contract.load(newest.name)["fields"]}
    assert (read["seed_id"], read["command_id"], read["mark"]) == (1, "", "NORMAL")


def test_a_recording_reads_as_it_was_written(tmp_path: Path):
    weights = np.arange(6, dtype=np.float32).reshape(2, 3)
    with recorder.Recording(tmp_path / "r.avro", {"oona.seed": "1"}) as file:
        told = recorder.Recorder("run", recorder.Clock(), [file])
        for layer in ("enc.0", "enc.2", "enc.1"):
            told.frame(frame(layer, [Tensor("down", 1, weights.T)]))
    with (tmp_path / "r.avro").open("rb") as opened:
        reader = fastavro.reader(opened)
        assert reader.metadata["avro.codec"] == "deflate"
        records = list(reader)
    assert [(r["layer_id"], r["producer_id"], r["sequence"]) for r in records] == [
        ("enc.0", "rank-0", 0), ("enc.2", "rank-1", 0), ("enc.1", "rank-0", 1)]
    first = records[0]
    assert (first["run_id"], first["timeline"], first["step"], first["states"]) == ("run", "", 30, b"\x00\x03")
    assert np.isnan(first["metrics"][0]["values"][0]) and first["metrics"][0]["values"][1] == 0.5
    tensor = first["tensors"][0]
    assert (tensor["seed_id"], tensor["dtype"], tensor["shape"]) == (1, "float32", [3, 2])
    assert tensor["data"] == weights.T.tobytes()  # in C order, though it was a view


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        train.main(["--steps", "1", "--out", str(tmp_path / "missing" / "r.avro")])


def test_the_clock_is_stretched(monkeypatch: pytest.MonkeyPatch):
    elapsed = iter([0, 2_000_000_000, 3_000_000_000])
    monkeypatch.setattr(recorder.time, "perf_counter_ns", lambda: next(elapsed))
    clock = recorder.Clock(6)
    assert (clock.now() - clock.started, clock.now() - clock.started) == (12_000_000, 18_000_000)
    with pytest.raises(ValueError, match="above 0"):
        recorder.Clock(0)


def test_the_header_is_the_schemas_fingerprint():
    encoder = contract.SingleObject()
    assert (len(encoder.header), encoder.header[:2]) == (10, b"\xc3\x01")
    # The specification's own algorithm, bit by bit, over the canonical form.
    canonical = fastavro.schema.to_parsing_canonical_form(contract.load("seed_metrics.v1.avsc")).encode()
    empty = 0xC15D213AA4D7A795
    fingerprint = empty
    for byte in canonical:
        fingerprint ^= byte
        for _ in range(8):
            fingerprint = fingerprint >> 1 ^ (empty if fingerprint & 1 else 0)
    assert encoder.header[2:] == fingerprint.to_bytes(8, "little")


def test_live_frames_arrive_in_order():
    with Ingest() as ingest:
        sender = live.Live(ingest.url)
        told = recorder.Recorder("run", recorder.Clock(), [sender])
        for _ in range(200):
            told.frame(frame())
        sender.close()
        assert (sender.sent, sender.dropped) == (200, 0)
        assert [f["sequence"] for f in ingest.frames()] == list(range(200))
        assert len(ingest.bodies) < 200


def test_frames_are_sent_again_while_ingest_is_busy(impatient: None):
    with Ingest(503, 429) as ingest:
        sender = live.Live(ingest.url)
        recorder.Recorder("run", recorder.Clock(), [sender]).frame(frame())
        sender.close()
        assert (sender.sent, sender.dropped, len(ingest.frames())) == (1, 0, 1)


def test_what_is_refused_is_dropped_with_its_reason():
    with Ingest(400) as ingest:
        sender = live.Live(ingest.url)
        recorder.Recorder("run", recorder.Clock(), [sender]).frame(frame())
        sender.close()
        assert (sender.sent, sender.dropped) == (0, 1)
        assert sender.trouble == "400 states[1]: is ordinal 11"


def test_the_token_is_read_for_each_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    token = tmp_path / "token"
    monkeypatch.setenv(live.TOKEN_FILE, str(token))
    with Ingest() as ingest:
        for text in ("first\n", "second\n"):
            token.write_text(text)
            sender = live.Live(ingest.url)
            recorder.Recorder("run", recorder.Clock(), [sender]).frame(frame())
            sender.close()
        assert ingest.authorizations == ["Bearer first", "Bearer second"]


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the certificate")
def test_only_a_trusted_ingest_gets_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, impatient: None):
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-out", str(certificate), "-keyout", str(key)]
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *names, *files], check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    with Ingest() as ingest:
        ingest.socket = tls.wrap_socket(ingest.socket, server_side=True)
        url = ingest.url.replace("http:", "https:")
        for trusted in ("", str(certificate)):
            monkeypatch.setenv(live.CA_FILE, trusted)
            sender = live.Live(url)
            recorder.Recorder("run", recorder.Clock(), [sender]).frame(frame())
            sender.close()
            assert sender.sent == (1 if trusted else 0)
            if not trusted:
                assert "CERTIFICATE_VERIFY_FAILED" in sender.trouble


def test_training_does_not_wait_for_a_slow_ingest(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(live, "QUEUE", 10)
    with Ingest() as ingest:
        ingest.gate.clear()
        sender = live.Live(ingest.url)
        told = recorder.Recorder("run", recorder.Clock(), [sender])
        for _ in range(100):
            told.frame(frame())  # would hang if it waited: the gate opens below
        ingest.gate.set()
        sender.close()
        assert sender.dropped >= 100 - 10 - live.BATCH
        assert (sender.sent + sender.dropped, len(ingest.frames())) == (100, sender.sent)


def test_an_absent_ingest_costs_frames_and_an_exit_status(impatient: None, capsys: pytest.CaptureFixture[str]):
    with Ingest() as gone:
        url = gone.url
    assert train.main(["--steps", "20", "--post", url]) == 1
    assert "9 dropped: " in capsys.readouterr().out


def test_a_run_is_recorded_and_sent(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "r.avro"
    with Ingest() as ingest:
        assert train.main(["--steps", "100", "--out", str(path), "--post", ingest.url, "--run", "r"]) == 0
        sent = ingest.frames()
    content = describe.read(path)
    assert content.frames == {("rank-0", "enc.0"): 11, ("rank-0", "enc.1"): 11, ("rank-1", "enc.2"): 11}
    assert content.readings == 33 * 96
    assert content.samples + content.unmeasured == 33 * 96 * 8
    assert len(sent) == 33
    assert "33 frames sent, 0 dropped" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "complaint"), [
    (["--steps", "0"], "give at least 1"),
    (["--stretch", "0"], "give a number above 0"),
    (["--stretch", "2", "--post", "http://127.0.0.1:1"], "frames from the future"),
    (["--backend", "abacus"], "invalid choice"),
])
def test_mistakes_are_named(arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        train.main(arguments)
    assert complaint in capsys.readouterr().err


def test_the_recording_in_the_tree_is_what_its_note_says():
    testdata = contract.SCHEMAS.parents[1] / "testdata"
    content = describe.read(testdata / "digits.avro")
    assert describe.table(content) in (testdata / "digits.md").read_text()
    assert content.frames.total() > 1000 and len(content.frames) == 3
    assert content.largest_frame < 900_000 and content.large_tensors > 0
    assert 60 <= content.seconds <= 90
    assert Counter(to for _, to in content.events)[State.FOSSILIZED] > 0
