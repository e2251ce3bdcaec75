"""Fork, exit and sudden death of the training process."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest
from server import Server, until

from oona_client import Client, State

SOURCE = Path(__file__).resolve().parents[1] / "src"


def script(text, *arguments):
    """Start a training process."""
    head = f"import os, signal, sys, time\nsys.path.insert(0, {str(SOURCE)!r})\nimport numpy as np\nfrom oona_client import Client\n"
    send = textwrap.dedent("""
        def send(steps):
            for step in steps:
                oona.frame("enc.0", step, np.arange(10), 2, {"loss": np.zeros(10)})
    """)
    return subprocess.Popen([sys.executable, "-c", head + send + textwrap.dedent(text), *arguments], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)


def steps_of(server):
    return [record["step"] for record in server.accepted]


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_an_exit_without_close_sends_what_waits(sender):
    with Server() as server:
        process = script("""
            oona = Client(sys.argv[1], "run", sender=sys.argv[2], linger=60, close_timeout=200)
            send(range(20))
        """, server.url, sender)
        process.communicate(timeout=300)
        assert process.returncode == 0
        assert steps_of(server) == list(range(20))


def test_an_exception_ends_the_process_all_the_same(sender):
    with Server() as server:
        process = script("""
            oona = Client(sys.argv[1], "run", sender=sys.argv[2], linger=60, close_timeout=200)
            send(range(3))
            raise SystemExit(7)
        """, server.url, sender)
        process.communicate(timeout=300)
        assert process.returncode == 7
        assert steps_of(server) == list(range(3))


def test_kill_9_loses_nothing_while_ingest_answers():
    with Server() as server:
        process = script("""
            oona = Client(sys.argv[1], "run", linger=60, close_timeout=200)
            send(range(20))
            print(oona.stats().sender_pid, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        """, server.url)
        pid = int(process.communicate(timeout=300)[0])
        assert process.returncode == -signal.SIGKILL
        until(lambda: len(server.accepted) == 20)
        until(lambda: gone(pid))


def test_signals_of_the_terminal_do_not_end_the_sender():
    with Server() as server:
        process = script("""
            oona = Client(sys.argv[1], "run", linger=60, close_timeout=200)
            send(range(10))
            os.setpgid(0, 0) if os.getpgrp() != os.getpid() else None
            pid = oona.stats().sender_pid
            time.sleep(0.5)
            os.kill(pid, signal.SIGINT)
            os.kill(pid, signal.SIGTERM)
            send(range(10, 20))
            oona.close()
        """, server.url)
        process.communicate(timeout=300)
        assert process.returncode == 0
        assert steps_of(server) == list(range(20))


def test_a_forked_child_has_an_identity_and_a_sender_of_its_own(sender):
    with Server() as server:
        process = script("""
            oona = Client(sys.argv[1], "run", sender=sys.argv[2], producer="me", linger=60, close_timeout=200)
            send(range(10))
            child = os.fork()
            if child == 0:
                send(range(100, 110))
                assert not oona.event("enc.0", 0, 0, 1)
                counts = oona.close()
                os._exit(0 if (counts.frames.accepted, counts.events.invalid) == (10, 1) else 1)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            idle = os.fork()
            if idle == 0:
                oona.close()
                os._exit(0)
            status += os.waitstatus_to_exitcode(os.waitpid(idle, 0)[1])
            send(range(10, 20))
            print(status, oona.close().frames.accepted)
        """, server.url, sender)
        out, err = process.communicate(timeout=300)
        assert (process.returncode, out) == (0, "0 20\n"), err
        by_producer: dict[str, list[int]] = {}
        for record in server.accepted:
            by_producer.setdefault(record["producer_id"], []).append(record["step"])
        parent = by_producer.pop("me")
        assert parent == list(range(20))
        [(name, steps)] = by_producer.items()
        assert name.startswith("me-") and steps == list(range(100, 110))


def test_a_forked_child_that_goes_on_does_not_keep_the_sender_alive():
    with Server() as server:
        process = script("""
            oona = Client(sys.argv[1], "run", linger=60, close_timeout=200)
            send(range(5))
            child = os.fork()
            if child == 0:
                sys.stdout.close(); sys.stderr.close()
                os.close(1); os.close(2)
                time.sleep(600)
                os._exit(0)
            print(oona.stats().sender_pid, child, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        """, server.url)
        pid, child = map(int, process.communicate(timeout=300)[0].split())
        try:
            until(lambda: len(server.accepted) == 5)
            until(lambda: gone(pid))
            assert not gone(child)
        finally:
            os.kill(child, signal.SIGKILL)


def test_multiprocessing_with_fork(sender, tmp_path):
    with Server() as server:
        process = script("""
            import multiprocessing
            oona = Client(sys.argv[1], "run", sender=sys.argv[2], spool=sys.argv[3], close_timeout=200)
            def work(n):
                return oona.frame("enc.1", n, np.arange(3), 2, {"loss": np.zeros(3)}) and oona.flush(200)
            if __name__ == "__main__":
                send(range(5))
                with multiprocessing.get_context("fork").Pool(2) as pool:
                    done = pool.map(work, range(1000, 1004))
                print(done, oona.close().frames.accepted)
        """, server.url, sender, str(tmp_path))
        out, err = process.communicate(timeout=300)
        assert out == "[True, True, True, True] 5\n", err
        assert sorted(steps_of(server)) == [*range(5), *range(1000, 1004)]


def test_threads_may_share_a_client(sender):
    with Server() as server, Client(server.url, "run", sender=sender, strict=True, linger=0.01, close_timeout=300) as oona:
        def send(layer):
            for step in range(50):
                oona.frame(layer, step, np.arange(10), State.TRAINING, {"loss": np.zeros(10)})

        threads = [threading.Thread(target=send, args=(f"enc.{i}",)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert oona.flush(300)
        assert len({record["sequence"] for record in server.accepted}) == 200
        for i in range(4):
            assert [r["step"] for r in server.accepted if r["layer_id"] == f"enc.{i}"] == list(range(50))


def test_the_sender_does_not_import_numpy():
    with Server() as server, Client(server.url, "run") as oona:
        oona.frame("enc.0", 0, np.arange(3), 2, {"loss": np.zeros(3)})
        oona.flush(300)
        maps = Path(f"/proc/{oona.stats().sender_pid}/maps")
        if maps.exists():
            assert "numpy" not in maps.read_text()


def test_memory_is_bounded():
    with Server() as probe:
        url = probe.url
    oona = Client(url, "run", sender="process", queue_bytes=8 << 20, strict=True)
    values = np.random.default_rng(1).random(10_000, np.float32)
    for step in range(1500):  # 60 MB
        oona.frame("enc.0", step, np.arange(10_000), State.TRAINING, {"loss": values})
    status = Path(f"/proc/{oona.stats().sender_pid}/status")
    until(lambda: oona.stats().frames.dropped > 0)
    if status.exists():
        [kilobytes] = [int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("RssAnon")]
        assert kilobytes < (64 + 8) << 10
    counts = oona.close(timeout=0).frames
    assert counts.handed == 1500 == counts.dropped + counts.lost


def test_a_closed_client_gives_everything_back(sender):
    def descriptors():
        return len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0

    with Server() as server:
        counts = []
        for _ in range(4):
            with Client(server.url, "run", sender=sender) as oona:
                oona.frame("enc.0", 0, np.arange(3), 2, {"loss": np.zeros(3)})
                assert oona.flush(300)
            server.forget()
            counts.append((descriptors(), threading.active_count()))
        until(lambda: descriptors() <= counts[0][0] + 1)


def test_a_spool_that_cannot_be_made_is_refused_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        Client("http://127.0.0.1:1", "run", spool=tmp_path / "file")


def test_senders_that_die_lose_only_what_they_count():
    with Server() as server, Client(server.url, "run", sender="process", linger=0.01, strict=True) as oona:
        step = 0
        for _ in range(3):
            pid = oona.stats().sender_pid
            for _ in range(100):
                oona.frame("enc.0", step, np.arange(3), State.TRAINING, {"loss": np.zeros(3)})
                step += 1
            os.kill(pid, signal.SIGKILL)
            until(lambda: oona.stats().sender_pid != pid)
        assert oona.flush(300)
        counts = oona.stats().frames
        assert counts.handed == 300
        assert len({r["sequence"] for r in server.accepted}) >= 300 - counts.lost


def test_a_signal_handler_may_close_the_client_that_it_interrupts(sender):
    with Server() as server:
        process = script("""
            oona = Client(sys.argv[1], "run", sender=sys.argv[2], close_timeout=200)
            def handler(*_):
                assert not oona.frame("enc.0", 1000, np.arange(10), 2, {"loss": np.zeros(10)})
                assert not oona.event("enc.0", 1, 2, 3)
                oona.close()
                print(oona.stats().events.invalid, flush=True)
                os._exit(7)
            signal.signal(signal.SIGTERM, handler)
            class Interrupting:
                def __array__(self, *_, **__):  # in the midst of frame()
                    os.kill(os.getpid(), signal.SIGTERM)
                    return np.zeros(10)
            send(range(20))
            oona.frame("enc.0", 20, np.arange(10), 2, {"loss": Interrupting()})
        """, server.url, sender)
        out, err = process.communicate(timeout=300)
        assert (process.returncode, out) == (7, "1\n"), err
        assert steps_of(server) == list(range(20))


def test_a_close_that_is_interrupted_leaves_a_client_that_can_be_asked(sender):
    process = script("""
        oona = Client("http://127.0.0.1:1", "run", sender=sys.argv[1], close_timeout=4)
        send(range(3))
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.5)
            oona.close()
        except KeyboardInterrupt:
            print(oona.stats().frames.waiting, oona.close().frames.waiting)
    """, sender)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out) == (0, "3 3\n"), err
    assert "AttributeError" not in err


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_child_forked_while_another_thread_is_in_a_frame_can_send(sender):
    inside, leave = threading.Event(), threading.Event()

    class Slow:
        def __array__(self, *_, **__):
            inside.set()
            leave.wait(300)
            return np.zeros(10)

    with Server() as server, Client(server.url, "run", sender=sender, linger=0.01) as oona:
        thread = threading.Thread(target=oona.frame, args=("enc.0", 1, np.arange(10), State.TRAINING, {"loss": Slow()}))
        thread.start()
        assert inside.wait(300)
        pid = os.fork()
        if pid == 0:
            taken = oona.frame("enc.0", 2, np.arange(10), State.TRAINING, {"loss": np.zeros(10)})
            accepted = oona.close().frames.accepted
            os._exit(0 if taken and accepted == 1 else 1)
        _, status = os.waitpid(pid, 0)
        leave.set()
        thread.join()
        assert status == 0
