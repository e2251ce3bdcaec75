"""Sends frames to a running ingest during the training."""

from __future__ import annotations

import os
import queue
import ssl
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from contract import SingleObject

QUEUE = 256  # frames that may wait
BATCH = 64  # frames a request
ATTEMPTS = 5
PAUSE = 0.2  # seconds after a first failure; doubled after each
TIMEOUT = 10.0  # seconds for a request
TOKEN_FILE = "OONA_TOKEN_FILE"  # variable: the file of the token, for an ingest that asks for one
CA_FILE = "OONA_CA_FILE"  # variable: PEM file of the authorities of ingest's certificate; default: the system's


def headers() -> dict[str, str]:
    """Return the headers of a request. The token is read each time, as it may be changed."""
    fields = {"Content-Type": "application/avro"}
    if file := os.environ.get(TOKEN_FILE):
        fields["Authorization"] = "Bearer " + Path(file).read_text().strip()
    return fields


class Live:
    """Posts frames from a queue of its own thread. Training never waits for it.

    A frame that finds the queue full, or that ingest did not take after some
    attempts, is dropped and counted. Events have no endpoint yet.
    """

    def __init__(self, url: str) -> None:
        self.endpoint = url.rstrip("/") + "/v1/frames"
        self.sent = self.dropped = 0
        self.trouble = ""  # the last refusal or failure
        self._tls = ssl.create_default_context(cafile=os.environ.get(CA_FILE) or None)
        self._encoder = SingleObject()
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue(QUEUE)
        self._thread = threading.Thread(target=self._run, name="live")
        self._thread.start()

    def frame(self, record: dict[str, Any]) -> None:
        try:
            self._queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1
            self.trouble = f"{QUEUE} frames were waiting"

    def event(self, record: dict[str, Any]) -> None:
        """Events stay in the recording."""

    def close(self) -> None:
        """Send what is queued, and end."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        more = True
        while more:
            batch, more = self._take()
            if batch and not self._post(b"".join(map(self._encoder.encode, batch))):
                self.dropped += len(batch)
            else:
                self.sent += len(batch)

    def _take(self) -> tuple[list[dict[str, Any]], bool]:
        """Return the frames that wait, at least one, and whether more may come."""
        batch: list[dict[str, Any]] = []
        record = self._queue.get()
        while record is not None:
            batch.append(record)
            if len(batch) == BATCH:
                return batch, True
            try:
                record = self._queue.get_nowait()
            except queue.Empty:
                return batch, True
        return batch, False

    def _post(self, body: bytes) -> bool:
        """Post the frames, again where that can help: the same frames twice are folded once."""
        for attempt in range(ATTEMPTS):
            try:
                request = urllib.request.Request(self.endpoint, body, headers())
                with urllib.request.urlopen(request, timeout=TIMEOUT, context=self._tls):
                    return True
            except urllib.error.HTTPError as refusal:
                self.trouble = f"{refusal.code} {refusal.read(1000).decode(errors='replace')}"
                if refusal.code not in (429, 503):
                    return False
            except OSError as failure:
                self.trouble = str(failure)
            time.sleep(PAUSE * 2**attempt)
        return False
