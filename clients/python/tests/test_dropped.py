"""A client that is dropped without close(), as when the cell of a notebook is run again."""

import gc
import logging
import weakref

import pytest
from server import SILENT, Server, until
from test_device import torch  # noqa: F401  a fixture
from test_process import gone, script
from training import IDS, client, send, steps_of

from oona_client import State, closing
from oona_client import sender as sender_module


class Rest:
    """What is left of a client. Nothing of it refers to the client."""

    def __init__(self, oona):
        self.closing, self.link, self.ring, self.pid = oona._closing, oona._link, oona._ring, oona.stats().sender_pid
        self.client = weakref.ref(oona)

    def ended(self):
        return self.ring._memory.closed and self.ring.fd == -1

    def check(self):
        """Wait until the sender and all threads have ended, and return the last counters."""
        assert self.client() is None
        until(self.ended)
        until(lambda: self.closing not in closing._dropped)
        assert not any(t is not None and t.is_alive() for t in (self.link._log, self.link._thread))
        assert not self.pid or gone(self.pid)
        return self.closing.last


def levels(caplog):
    return [record.levelno for record in caplog.records if record.name == "oona_client"]


def test_what_waits_is_sent_and_the_sender_ends(sender, tmp_path):
    with Server() as server:
        oona = client(server, sender, linger=60.0, spool=tmp_path)
        rest = Rest(oona)
        send(oona, range(5))
        assert oona.event("enc.0", 0, State.DORMANT, State.GERMINATED)
        until(lambda: list(tmp_path.glob("*/lock")))
        del oona
        last = rest.check()
        assert (last.frames.accepted, last.events.accepted) == (5, 1)
        assert list(tmp_path.iterdir()) == []


def test_the_garbage_collector_may_be_the_one_that_drops_it(sender):
    with Server() as server:
        oona = client(server, sender, linger=60.0)
        rest = Rest(oona)
        send(oona, range(5))
        cycle = [oona]
        cycle.append(cycle)
        del oona, cycle
        assert rest.client() is not None and not rest.ended()  # only the collector can tell
        gc.collect()
        assert rest.check().frames.accepted == 5
        assert steps_of(server) == list(range(5))


def test_copies_under_way_are_sent_too(sender, torch):  # noqa: F811
    with Server() as server:
        oona = client(server, sender)
        rest = Rest(oona)
        assert oona.frame("enc.0", 7, IDS, State.TRAINING, {"loss": torch.on_device(IDS)})
        del oona
        assert rest.client() is None and not rest.ended()
        torch.run()
        assert rest.check().frames.accepted == 1
        assert steps_of(server) == [7]


def test_a_cell_that_is_run_again(sender, caplog):
    with Server() as server:
        rests = []
        for first in (0, 10, 20):
            caplog.clear()
            oona = client(server, sender, linger=60.0)  # the old one is still there now
            assert levels(caplog).count(logging.WARNING) == (first > 0)
            rests.append(Rest(oona))
            send(oona, range(first, first + 3))
        for rest in rests[:2]:
            assert rest.check().frames.accepted == 3
        assert not rests[2].ended()
        assert oona.close().frames.accepted == 3
        assert sorted(steps_of(server)) == [0, 1, 2, 10, 11, 12, 20, 21, 22]


@pytest.mark.parametrize("other", [{"producer": "rank-1"}, {"timeline": "rank-1"}])
def test_a_client_for_something_else_is_no_reason_to_warn(caplog, other):
    with Server() as server, client(server, "thread"), client(server, "thread", **other):
        assert levels(caplog).count(logging.WARNING) == 0
        with client(server, "thread"):
            assert levels(caplog).count(logging.WARNING) == 1


def test_what_is_not_answered_is_left_in_the_spool_for_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(sender_module, "ADOPT_EVERY", 0.02)
    with Server(lambda *_: SILENT) as server:
        oona = client(server, "thread", spool=tmp_path, close_timeout=0.1)
        rest = Rest(oona)
        send(oona, range(4))
        until(lambda: server.requests)
        with Server() as other:
            oona = client(other, "thread", spool=tmp_path)  # while the first one has its lock
            until(lambda: rest.closing.last is not None)
            assert rest.closing.last.frames.spooled == 4
            until(lambda: oona.stats().recovered == 4)
            oona.close()
            assert steps_of(other) == list(range(4))
    assert list(tmp_path.iterdir()) == []


def test_what_is_lost_is_logged(sender, caplog):
    with Server(lambda *_: (503, "", {})) as server:
        oona = client(server, sender, close_timeout=0.1)
        rest = Rest(oona)
        send(oona, range(4))
        del oona
        assert rest.check().frames.lost == 4
    assert logging.ERROR in levels(caplog)


def test_it_is_closed_at_exit_if_there_can_be_no_thread(monkeypatch):
    with Server() as server:
        oona = client(server, "thread", linger=60.0)
        rest = Rest(oona)
        send(oona, range(4))
        start = closing.threading.Thread.start

        def start_others(thread):
            if thread.name == "oona-close":
                raise RuntimeError("no thread")
            start(thread)

        with monkeypatch.context() as patch:
            patch.setattr(closing.threading.Thread, "start", start_others)
            del oona
        assert rest.closing in closing._dropped and rest.closing.last is None
        closing.wait_for_all()
        assert rest.check().frames.accepted == 4


def test_after_close_there_is_nothing_to_do(sender, caplog):
    caplog.set_level(logging.INFO)
    with Server() as server:
        oona = client(server, sender)
        oona.close()
        rest = Rest(oona)
        caplog.clear()
        del oona
        assert rest.client() is None and rest.closing not in closing._dropped and levels(caplog) == []


def test_an_exit_waits_for_clients_that_were_dropped(sender):
    with Server() as server:
        process = script("""
            for first in (0, 20):
                oona = Client(sys.argv[1], "run", sender=sys.argv[2], linger=60, close_timeout=200)
                send(range(first, first + 20))
            oona = None
        """, server.url, sender)
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        assert sorted(steps_of(server)) == list(range(40))


def test_a_forked_child_forgets_them(sender):
    with Server(lambda *_: SILENT) as server:
        process = script("""
            from oona_client import closing
            oona = Client(sys.argv[1], "run", sender=sys.argv[2], close_timeout=600)
            ring, pid = oona._ring, oona.stats().sender_pid
            send(range(5))
            oona = None
            child = os.fork()
            if child == 0:
                os._exit(0 if not closing._dropped and ring.fd == -1 else 1)
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), len(closing._dropped), flush=True)
            pid and os.kill(pid, signal.SIGKILL)
            os._exit(0)
        """, server.url, sender)
        out, err = process.communicate(timeout=300)
    assert (process.returncode, out) == (0, "0 1\n"), err


@pytest.mark.parametrize("used", [True, False])
def test_a_client_of_the_parent_may_be_dropped_in_a_forked_child(sender, used):
    with Server() as server:
        process = script("""
            from oona_client import closing
            oona = Client(sys.argv[1], "run", sender=sys.argv[2], producer="me", linger=60, close_timeout=200)
            send(range(5))
            child = os.fork()
            if child == 0:
                if sys.argv[3] == "True":
                    send(range(100, 105))
                oona = None
                print(len(closing._dropped), flush=True)
                sys.exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            oona.close()
        """, server.url, sender, str(used))
        out, err = process.communicate(timeout=300)
        assert (process.returncode, out) == (0, f"{int(used)}\n"), err
        assert "Traceback" not in err
        assert sorted(steps_of(server)) == list(range(5)) + list(range(100, 105)) * used
