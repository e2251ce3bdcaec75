"""Posts bodies to one of several addresses of ingest."""

from __future__ import annotations

import email.utils
import http.client
import json
import socket
import ssl
import time
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from oona_client.version import VERSION

MAX_ANSWER = 1 << 20


class Unreachable(Exception):
    """There was no answer: ingest may have the frames, or not."""


@dataclass(frozen=True)
class Answer:
    """What ingest answered."""

    status: int
    body: Mapping[str, Any] = field(default_factory=dict)
    retry_after: float | None = None  # seconds

    @property
    def reason(self) -> str:
        """The kind of problem, in one word."""
        kind = str(self.body.get("type", ""))
        return kind.removeprefix("urn:oona:problem:") if kind.startswith("urn:oona:problem:") else ""

    @property
    def detail(self) -> str:
        return str(self.body.get("detail") or self.body.get("title") or "")[:500]


class Poster:
    """Keeps one connection to one address, while that answers."""

    def __init__(self, urls: list[str], *, token: str = "", token_file: str = "", ca_file: str = "",
                 cert_file: str = "", key_file: str = "", timeout: float = 15.0) -> None:
        self.urls = urls
        self.current = 0
        self._token = token
        self._token_file = token_file
        self._timeout = timeout
        self._tls = ca_file, cert_file, key_file
        self._connection: http.client.HTTPConnection | None = None
        self._socket: socket.socket | None = None  # of the connection, which forgets it when an answer says that it is the last
        self._expires = float("inf")  # when the request that is under way must have ended
        self._expired = False

    @property
    def url(self) -> str:
        return self.urls[self.current]

    def move_on(self) -> None:
        """Take the next address."""
        self.close()
        self.current = (self.current + 1) % len(self.urls)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            self._socket = None

    def expire(self) -> None:
        """End the request that is under way if it takes too long, however slowly its answer still comes. Another thread calls this from time to time."""
        connected = self._socket
        if connected is None or time.monotonic() < self._expires:
            return  # each attempt to connect has a timeout of its own
        self._expired = True
        try:
            connected.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it is closed by now

    def post(self, path: str, body: bytes, coding: str = "", media_type: str = "application/avro") -> Answer:
        """Post the body and return the answer, of whatever status.

        Raises Unreachable if there is none. A connection that was idle may have
        been closed by the other side meanwhile, so then a new one is tried at once.
        """
        self._expired = False
        self._expires = time.monotonic() + self._timeout
        try:
            return self._post(path, body, coding, media_type)
        except Unreachable as failure:
            if self._expired:
                raise Unreachable(f"{self.url}: the request took more than {self._timeout:g} s") from failure
            raise
        finally:
            self._expires = float("inf")

    def _post(self, path: str, body: bytes, coding: str, media_type: str) -> Answer:
        reused = self._connection is not None
        try:
            return self._attempt(path, body, coding, media_type)
        except (ConnectionError, http.client.BadStatusLine) as failure:
            self.close()
            if not reused or self._expired:
                raise Unreachable(f"{self.url}: {_text(failure)}") from failure
        except (OSError, http.client.HTTPException, ValueError) as failure:
            self.close()
            raise Unreachable(f"{self.url}: {_text(failure)}") from failure
        try:
            return self._attempt(path, body, coding, media_type)
        except (OSError, http.client.HTTPException, ValueError) as failure:
            self.close()
            raise Unreachable(f"{self.url}: {_text(failure)}") from failure

    def _attempt(self, path: str, body: bytes, coding: str, media_type: str) -> Answer:
        base = urllib.parse.urlsplit(self.url)
        if self._connection is None:
            self._connection = self._connect(base)
        connection = self._connection
        connection.putrequest("POST", base.path.rstrip("/") + path, skip_accept_encoding=True)
        connection.putheader("Content-Type", media_type)
        connection.putheader("Content-Length", str(len(body)))
        connection.putheader("User-Agent", f"oona-client/{VERSION}")
        connection.putheader("Oona-Sent-At", str(time.time_ns() // 1000))
        if coding:
            connection.putheader("Content-Encoding", coding)
        if token := self._bearer():
            connection.putheader("Authorization", f"Bearer {token}")
        connection.endheaders()
        self._socket = connection.sock
        try:
            connection.send(body)
        except (BrokenPipeError, ConnectionResetError):
            pass  # a refusal may have come before the body was read
        return self._read(connection)

    def _connect(self, base: urllib.parse.SplitResult) -> http.client.HTTPConnection:
        if not base.hostname:
            raise ValueError("the address has no host")
        if base.scheme == "https":
            # The files are read for each connection, as a certificate may be replaced during the run.
            return http.client.HTTPSConnection(base.hostname, base.port, timeout=self._timeout, context=context(*self._tls))
        return http.client.HTTPConnection(base.hostname, base.port, timeout=self._timeout)

    def _read(self, connection: http.client.HTTPConnection) -> Answer:
        response = connection.getresponse()
        raw = response.read(MAX_ANSWER)
        if response.length and len(raw) < MAX_ANSWER:
            raise http.client.IncompleteRead(raw, response.length)
        if response.will_close or not response.isclosed():
            self.close()
        try:
            parsed = json.loads(raw)
        except (ValueError, RecursionError):
            parsed = {"detail": raw[:300].decode(errors="replace")}
        return Answer(response.status, parsed if isinstance(parsed, dict) else {},
                      _seconds(response.headers.get("Retry-After")))

    def _bearer(self) -> str:
        """Return the token. Its file is read each time, as a token may be replaced."""
        if not self._token_file:
            return self._token
        with open(self._token_file, encoding="utf-8") as file:
            return check_token(file.read().strip(), f"the file {self._token_file}")


def _seconds(value: str | None) -> float | None:
    """Return a Retry-After, which is in seconds or a date. None: it does not say how long to wait."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (TypeError, ValueError, OverflowError):
            return None
    return seconds if seconds > 0 else None  # without a pause, a client would send as fast as it can; a NaN is not greater, either


def _text(failure: Exception) -> str:
    return str(failure) or type(failure).__name__


def check_token(token: str, place: str) -> str:
    """Return the token, or raise ValueError, without the token, if it cannot be sent in a header."""
    if not all("!" <= character <= "~" for character in token):
        raise ValueError(f"{place} has no valid token: it has characters other than letters, digits and punctuation of ASCII")
    return token


def context(ca_file: str, cert_file: str, key_file: str) -> ssl.SSLContext:
    """Return the settings for TLS. Raises ValueError if a file is not what it should be."""
    try:
        tls = ssl.create_default_context(cafile=ca_file or None)
    except ssl.SSLError as failure:
        raise ValueError(f"ca_file {ca_file} is not a PEM file with certificates: {failure}") from failure
    if cert_file:
        try:
            tls.load_cert_chain(cert_file, key_file or None)
        except ssl.SSLError as failure:
            raise ValueError(f"cert_file {cert_file} and key_file {key_file} are not PEM files of a certificate and its key: {failure}") from failure
    return tls
