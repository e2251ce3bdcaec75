"""A run that is sent live: to a stand-in, and to a real ingest that is down for a while."""

import gzip
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import fastavro
import pytest

import contract
import live
import train

OONA, INGEST = os.environ.get("OONA_BINARY", ""), os.environ.get("OONA_INGEST_BINARY", "")
OUTAGE = float(os.environ.get("OONA_OUTAGE_SECONDS", "5"))


class Ingest(ThreadingHTTPServer):
    """Stands for ingest: answers with a status, and keeps what it takes."""

    def __init__(self, status: int = 200) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status = status
        self.records: dict[str, list[dict]] = {"/v1/frames": [], "/v1/events": []}
        self.authorizations: set[str | None] = set()
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05})

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


SCHEMAS = [fastavro.schema.load_schema(str(contract.SCHEMAS / name)) for name in ("seed_metrics.v1.avsc", "seed_event.v2.avsc", "run_end.v1.avsc")]
HEADERS = {b"\xc3\x01" + bytes.fromhex(fastavro.schema.fingerprint(fastavro.schema.to_parsing_canonical_form(s), "CRC-64-AVRO")): s for s in SCHEMAS}


def unpack(body: bytes, coding: str | None) -> bytes:
    """Undo a content coding. The client chooses zstd where Python or an installed package has it."""
    if coding == "zstd":
        try:
            from compression import zstd
        except ImportError:
            try:
                from backports import zstd
            except ImportError:
                import zstandard

                return zstandard.ZstdDecompressor().decompressobj().decompress(body)
        return zstd.decompress(body)
    return gzip.decompress(body) if coding == "gzip" else body


class Handler(BaseHTTPRequestHandler):
    server: Ingest
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        body = unpack(body, self.headers["Content-Encoding"])
        self.server.authorizations.add(self.headers["Authorization"])
        stream, found = BytesIO(body), []
        while header := stream.read(10):
            found.append(fastavro.schemaless_reader(stream, HEADERS[header], None))
        answer = {"accepted": len(found)}
        if self.server.status == 200:
            self.server.records[self.path] += found
        else:
            answer = {"type": "urn:oona:problem:invalid", "detail": "states[1] is ordinal 11", "frame": 0, "event": 0}
        text = json.dumps(answer).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Quiet."""


def recorded(path: Path) -> tuple[list[dict], list[dict]]:
    """Return the frames and the events of a recording."""
    with path.open("rb") as file:
        records = list(fastavro.reader(file))
    return [r for r in records if "metrics" in r], [r for r in records if "to_state" in r]


def without(record: dict, *names: str) -> str:
    """Return a record without what differs between a recording and what is sent."""
    return repr({name: value for name, value in record.items() if name not in names})


def test_what_is_sent_is_what_is_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "r.avro"
    with Ingest() as ingest:
        assert train.main(["--steps", "3000", "--out", str(path), "--post", ingest.url, "--run", "r"]) == 0
    frames, events = recorded(path)
    assert len(frames) > 500 and len(events) > 10
    own = ("producer_id", "producer_epoch", "sequence", "observed_at")
    assert [without(f, *own) for f in ingest.records["/v1/frames"]] == [without(f, *own) for f in frames]
    own = ("producer_id", "producer_epoch", "at")
    *told, end = ingest.records["/v1/events"]
    assert [without(e, *own) for e in told] == [without(e, *own) for e in events]
    assert (end["run_id"], end["outcome"], end["reason"], end["step"]) == ("r", "COMPLETED", "", frames[-1]["step"])
    assert end["at"] >= ingest.records["/v1/frames"][-1]["observed_at"]
    assert f"{len(frames)} frames sent\n{len(events) + 1} events sent, with the end of the run" in capsys.readouterr().out


@pytest.mark.parametrize(("failure", "outcome"), [(RuntimeError("it fails"), "FAILED"), (KeyboardInterrupt(), "STOPPED")])
def test_a_training_that_does_not_get_to_its_end_says_so(monkeypatch: pytest.MonkeyPatch, failure: BaseException, outcome: str):
    def run(_: object, sink: train.Sinks) -> None:
        raise failure

    monkeypatch.setattr(train.Training, "run", run)
    with Ingest() as ingest, pytest.raises(type(failure)):
        train.main(["--steps", "20", "--post", ingest.url])
    end, = ingest.records["/v1/events"]
    assert (end["outcome"], end["reason"]) == (outcome, repr(failure))


def test_what_is_refused_costs_an_exit_status(capsys: pytest.CaptureFixture[str]):
    with Ingest(400) as ingest:
        assert train.main(["--steps", "20", "--post", ingest.url]) == 1
    assert "0 frames sent, 9 not: 9 refused" in capsys.readouterr().out


def test_an_absent_ingest_costs_frames_unless_there_is_a_spool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(live, "PATIENCE", 0.5)
    with Ingest() as ingest:
        url = ingest.url
    assert train.main(["--steps", "20", "--post", url]) == 1
    assert "9 lost" in capsys.readouterr().out
    assert train.main(["--steps", "20", "--post", url, "--spool", str(tmp_path), "--run", "first"]) == 0
    assert "9 in the spool" in capsys.readouterr().out
    monkeypatch.setattr(live, "PATIENCE", 300.0)
    with Ingest() as ingest:
        assert train.main(["--steps", "20", "--post", ingest.url, "--spool", str(tmp_path), "--run", "second"]) == 0
    runs = [frame["run_id"] for frame in ingest.records["/v1/frames"]]
    assert (runs.count("first"), runs.count("second")) == (9, 9)


def test_the_token_comes_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    token = tmp_path / "token"
    token.write_text("secret\n")
    monkeypatch.setenv(live.TOKEN_FILE, str(token))
    with Ingest() as ingest:
        assert train.main(["--steps", "20", "--post", ingest.url]) == 0
    assert ingest.authorizations == {"Bearer secret"}


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the certificate")
def test_only_a_trusted_ingest_gets_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-out", str(certificate), "-keyout", str(key)]
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *names, *files], check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    with Ingest() as ingest:
        ingest.socket = tls.wrap_socket(ingest.socket, server_side=True, do_handshake_on_connect=False)
        url = ingest.url.replace("http:", "https:")
        for trusted in ("", str(certificate)):
            monkeypatch.setenv(live.CA_FILE, trusted)
            monkeypatch.setattr(live, "PATIENCE", 300.0 if trusted else 2.0)
            assert train.main(["--steps", "20", "--post", url]) == (0 if trusted else 1)
            assert len(ingest.records["/v1/frames"]) == (9 if trusted else 0)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def start_ingest(broker: str, port: int) -> subprocess.Popen:
    """Start an ingest, and return when it takes frames."""
    process = subprocess.Popen(
        [INGEST, f"--brokers={broker}", f"--listen=127.0.0.1:{port}", "--admin-address=127.0.0.1:0", "--instance=trial"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    text = ""
    for line in process.stderr:
        text += line
        if "ingest accepts frames" in line:
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return process
    raise AssertionError(text)


def on_bus(broker: str, topic: str, run: str) -> list[dict]:
    """Return the records of a run."""
    done = subprocess.run([OONA, "watch", topic, "--brokers", broker, "--until", "now", "--run", run, "--json"],
                          capture_output=True, text=True, timeout=300, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.skipif(not (OONA and INGEST), reason="OONA_BINARY and OONA_INGEST_BINARY are not set; `make test-digits` builds and sets them")
def test_nothing_is_lost_while_ingest_is_down(tmp_path: Path):
    """Ingest is killed during the training, and comes back after OONA_OUTAGE_SECONDS."""
    ports = [f"--{name}-port=0" for name in ("ingest", "admin", "tensors", "broker")]
    demo = subprocess.Popen([OONA, "demo", "--synthetic=layers=1,seeds=1,rate=1", "--for=1h", *ports],
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    running = [demo]
    try:
        text = ""
        while not (found := re.search(r"broker +(\S+)", text)):
            line = demo.stdout.readline()
            assert line, text
            text += line
        threading.Thread(target=demo.stdout.read, daemon=True).start()
        broker, port, path = found[1], free_port(), tmp_path / "r.avro"
        running.append(ingest := start_ingest(broker, port))

        def outage() -> None:
            time.sleep(2)
            ingest.send_signal(signal.SIGKILL)
            time.sleep(OUTAGE)
            running.append(start_ingest(broker, port))

        away = threading.Thread(target=outage)
        away.start()
        status = train.main(["--steps", "4000", "--out", str(path), "--post", f"http://127.0.0.1:{port}", "--run", "outage"])
        away.join()
        assert status == 0
        frames, events = recorded(path)
        sent = on_bus(broker, "kasmina.telemetry.seed.metrics", "outage")
        assert len(sent) >= len(frames)  # what ingest had when it was killed may be there twice
        found = [record["frame"] for record in sent]
        assert {(f["layer_id"], f["step"]) for f in found} == {(f["layer_id"], f["step"]) for f in frames}
        assert len({f["sequence"] for f in found}) == len(frames)
        kinds = ("germinated", "grafted", "fossilized", "culled", "transitioned")
        told = [record["event"] for kind in kinds for record in on_bus(broker, f"kasmina.events.seed.{kind}", "outage")]
        identities = [{(e["layer_id"], e["seed_id"], e["sequence"]) for e in all_events} for all_events in (told, events)]
        assert identities[0] == identities[1] and len(events) > 10
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(300)
