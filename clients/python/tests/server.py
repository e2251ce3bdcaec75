"""An ingest for tests. It has real sockets, and a script gives its answers."""

from __future__ import annotations

import gzip
import io
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fastavro

from unzstd import unzstd

SCHEMAS = Path(__file__).resolve().parents[3] / "schemas" / "avro"
FRAME = fastavro.schema.load_schema(str(SCHEMAS / "seed_metrics.v1.avsc"))
EVENT = fastavro.schema.load_schema(str(SCHEMAS / "seed_event.v2.avsc"))
RUN_END = fastavro.schema.load_schema(str(SCHEMAS / "run_end.v1.avsc"))
HEADERS = {
    b"\xc3\x01" + bytes.fromhex(fastavro.schema.fingerprint(fastavro.schema.to_parsing_canonical_form(s), "CRC-64-AVRO")): s
    for s in (FRAME, EVENT, RUN_END)
}


def decode(body: bytes) -> list[dict[str, Any]]:
    """Return the frames, or the events and ends of runs, of a body."""
    file, found = io.BytesIO(body), []
    while header := file.read(10):
        found.append(fastavro.schemaless_reader(file, HEADERS[header], None))
    return found


def until(condition: Callable[[], Any], seconds: float = 300.0) -> None:
    """Wait for a condition. The limit is so high because a busy machine may stop for a minute."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not become true"
        time.sleep(0.01)


@dataclass
class Request:
    """A request that has arrived."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float = field(default_factory=time.monotonic)

    @property
    def coding(self) -> str:
        return self.headers.get("content-encoding", "")

    @property
    def records(self) -> list[dict[str, Any]]:
        if self.coding == "gzip":
            return decode(gzip.decompress(self.body))
        return decode(unzstd(self.body) if self.coding == "zstd" else self.body)


Reply = tuple[int, dict[str, Any] | str, dict[str, str]]  # a string is sent as it is
Script = Callable[[int, Request], Any]


def ok(_: int, request: Request) -> Reply:
    return 200, {"accepted": len(request.records)}, {}


def refuses_step_3(n: int, request: Request) -> Reply:
    """Refuse requests with a frame of step 3, and say which frame it is."""
    for i, record in enumerate(request.records):
        if record["step"] == 3:
            return problem(400, "invalid", frame=i, field="step")
    return ok(n, request)


def problem(status: int, reason: str, *, retry: int | None = None, **more: Any) -> Reply:
    body = {"type": f"urn:oona:problem:{reason}", "title": reason, "status": status, "detail": f"because of {reason}", **more}
    return status, body, {} if retry is None else {"Retry-After": str(retry)}


RESET, SILENT = "reset", "silent"  # instead of a reply


class Server:
    """Answers what the script returns. accepted has the records of requests that were answered with 200 or 202."""

    def __init__(self, script: Script = ok, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.script = script
        self._tls = tls
        self.requests: list[Request] = []
        self.accepted: list[dict[str, Any]] = []
        self.connections = 0
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listener.close()
        with self._lock:
            for connection in self._open:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def forget(self) -> None:
        """Close the connections."""
        with self._lock:
            for connection in self._open:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            with self._lock:
                self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        if self._tls is not None:
            try:
                connection = self._tls.wrap_socket(connection, server_side=True)
            except OSError:
                return
        with connection, connection.makefile("rb") as file:
            try:
                while self._one(connection, file):
                    pass
            except (OSError, ValueError):
                pass
        with self._lock:
            self._open.discard(connection)

    def _one(self, connection: socket.socket, file: Any) -> bool:
        line = file.readline()
        if not line:
            return False
        headers = {}
        while (header := file.readline().decode().strip()):
            name, _, value = header.partition(":")
            headers[name.lower()] = value.strip()
        body = file.read(int(headers.get("content-length", 0)))
        request = Request(line.split()[1].decode(), headers, body)
        with self._lock:
            n = len(self.requests)
            self.requests.append(request)
        reply = self.script(n, request)
        if reply == RESET:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        if reply == SILENT:
            time.sleep(30)
            return False
        status, answer, more = reply
        raw = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        if status in (200, 202):
            with self._lock:
                self.accepted += request.records
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(raw)}", *(f"{k}: {v}" for k, v in more.items()), "", ""]
        connection.sendall("\r\n".join(lines).encode() + raw)
        return more.get("Connection") != "close"
