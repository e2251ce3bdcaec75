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
LONGEST_TEXT = 500  # characters of another program's text in a message


class Unreachable(Exception):
    """There was no answer. Ingest may or may not have received the frames. The message says what does not answer, or what is missing for a request."""


@dataclass(frozen=True)
class Answer:
    """An answer of ingest, or an answer of Kafka in the same form."""

    status: int
    body: Mapping[str, Any] = field(default_factory=dict)
    retry_after: float | None = None  # seconds
    acknowledged: bool = False  # by Kafka, which does not count the records
    error: str = ""  # the name of Kafka's error
    advice: str = ""  # what to do, if the status alone does not say it

    @property
    def reason(self) -> str:
        """The kind of problem, in one word."""
        kind = str(self.body.get("type", ""))
        return printable(kind.removeprefix("urn:oona:problem:")) if kind.startswith("urn:oona:problem:") else ""

    @property
    def why(self) -> str:
        """A short name of the answer, for messages."""
        return self.error or f"{self.status} {self.reason}".strip()

    @property
    def detail(self) -> str:
        return printable(str(self.body.get("detail") or self.body.get("title") or ""))


class Poster:
    """Posts to one address, over one connection, as long as the address answers."""

    peer = "ingest"  # name of the receiver, for messages

    def __init__(self, urls: list[str], *, token: str = "", token_file: str = "", ca_file: str = "",
                 cert_file: str = "", key_file: str = "", timeout: float = 15.0) -> None:
        self.urls = urls
        self.current = 0
        self._token = token
        self._token_file = token_file
        self._timeout = timeout
        self._tls = ca_file, cert_file, key_file
        self._connection: http.client.HTTPConnection | None = None
        # The socket of the connection, even while the connection is being set up. http.client
        # forgets it when an answer says that it is the last one.
        self._socket: socket.socket | None = None
        self._expires = float("inf")  # when the current request must have ended
        self._expired = False

    @property
    def url(self) -> str:
        return self.urls[self.current]

    def move_on(self) -> None:
        """Use the next address from now on."""
        self.close()
        self.current = (self.current + 1) % len(self.urls)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            self._socket = None

    def expire(self) -> None:
        """End the current request if it takes too long.

        A timeout of the socket is only for one call, and a server that sends a byte now
        and then never reaches it. So another thread calls this from time to time.
        """
        connected = self._socket
        if connected is None or time.monotonic() < self._expires:
            return  # _dial() has its own timeout
        self._expired = True
        try:
            # The method of an SSLSocket would also end the encryption, while the other thread may be sending a token.
            socket.socket.shutdown(connected, socket.SHUT_RDWR)
        except OSError:
            pass  # it is already closed

    def post(self, path: str, body: bytes, coding: str = "", media_type: str = "application/avro") -> Answer:
        """Post the body and return the answer, whatever its status is.

        Raises Unreachable if there is no answer. If the server has closed an idle
        connection, a new one is opened at once.
        """
        self._expired = False
        self._expires = time.monotonic() + self._timeout
        try:
            return self._post(path, body, coding, media_type)
        except Unreachable as failure:
            if self._expired:
                raise self._no_answer(f"the request took more than {self._timeout:g} s") from failure
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
                raise self._no_answer(_text(failure)) from failure
        except (OSError, http.client.HTTPException, ValueError) as failure:
            self.close()
            raise self._no_answer(_text(failure)) from failure
        try:
            return self._attempt(path, body, coding, media_type)
        except (OSError, http.client.HTTPException, ValueError) as failure:
            self.close()
            raise self._no_answer(_text(failure)) from failure

    def _no_answer(self, why: str) -> Unreachable:
        return Unreachable(f"ingest does not answer: {self.url}: {why}")

    def _attempt(self, path: str, body: bytes, coding: str, media_type: str) -> Answer:
        base = urllib.parse.urlsplit(self.url)
        token = self._bearer()
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
        if token:
            connection.putheader("Authorization", f"Bearer {token}")
        connection.endheaders()
        try:
            connection.send(body)
        except (BrokenPipeError, ConnectionResetError):
            pass  # ingest may have refused the request before it had read the body
        return self._read(connection)

    def _connect(self, base: urllib.parse.SplitResult) -> http.client.HTTPConnection:
        """Connect to an address. The TLS handshake is part of the request that expire() ends."""
        host = base.hostname
        if not host:
            raise ValueError("the address has no host")
        try:
            if base.scheme == "https":
                # The files are read for each connection, because a certificate may be replaced during the run.
                tls = self._context()
                connection: http.client.HTTPConnection = http.client.HTTPSConnection(host, base.port, context=tls)
                wrapped = tls.wrap_socket(self._dial(host, connection.port), server_hostname=host, do_handshake_on_connect=False)
                self._socket = wrapped
                wrapped.do_handshake()
            else:
                connection = http.client.HTTPConnection(host, base.port)
                self._socket = self._dial(host, connection.port)
        except BaseException:
            opened, self._socket = self._socket, None
            if opened is not None:
                opened.close()
            raise
        self._socket.settimeout(self._timeout)
        connection.sock = self._socket
        connection.auto_open = 0  # it must not connect again by itself
        return connection

    def _context(self) -> ssl.SSLContext:
        try:
            return context(*self._tls)
        except (OSError, ValueError) as failure:
            names = ("ca_file", "cert_file", "key_file")
            files = ", ".join(f"{name} {path}" for name, path in zip(names, self._tls) if path)
            raise Unreachable(f"nothing can be sent to {self.url}: {failure} ({files})") from failure

    def _dial(self, host: str, port: int) -> socket.socket:
        """Open a connection to one of the host's addresses. The addresses share the time of the request."""
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        failure: OSError = OSError(f"{host} has no address")
        for tried, (family, kind, protocol, _, address) in enumerate(addresses):
            left = self._expires - time.monotonic()
            if left <= 0:
                raise TimeoutError("there was no time left to connect")
            opened = None
            try:
                opened = socket.socket(family, kind, protocol)
                opened.settimeout(left / (len(addresses) - tried))
                opened.connect(address)
                opened.settimeout(max(0.001, self._expires - time.monotonic()))
                opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return opened
            except OSError as error:
                failure = error
                if opened is not None:
                    opened.close()
        raise failure

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
        """Return the token. Its file is read each time, because a token may be replaced."""
        if not self._token_file:
            return self._token
        try:
            with open(self._token_file, encoding="utf-8") as file:
                return check_token(file.read().strip(), f"the file {self._token_file}")
        except UnicodeDecodeError as failure:  # its message is left out, because it has bytes of the token
            raise Unreachable(f"nothing can be sent to {self.url}: the token_file {self._token_file} is not text") from failure
        except (OSError, ValueError) as failure:
            raise Unreachable(f"nothing can be sent to {self.url}: token_file: {failure}") from failure


def _seconds(value: str | None) -> float | None:
    """Return the value of a Retry-After, which is a number of seconds or a date, in seconds. None means that it does not say how long to wait."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (TypeError, ValueError, OverflowError):
            return None
    return seconds if seconds > 0 else None  # with 0, the client would send as fast as it can; NaN is not greater than 0 either


def _text(failure: Exception) -> str:
    return printable(str(failure)) or type(failure).__name__


def printable(text: str) -> str:
    """Return the text of another program for a message: not too long, in one line, and without what a terminal would obey."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(text[:LONGEST_TEXT].split()))


def check_token(token: str, place: str) -> str:
    """Return the token. Raise ValueError if it cannot be sent in a header. The message does not show the token."""
    if not all("!" <= character <= "~" for character in token):
        raise ValueError(f"{place} has no valid token: it has characters other than letters, digits and punctuation of ASCII")
    return token


def context(ca_file: str, cert_file: str, key_file: str) -> ssl.SSLContext:
    """Return the settings for TLS. Raise ValueError if a file has the wrong content."""
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
