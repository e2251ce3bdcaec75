"""The end of a run: what is sent, and when."""

import os
import signal
import threading

import numpy as np
import pytest
from server import Server, ok, problem, until
from test_device import torch  # noqa: F401
from training import IDS, client, send

from oona_client import InvalidFrame, Outcome, State
from oona_client.handover import Closed

NOW = 1_790_000_001_000_000


def ends_of(server):
    return [record for record in server.accepted if "outcome" in record]


def event(to, n):
    return to.event("enc.0", n, State.DORMANT, State.GERMINATED)


def kinds(records):
    return ["frame" if "metrics" in record else "event" if "evidence" in record else "end" for record in records]


def test_it_comes_after_everything_before_it(sender):
    with Server() as server, client(server, sender, timeline="rank0") as oona:
        send(oona, range(200))
        for n in range(3):
            assert event(oona, n)
        assert oona.end("Stopped", "a deadline", at=NOW)
        assert oona.flush(300)
        stats = oona.stats()
    *before, last = kinds(server.accepted)
    assert sorted(before) == ["event"] * 3 + ["frame"] * 200 and last == "end"
    end, = ends_of(server)
    assert end.pop("at").timestamp() * 1e6 == NOW
    assert end == {"run_id": "run", "outcome": "STOPPED", "reason": "a deadline", "step": 199, "timeline": "rank0",
                   "producer_id": oona.producer, "producer_epoch": oona.epoch}
    assert (stats.frames.accepted, stats.events.handed, stats.events.accepted, stats.events.waiting) == (200, 4, 4, 0)


def test_by_default_it_is_complete_now_at_the_greatest_step(sender):
    with Server() as server, client(server, sender) as oona:
        assert oona.end()
        step = np.array(7)
        send(oona, [step, np.int64(3)])
        step[()] = 70  # the array belongs to the caller
        assert oona.end()
        assert oona.end(Outcome.FAILED, step=5)
        assert oona.flush(300)
    assert [(end["step"], end["outcome"]) for end in ends_of(server)] == [(0, "COMPLETED"), (7, "COMPLETED"), (5, "FAILED")]
    assert all(oona.epoch <= end["at"].timestamp() * 1e6 for end in ends_of(server))


def test_a_run_may_go_on(sender):
    """Frames that come after the end do not keep it back."""
    first, later = threading.Event(), threading.Event()

    def script(n, request):
        if request.path == "/v1/frames":
            assert (first if request.records[0]["step"] == 0 else later).wait(300)
        return ok(n, request)

    with Server(script) as server, client(server, sender) as oona:
        send(oona, [0])
        until(lambda: server.requests)
        assert oona.end()
        assert event(oona, 1)
        send(oona, [1])
        first.set()
        until(lambda: len(server.requests) > 1)
        later.set()
        assert oona.flush(300)
        assert sorted(kinds(server.accepted)) == ["end", "event", "frame", "frame"]
        assert oona.end()
    assert len(ends_of(server)) == 2


def test_an_end_that_ingest_cannot_take_does_not_keep_events_back(sender):
    """An installation that was upgraded may not have the topic yet."""
    ready = threading.Event()

    def script(n, request):
        if any("outcome" in record for record in request.records) and not ready.is_set():
            return problem(503, "no-topic")
        return ok(n, request)

    with Server(script) as server, client(server, sender) as oona:
        assert event(oona, 1)
        assert oona.end()
        until(lambda: any(kinds(request.records) == ["end"] for request in server.requests))
        for n in (2, 3):
            assert event(oona, n)
        send(oona, range(3))
        until(lambda: len(server.accepted) == 6)
        assert not ends_of(server) and oona.stats().events.waiting == 1
        ready.set()
        until(lambda: ends_of(server))


def test_a_refused_end_is_counted(sender, caplog):
    with Server(lambda *_: problem(400, "invalid", event=0, field="outcome")) as server, client(server, sender) as oona:
        assert oona.end()
        assert oona.close().events.rejected == 1
    assert "ends of runs" in caplog.text


@pytest.mark.parametrize("again", [False, True])
def test_in_the_spool_it_also_comes_last(tmp_path, sender, again):
    """From the client's own spool, and from that of an earlier client."""
    with Server() as server:
        url, port = server.url, server.port
    oona = client(url, sender, spool=tmp_path)
    send(oona, range(700))  # more than a request has
    assert oona.end("failed", step=9)
    assert event(oona, 1)
    until(lambda: (oona.stats().frames.spooled, oona.stats().events.spooled) == (700, 2))
    assert [len(list(tmp_path.glob(f"*/{kind}-*.log"))) for kind in ("frames", "events", "ends")] == [1, 1, 1]
    if again:
        assert oona.close(timeout=0.5).events.spooled == 2
    with Server(port=port) as server:
        if again:
            oona = client(url, sender, spool=tmp_path)
            until(lambda: oona.stats().recovered == 702)
        else:
            assert oona.flush(300)
        oona.close()
    assert sorted(kinds(server.accepted)) == ["end", "event"] + ["frame"] * 700
    assert kinds(server.accepted)[-1] == "end"
    assert list(tmp_path.iterdir()) == []


def test_a_sender_that_is_started_again_sends_it_last(tmp_path):
    with Server() as server:
        url, port = server.url, server.port
    oona = client(url, spool=tmp_path)
    send(oona, range(600))
    assert oona.end()
    until(lambda: (oona.stats().frames.spooled, oona.stats().events.spooled) == (600, 1))
    killed = oona.stats().sender_pid
    os.kill(killed, signal.SIGKILL)
    until(lambda: oona.stats().sender_pid != killed)
    with Server(port=port) as server:
        assert oona.flush(300)
        stats = oona.close()
    assert kinds(server.accepted) == ["frame"] * 600 + ["end"]
    assert (stats.frames.accepted, stats.events.accepted, stats.events.lost) == (600, 1, 0)


def test_it_waits_for_copies_from_a_device(torch):  # noqa: F811
    with Server() as server, client(server, "thread") as oona:
        assert oona.frame("enc.0", 4, IDS, State.TRAINING, {"loss": torch.on_device(np.ones(10))})
        assert oona.end()
        assert oona.stats().events.handed == 1
        assert not oona.flush(0.1)
        assert not server.accepted
        torch.run()
        assert oona.flush(300)
        with pytest.raises(InvalidFrame) as caught:
            oona.end(step=torch.on_device(np.ones(1)))
        assert caught.value.field == "step"
    assert kinds(server.accepted) == ["frame", "end"]
    assert ends_of(server)[0]["step"] == 4


WRONG = [
    ("outcome", "done"), ("outcome", 0), ("outcome", None), ("outcome", []), ("reason", None), ("reason", b"bytes"), ("step", -1), ("step", 1.5),
    ("step", "7"), ("step", 2**63), ("at", 1_790_000_001), ("at", 1.5),
]


@pytest.mark.parametrize(("field", "value"), WRONG, ids=str)
def test_a_wrong_argument_is_named_and_raises_only_if_strict(field, value, caplog):
    with Server() as server:
        with client(server, "thread") as strict, pytest.raises(InvalidFrame) as caught:
            strict.end(**{field: value})
        assert caught.value.field == field
        with client(server, "thread", strict=False) as lenient:
            assert lenient.end(**{field: value}) is False
            assert (lenient.stats().events.invalid, lenient.stats().events.handed) == (1, 0)
        assert not server.requests
    assert "the end of the run was not sent" in caplog.text


@pytest.mark.parametrize("reason", ["x" * 1025, "\u00e9" * 600, "\U0001f331" * 300, "bad \udcff byte"])
def test_a_reason_may_be_any_text(reason):
    """The text of an exception may be long, or not Unicode."""
    with Server() as server, client(server, "thread") as oona:
        assert oona.end("failed", reason)
    end, = ends_of(server)
    assert 10 <= len(end["reason"].encode()) <= 1024 and end["reason"][:4] == reason[:4]


def test_after_close_it_is_invalid():
    with Server() as server:
        oona = client(server, "thread")
        oona.close()
        with pytest.raises(Closed):
            oona.end()
        assert oona.stats().events.invalid == 1
    assert not ends_of(server)


def test_close_does_not_end_the_run(sender):
    with Server() as server, client(server, sender) as oona:
        send(oona, range(3))
    assert kinds(server.accepted) == ["frame"] * 3
