"""close() that is interrupted, or called where the client cannot wait for its end."""

import logging
import os
import signal
import threading

import numpy as np
import pytest
from server import Server, ok, refuses_step_3, until
from test_device import FakeEvent, torch  # noqa: F401  a fixture
from test_interrupt import Interrupt, ctrl_c
from training import IDS, client, send

from oona_client import Client, State
from oona_client.closing import Closing
from oona_client.ring import Ring

LOGGER = logging.getLogger("oona_client")


def freed(oona):
    return oona._ring._memory.closed and oona._ring.fd == -1


@pytest.fixture
def server():
    with Server() as server:
        yield server


@pytest.fixture
def on_log():
    """Return a function that has another one called with each message, under the lock of a handler."""
    handlers = []

    class Handler(logging.Handler):
        def __init__(self, act):
            super().__init__()
            self.act = act

        def emit(self, record):
            self.act(record.getMessage())

    def add(act):
        handlers.append(Handler(act))
        LOGGER.addHandler(handlers[-1])

    yield add
    for handler in handlers:
        LOGGER.removeHandler(handler)


# Ctrl-C.


def test_a_close_that_is_interrupted_ends_the_sender_and_frees_the_memory(server):
    at = set()
    for n in range(1, 100):
        oona = Client(server.url, "run", sender="thread", linger=60.0)
        assert oona.frame("enc.0", n, IDS, State.TRAINING, {"loss": np.zeros(10)})
        interrupt = Interrupt(n, (Client.close, Closing.finish))
        try:
            with interrupt:
                oona.close(timeout=30)
        except KeyboardInterrupt:
            if oona._closed:
                at.add(interrupt.at)
        if not oona._closed:
            oona.close()  # it was interrupted before it did anything
        until(lambda: freed(oona))
        counts = oona.stats().frames
        assert (counts.handed, counts.accepted) == (1, 1)
        assert not oona._link._thread.is_alive() and not oona._link._log.is_alive()
        if interrupt.at is None:
            break
    assert interrupt.at is None and at == {"close", "finish"}


def interrupt_once(monkeypatch, copier):
    drain = copier.drain

    def interrupted(*_):
        monkeypatch.setattr(copier, "drain", drain)
        ctrl_c()

    monkeypatch.setattr(copier, "drain", interrupted)


def test_a_close_that_is_interrupted_while_a_copy_is_under_way(server, sender, torch, caplog, monkeypatch):  # noqa: F811
    oona = Client(server.url, "run", sender=sender, linger=0.0)
    assert oona.frame("enc.0", 1, IDS, State.TRAINING, {"loss": torch.on_device(IDS)})
    interrupt_once(monkeypatch, oona._handover.copier)
    with pytest.raises(KeyboardInterrupt):
        oona.close(timeout=300)
    assert oona.stats().frames.waiting == 1
    assert ("thread" in caplog.text) == (sender == "thread")
    torch.run()
    until(lambda: oona.stats().frames.accepted == 1)  # the sender has waited for the copy
    until(lambda: freed(oona))
    assert oona.stats().frames.waiting == oona.stats().frames.lost == 0


def test_a_copy_that_never_ends_does_not_keep_the_sender(server, sender, torch, monkeypatch):  # noqa: F811
    oona = Client(server.url, "run", sender=sender, linger=0.0)
    assert oona.frame("enc.0", 1, IDS, State.TRAINING, {"loss": torch.on_device(IDS)})
    interrupt_once(monkeypatch, oona._handover.copier)
    with pytest.raises(KeyboardInterrupt):
        oona.close(timeout=0.1)
    until(lambda: oona._closing.last is not None)
    assert oona.stats().frames.lost == 1
    assert not freed(oona)  # the copier may still want it
    torch.run()  # so that its thread ends
    until(lambda: freed(oona))
    assert oona.stats().frames.lost == 1


def test_a_sender_that_waits_for_an_answer_frees_the_memory_afterwards(torch):  # noqa: F811
    answer = threading.Event()

    def script(n, request):
        answer.wait(300)
        return ok(n, request)

    with Server(script) as server:
        oona = client(server, "thread")
        send(oona, range(2))
        until(lambda: server.requests)
        assert oona.close(timeout=0).frames.lost == 2
        assert not freed(oona)
        answer.set()
        until(lambda: freed(oona))


# Log handlers. One that waits in vain would do so for ten minutes, and the test does not wait for that.


@pytest.mark.parametrize("fault", [False, True])
def test_a_log_handler_may_close_the_client_while_copies_are_under_way(server, torch, monkeypatch, on_log, fault):  # noqa: F811
    monkeypatch.setattr("oona_client.device.PINNED_BYTES", 100)
    oona = client(server, "thread", strict=False)
    closed = []

    def act(message):
        if "too many copies" in message:
            torch.run()
            closed.append(oona.close(timeout=60))

    on_log(act)
    for step in range(7):
        length = 3 if fault and step == 0 else 4
        oona.frame("enc.0", step, np.arange(4), State.TRAINING, {"loss": torch.on_device([step] * length)})
    counts = closed[0].frames
    assert (counts.handed, counts.accepted, counts.dropped, counts.invalid, counts.lost) == (7 - fault, 6 - fault, 1, fault, 0)
    until(lambda: freed(oona))


def test_a_log_handler_of_another_thread_may_close_the_client_in_the_midst_of_a_frame(server, monkeypatch, on_log):
    oona = client(server, "thread", strict=False)
    inside, pushing, closed = threading.Event(), threading.Event(), []

    def act(message):
        if message == "close":
            inside.set()
            pushing.wait(300)
            closed.append(oona.close(timeout=600))

    def no_room(*_):
        pushing.set()  # with the client's lock; the frame is dropped, which is logged
        return 0

    monkeypatch.setattr(Ring, "push", no_room)
    on_log(act)
    threads = [threading.Thread(target=LOGGER.error, args=("close",), daemon=True),
               threading.Thread(target=send_one, args=(oona,), daemon=True)]
    for thread, ready in zip(threads, (inside, pushing)):
        thread.start()
        assert ready.wait(300)
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert (closed[0].frames.handed, closed[0].frames.dropped) == (1, 1)


def send_one(oona):
    oona.frame("enc.0", 0, IDS, State.TRAINING, {"loss": np.zeros(10)})


def test_a_log_handler_may_close_the_client_while_the_sender_has_something_to_log(sender, on_log):
    closed = []

    def act(message):
        if "was not sent" in message:
            closed.append(oona.close(timeout=60))

    with Server(refuses_step_3) as server:
        oona = client(server, sender, linger=600.0, strict=False)
        on_log(act)
        send(oona, range(6))
        assert not oona.frame("enc.0", 6, IDS, None, {})
        counts = closed[0].frames
        until(lambda: freed(oona))
    assert (counts.handed, counts.accepted, counts.rejected, counts.lost, counts.invalid) == (6, 5, 1, 0, 1)


@pytest.mark.parametrize("call", ["close", "flush"])
def test_a_log_handler_in_a_thread_of_the_client_does_not_wait_for_it(sender, on_log, call):
    returned, results = threading.Event(), []

    def script(n, request):
        answer = refuses_step_3(n, request)
        if answer[0] == 200:
            returned.wait(300)
        return answer

    with Server(script) as server:
        oona = client(server, sender, linger=60.0)

        def act(message):
            if "refuses frames" in message:
                results.append(getattr(oona, call)(600))
                returned.set()

        on_log(act)
        send(oona, range(6))
        oona._ring.add("flush")
        assert returned.wait(60)
        if call == "flush":
            assert results == [False]
            oona.close()
        else:
            assert results[0].frames.handed == 6 and results[0].frames.waiting > 0
        until(lambda: freed(oona))
    counts = oona.stats().frames
    assert (counts.handed, counts.accepted, counts.rejected, counts.lost) == (6, 5, 1, 0)


def test_a_log_handler_may_close_the_client_when_a_copy_has_failed(server, torch, monkeypatch, on_log):  # noqa: F811
    monkeypatch.setattr(FakeEvent, "synchronize", lambda self: (_ for _ in ()).throw(RuntimeError("CUDA error")))
    oona = client(server, "thread")
    returned = threading.Event()

    def act(message):
        if "CUDA error" in message:
            oona.close(600)
            returned.set()

    on_log(act)
    assert oona.frame("enc.0", 0, IDS, State.TRAINING, {"loss": torch.on_device(IDS)})
    assert returned.wait(60)
    until(lambda: freed(oona))
    assert (oona.stats().frames.handed, oona.stats().frames.lost) == (1, 1)


def test_a_log_handler_may_close_the_client_when_the_sender_has_died(server, on_log):
    oona = client(server, "process", linger=60.0)
    returned = threading.Event()

    def act(message):
        if "has died" in message:
            oona.close(600)
            returned.set()

    on_log(act)
    send(oona, range(3))
    until(lambda: oona._ring.used == 0)
    os.kill(oona.stats().sender_pid, signal.SIGKILL)
    assert returned.wait(60)
    until(lambda: freed(oona))
    counts = oona.stats().frames
    assert (counts.handed, counts.accepted + counts.lost) == (3, 3)


def test_a_log_handler_that_raises_stops_nothing(sender, torch, on_log, capsys):  # noqa: F811
    messages = []

    def act(message):
        messages.append(message)
        raise RuntimeError("of the handler")

    on_log(act)
    with Server(refuses_step_3) as server:
        oona = client(server, sender, strict=False)
        send(oona, range(6))
        assert oona.flush(300)
        assert oona.frame("enc.0", 0, IDS, None, {}) is False
        assert oona.event("enc.0", 0, None, None) is False
        for length in (9, 10):
            oona.frame("enc.0", 10 + length, IDS, State.TRAINING, {"loss": torch.on_device([1] * length)})
        torch.run()
        assert oona.flush(300)
        if sender == "process":
            pid = oona.stats().sender_pid
            os.kill(pid, signal.SIGKILL)
            until(lambda: oona.stats().sender_pid != pid)
        send(oona, [30])
        counts = oona.close().frames
        until(lambda: freed(oona))
        assert sorted(frame["step"] for frame in server.accepted) == [0, 1, 2, 4, 5, 20, 30]
    assert (counts.accepted, counts.rejected, counts.invalid) == (7, 1, 2)
    assert any("refuses frames" in m for m in messages) and any("was not sent" in m for m in messages)
    assert ("has died" in " ".join(messages)) == (sender == "process")
    assert "of the handler" in capsys.readouterr().err


# Other calls in the midst of a frame.


def test_flush_in_the_midst_of_a_frame_does_not_wait_for_copies(server, torch):  # noqa: F811
    class Flushing:
        def __array__(self, *_, **__):
            flushed.append(oona.flush(600))
            return np.zeros(10)

    flushed = []
    oona = client(server, "thread")
    assert oona.frame("enc.0", 0, IDS, State.TRAINING, {"loss": torch.on_device(IDS)})
    thread = threading.Thread(target=oona.frame, args=("enc.0", 1, IDS, State.TRAINING, {"loss": Flushing()}), daemon=True)
    thread.start()
    thread.join(60)
    assert flushed == [False]
    torch.run()
    assert oona.close().frames.accepted == 2


def test_a_sender_that_is_stopped_does_not_make_the_training_wait(server):
    oona = client(server, "process")
    pid = oona.stats().sender_pid
    os.kill(pid, signal.SIGSTOP)
    try:
        def poke():
            for _ in range(200_000):  # more than a pipe has room for
                oona._link.poke()

        thread = threading.Thread(target=poke, daemon=True)
        thread.start()
        thread.join(60)
        assert not thread.is_alive()
    finally:
        os.kill(pid, signal.SIGCONT)
    send(oona, range(3))
    assert oona.close().frames.accepted == 3
