"""Answers that are not ingest's, halves of answers, certificates that are replaced, and a process that becomes another program."""

import socket
import ssl
import threading
import time
from pathlib import Path

import pytest
from server import Server, ok, problem, until
from test_process import gone, script
from training import client, send, steps_of

from oona_client import post

PEM = Path(__file__).with_name("localhost.pem")  # a certificate of localhost and 127.0.0.1 until 2100, and its key, for tests only


@pytest.mark.parametrize("answer", [
    (200, "<html>It works!</html>", {}), (400, "<html>Bad Request</html>", {}), (302, "", {"Location": "https://login"}),
    (405, "", {}), (401, "", {}), (404, "", {}), (502, "", {}),
], ids=lambda answer: answer[0])
def test_an_address_where_something_else_answers_does_not_keep_frames_from_the_next(answer):
    with Server(lambda *_: answer) as other, Server() as ingest, client([other.url, ingest.url], "thread") as oona:
        send(oona, range(3))
        assert oona.flush(60)
        assert other.requests and steps_of(ingest) == [0, 1, 2]


def test_ingest_that_refuses_a_token_is_not_left():
    """Another ingest would refuse it, too."""
    with Server(lambda n, request: problem(403, "forbidden") if n < 3 else ok(n, request)) as one, Server() as other, \
            client([one.url, other.url], "thread") as oona:
        send(oona, range(3))
        assert oona.flush(60)
        assert steps_of(one) == [0, 1, 2] and not other.requests


def test_half_an_answer_is_none():
    def serve():
        for _ in range(2):
            connection, _ = listener.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(b'HTTP/1.1 200 X\r\nContent-Length: 40\r\n\r\n{"accep')

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve)
        server.start()
        poster = post.Poster([f"http://127.0.0.1:{listener.getsockname()[1]}"])
        for _ in range(2):
            with pytest.raises(post.Unreachable):
                poster.post("/v1/frames", b"x")
        server.join()


@pytest.mark.parametrize("begin", [
    b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"HTTP/1.0 200 OK\r\nConnection: close\r\n\r\n",
], ids=["headers", "body", "last"])
def test_an_answer_that_never_ends_is_not_waited_for(begin):
    """Each byte comes within the timeout, but not the whole."""
    sent = []

    def serve():
        connection, _ = listener.accept()
        with connection:
            connection.recv(1 << 16)
            connection.sendall(begin)
            try:
                while True:
                    connection.sendall(b"x")
                    sent.append(time.monotonic())
                    time.sleep(0.02)
            except OSError:
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener, Server() as ingest:
        server = threading.Thread(target=serve)
        server.start()
        with client([f"http://127.0.0.1:{listener.getsockname()[1]}", ingest.url], "thread", timeout=0.5) as oona:
            send(oona, range(3))
            assert oona.flush(60)
            assert steps_of(ingest) == [0, 1, 2]
        server.join()
    assert len(sent) > 3, "it was not an answer that comes slowly"


class Trickle:
    """A server that begins a TLS handshake, and then sends a byte of it now and then."""

    def __init__(self):
        self.sent = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._thread.join(60)
        self._listener.close()
        assert not self._thread.is_alive() and len(self.sent) > 3, "it was not a handshake that comes slowly"

    def _serve(self):
        connection, _ = self._listener.accept()
        with connection:
            connection.recv(1 << 16)
            connection.sendall(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc")  # a record of 16 KiB, with a ServerHello
            try:
                while True:
                    connection.sendall(b"x")
                    self.sent.append(time.monotonic())
                    time.sleep(0.02)
            except OSError:
                pass


def test_a_handshake_that_never_ends_is_not_waited_for():
    """Each byte comes within the timeout, but not the whole."""
    with Trickle() as trickle, Server() as ingest, client([trickle.url, ingest.url], "thread", timeout=0.5) as oona:
        send(oona, range(3))
        assert oona.flush(60)
        assert steps_of(ingest) == [0, 1, 2]


def test_another_thread_can_end_a_handshake():
    """The timeout of the socket has nothing to do with it, as no call takes that long."""
    failures = []

    def run():
        try:
            poster.post("/v1/frames", b"x")
        except post.Unreachable as failure:
            failures.append(failure)

    with Trickle() as trickle:
        poster = post.Poster([trickle.url], timeout=600.0)
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        until(lambda: len(trickle.sent) > 3)
        poster.expire()
        assert poster._socket is not None and not failures  # it has time left
        poster._expires = 0.0
        poster.expire()
        thread.join(60)
        assert len(failures) == 1
        assert poster._socket is None


def test_a_connection_with_tls_is_used_again():
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(PEM)
    with Server(tls=tls) as server:
        poster = post.Poster([server.url], ca_file=str(PEM))
        for _ in range(2):
            assert poster.post("/v1/frames", b"").status == 200
        assert (len(server.requests), server.connections) == (2, 1)
        assert server.requests[0].headers["host"] == f"127.0.0.1:{server.port}"
        poster.close()
        other = post.Poster([server.url])  # which does not know the authority
        with pytest.raises(post.Unreachable) as caught:
            other.post("/v1/frames", b"")
        assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
        assert len(server.requests) == 2


def test_an_address_of_a_host_that_does_not_answer_leaves_time_for_the_next(monkeypatch):
    """A host often has two addresses, and one of them leads nowhere."""
    full = socket.create_server(("127.0.0.1", 0), backlog=0)
    waiting = []
    for _ in range(3):  # the queue of a listener that accepts nothing is full, so connecting to it takes for ever
        waiting.append(socket.socket())
        waiting[-1].setblocking(False)
        waiting[-1].connect_ex(full.getsockname())
    with Server() as server:
        one = (socket.AF_INET, socket.SOCK_STREAM, 6, "", full.getsockname())
        two = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.port))
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [one, two])
        assert post.Poster(["http://oona.example"], timeout=0.6).post("/v1/frames", b"").status == 200
    with pytest.raises(OSError):
        waiting[-1].getpeername()  # it is not connected
    for opened in [full, *waiting]:
        opened.close()


def test_a_large_answer_is_cut():
    with Server(lambda *_: (503, "x" * (2 * post.MAX_ANSWER), {})) as server:
        poster = post.Poster([server.url])
        assert poster.post("/v1/frames", b"x").status == 503
        assert poster.post("/v1/frames", b"x").status == 503


def test_certificates_are_read_for_each_connection(monkeypatch, tmp_path):
    """An authority that is replaced in the file is known to the next connection."""
    read = []
    real = post.context

    def context(*files):
        read.append(files)
        return real(*files)

    monkeypatch.setattr(post, "context", context)
    with Server() as server:  # which does not speak TLS
        poster = post.Poster([server.url.replace("http:", "https:")], timeout=0.2)
        for n in (1, 2):
            with pytest.raises(post.Unreachable):
                poster.post("/v1/frames", b"x")
            assert len(read) == n
        file = tmp_path / "ca.pem"
        file.write_text("no certificate")
        poster = post.Poster([server.url.replace("http:", "https:")], ca_file=str(file))
        with pytest.raises(post.Unreachable, match="ca_file"):
            poster.post("/v1/frames", b"x")


def test_a_process_that_becomes_another_program_does_not_leave_a_sender():
    with Server() as server:
        process = script("""
            oona = Client(sys.argv[1], "run", linger=60)
            send(range(20))
            os.set_inheritable(1, True)
            print(oona.stats().sender_pid, flush=True)
            os.execv(sys.executable, [sys.executable, "-c", "import time; print('here', flush=True); time.sleep(600)"])
        """, server.url)
        try:
            pid = int(process.stdout.readline())
            assert process.stdout.readline() == "here\n"
            until(lambda: len(server.accepted) == 20)
            until(lambda: gone(pid))
            assert process.poll() is None
        finally:
            process.kill()
            process.communicate()
