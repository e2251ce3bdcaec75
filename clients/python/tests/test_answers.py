"""What the client does after each kind of answer of ingest, and if there is no answer."""

import logging
import socket
import threading
import time

import numpy as np
import pytest
from server import RESET, SILENT, Server, ok, problem, refuses_step_3, until
from training import client, send, steps_of

from oona_client import post


def test_a_server_that_is_away_comes_back(sender):
    with Server() as probe:
        port = probe.port
    oona = client(f"http://127.0.0.1:{port}", sender)
    send(oona, range(20))
    until(lambda: oona.stats().failures > 0)
    with Server(port=port) as server:
        assert oona.flush(300)
        assert steps_of(server) == list(range(20))
        assert oona.close().frames.accepted == 20


@pytest.mark.parametrize("answer", [
    (200, {"accepted": 1, "aside": 5}, {}),
    (503, {"type": "urn:oona:problem:timeout"}, {"Retry-After": "nan"}),
    (503, {"type": "urn:oona:problem:timeout"}, {"Retry-After": "0"}),
    (503, {"type": "urn:oona:problem:timeout"}, {"Retry-After": "-1"}),
    (503, {"type": "urn:oona:problem:timeout"}, {"Retry-After": "Sat, 28 Nov 2026 08:00:00"}),
], ids=lambda answer: answer[2].get("Retry-After", "aside"))
def test_an_odd_answer_neither_ends_the_sender_nor_makes_it_hurry(answer):
    with Server(lambda n, request: answer if n < 2 else ok(n, request)) as server, client(server, "thread") as oona:
        for step in range(5):
            send(oona, [step])
            if answer[0] == 200:
                assert oona.flush(300)
        assert oona.flush(300)
        assert oona.stats().frames.accepted == 5


def test_a_retry_after_that_names_no_time_is_none():
    for value in ("", "nan", "0", "-1", "soon", "Sat, 28 Nov 2020 08:00:00 GMT", "Sat, 99 Foo 2026 99:99:99"):
        assert post._seconds(value) is None, value
    assert post._seconds("1.5") == 1.5
    assert (post._seconds("Sat, 28 Nov 2099 08:00:00 GMT") or 0) > 86400


def test_what_nobody_expected_is_tried_again():
    """An answer that is nested too deeply for the decoder, and an error in the sender itself."""
    deep = "[" * 200_000
    with Server(lambda n, request: (200, deep, {}) if n == 0 else ok(n, request)) as server, client(server, "thread") as oona:
        poster = oona._link._inner._poster
        working = poster.post
        faults = []

        def faulty(*arguments):
            poster.post = working
            faults.append(arguments)
            raise AssertionError("a fault")

        poster.post = faulty
        send(oona, [1])
        assert oona.flush(300)
        assert faults
        assert len(server.requests) == 2
        assert oona.stats().frames.accepted == 1


def test_retry_after_is_honoured_and_the_bytes_are_the_same(sender):
    def script(n, request):
        return problem(503, "timeout", retry=1) if n == 0 else ok(n, request)

    with Server(script) as server, client(server, sender) as oona:
        send(oona, [1])
        assert oona.flush(300)
        first, second = server.requests
    assert first.body == second.body
    assert 1.0 <= second.at - first.at < 60.0


def test_a_reset_connection_and_a_half_open_one(sender):
    def script(n, request):
        return {0: RESET, 2: SILENT}.get(n) or ok(n, request)

    with Server(script) as server, client(server, sender, timeout=0.5) as oona:
        send(oona, [1])
        assert oona.flush(300)
        send(oona, [2])
        assert oona.flush(300)
        assert list(dict.fromkeys(steps_of(server))) == [1, 2]  # on a busy machine an answer may come too late
        assert oona.stats().frames.accepted == 2


def test_it_stays_with_one_address_and_moves_on_when_that_fails(sender):
    with Server() as a, Server() as b, client([a.url, b.url], sender) as oona:
        for step in range(3):
            send(oona, [step])
            assert oona.flush(300)
        assert (steps_of(a), steps_of(b), a.connections) == ([0, 1, 2], [], 1)
        a.close()
        send(oona, [3])
        assert oona.flush(300)
        assert steps_of(b) == [3]


def test_a_bad_frame_is_dropped_and_the_others_are_sent_again(sender, caplog):
    with caplog.at_level(logging.INFO, "oona_client"), Server(refuses_step_3) as server, client(server, sender, linger=60.0) as oona:
        send(oona, range(6))
        assert oona.flush(300)
        assert sorted(steps_of(server)) == [0, 1, 2, 4, 5]
        counts = oona.stats().frames
        until(lambda: any("refuses frames" in r.message for r in caplog.records))
    assert (counts.accepted, counts.rejected) == (5, 1)
    assert sum("refuses frames" in r.message for r in caplog.records) == 1


def test_a_request_that_is_too_large_is_split(sender):
    def script(n, request):
        return problem(413, "too-large") if len(request.records) > 2 else ok(n, request)

    with Server(script) as server, client(server, sender, linger=60.0) as oona:
        send(oona, range(9))
        assert oona.flush(300)
        assert steps_of(server) == list(range(9))


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_holds_the_frames(sender, status, caplog):
    allowed = threading.Event()

    def script(n, request):
        return ok(n, request) if allowed.is_set() else problem(status, "unauthorized")

    with caplog.at_level(logging.ERROR, "oona_client"), Server(script) as server, client(server, sender, token="secret") as oona:
        send(oona, range(3))
        until(lambda: server.requests)  # on a busy machine, the sender may take long to start
        assert not oona.flush(0.5)
        allowed.set()
        assert oona.flush(300)
        assert server.requests[0].headers["authorization"] == "Bearer secret"
        until(lambda: any("token" in r.message for r in caplog.records))
    assert not any("secret" in r.message for r in caplog.records)


def test_frames_put_aside_are_counted(sender, caplog):
    def script(_, request):
        return 200, {"accepted": len(request.records), "aside": [{"reason": "stale", "frames": 2, "first": 0, "detail": "old"}]}, {}

    with caplog.at_level(logging.WARNING, "oona_client"), Server(script) as server, client(server, sender, linger=60.0) as oona:
        send(oona, range(3))
        assert oona.flush(300)
        counts = oona.stats().frames
        until(lambda: any("stale" in r.message for r in caplog.records))
    assert (counts.accepted, counts.aside) == (3, 2)


@pytest.mark.parametrize("answer", [{"hello": "world"}, *({"accepted": n} for n in (None, 0, 2, 4, 3.0, True, "3", [3]))], ids=str)
def test_another_server_is_not_taken_for_ingest(answer, caplog):
    with Server(lambda n, request: (200, answer, {})) as server:
        oona = client(server, "thread", linger=60.0)
        send(oona, range(3))
        oona.flush(0)
        until(lambda: any("not an answer of ingest" in r.message for r in caplog.records))
        counts = oona.close(timeout=0).frames
    assert (counts.accepted, counts.lost) == (0, 3)


def test_frames_are_kept_if_it_is_not_ingest_that_refuses_them(sender):
    refusals = iter([(400, {}, {}), (415, {}, {}), (451, {}, {}), problem(400, "coding")])

    def answer(n, request):
        return next(refusals, None) or ok(n, request)

    with Server(answer) as server, client(server, sender, compress=False) as oona:
        send(oona, range(3))
        assert oona.flush(300)
        assert steps_of(server) == [0, 1, 2]
        assert len(server.requests) == 5
        assert oona.stats().frames.rejected == 0


def test_a_connection_that_was_closed_while_it_was_idle_is_not_a_failure(sender):
    with Server() as server, client(server, sender) as oona:
        for step in range(3):
            send(oona, [step])
            assert oona.flush(300)
            server.forget()
        stats = oona.stats()
        assert (stats.failures, stats.requests, server.connections) == (0, 3, 3)


def test_a_refusal_that_comes_before_the_body_was_read_is_seen():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def refuse():
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 401 X\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
                time.sleep(0.3)  # the rest of the body is not read, so closing resets the connection

        server = threading.Thread(target=refuse)
        server.start()
        poster = post.Poster([f"http://127.0.0.1:{listener.getsockname()[1]}"])
        assert poster.post("/v1/frames", bytes(32 << 20)).status == 401
        server.join()


@pytest.mark.parametrize("answer", [
    b"\x1b[2J\x07 SSH-2.0\r\n\r\n" + b"a" * 60_000 + b"\r\n",
    b'HTTP/1.1 400 X\r\nConnection: close\r\n\r\n{"type": "urn:oona:problem:\\u001b[2J", "detail": "\\u001b]0;a\\u0007\\r\\n' + b"a" * 60_000 + b'"}',
    b"HTTP/1.1 400 X\r\nConnection: close\r\n\r\n\x1b[2J" + b"a" * 60_000,
    b'HTTP/1.1 200 X\r\nConnection: close\r\n\r\n{"accepted": 1, "aside": [{"reason": "\\u001b[2J", "frames": 1, "detail": "' + b"a" * 60_000 + b'\\n"}]}',
], ids=["rubbish", "problem", "text", "aside"])
def test_what_another_program_says_is_logged_in_one_short_line(answer, caplog):
    def reply():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(1 << 16)
                connection.sendall(answer)

    with caplog.at_level(logging.WARNING, "oona_client"), socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=reply)
        server.start()
        oona = client(f"http://127.0.0.1:{listener.getsockname()[1]}", "thread")
        send(oona, [1])
        until(lambda: caplog.records)
        oona.close(0)
        listener.shutdown(socket.SHUT_RDWR)
        server.join()
    for record in caplog.records:
        assert record.message.isprintable() and len(record.message) < 1500, record.message
