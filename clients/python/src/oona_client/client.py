"""The client: what a training loop calls."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from oona_client import closing, events, settings, wire
from oona_client.closing import Closing
from oona_client.complaints import Complaints, say
from oona_client.counts import NOTHING, Stats, read
from oona_client.device import on_device
from oona_client.encoder import Encoder
from oona_client.handover import CLOSED, ON_DEVICE, RING_BYTES, Closed, Handover
from oona_client.kafka import RAW, TOPIC, address
from oona_client.link import Link, can_spawn
from oona_client.ring import END, EVENT, FRAME, Ring
from oona_client.wire import InvalidFrame, Outcome

_REENTERED = "frame(), event() and end() cannot be called by a signal handler that has interrupted one of them; let the handler set a flag instead"


class Client:
    """Sends the frames, the events and the end of a run to Oona, without making the training loop wait.

    frame(), event() and end() copy their arguments and return. Unless strict is set, they
    do not raise: errors are counted, and logged at most once a minute for each kind.

    When nothing refers to a client any more, a thread closes it. So no thread of the
    client may refer to the client itself.
    """

    def __init__(
        self,
        urls: str | Sequence[str],
        run: str,
        *,
        token: str = "",
        token_file: str | os.PathLike[str] = "",
        producer: str = "",
        timeline: str = "",
        ca_file: str | os.PathLike[str] = "",
        cert_file: str | os.PathLike[str] = "",
        key_file: str | os.PathLike[str] = "",
        queue_bytes: int = 64 << 20,
        queue_frames: int = 100_000,
        overflow: str = "oldest",
        spool: str | os.PathLike[str] = "",
        spool_bytes: int = 1 << 30,
        linger: float = 0.1,
        timeout: float = 15.0,
        close_timeout: float = 10.0,
        compress: bool = True,
        strict: bool = False,
        sender: str = "auto",
        kafka: Mapping[str, Any] | None = None,
    ) -> None:
        self.run = settings.identifier("run", run)
        self.timeline = settings.identifier("timeline", timeline, empty=True)
        self.producer = settings.identifier("producer", producer, empty=True) or settings.default_producer()
        self.strict = settings.flag("strict", strict)
        self.close_timeout = settings.seconds("close_timeout", close_timeout)
        self._sender = settings.choice("sender", sender, "auto", "process", "thread")
        self._config = settings.config(
            urls, self.producer, token=token, token_file=token_file, ca_file=ca_file, cert_file=cert_file, key_file=key_file,
            queue_bytes=queue_bytes, queue_frames=queue_frames, overflow=overflow, spool=spool, spool_bytes=spool_bytes,
            linger=linger, timeout=timeout, compress=compress, sender=sender, kafka=kafka,
        )
        self._lock = threading.RLock()  # reentrant, because a signal handler may call close() during frame()
        self._busy = False  # in frame(), event() or end(); the lock does not show this, because it is reentrant
        self._ready = False  # whether frame(), event() and end() can pass records to a sender
        self._started = False  # whether this process has started a sender
        self._closed = False
        self._forked = False
        self._invalid = [0, 0]
        self._reached = 0  # the greatest step of a frame
        self._complaints = Complaints()
        self._start()
        self._warn_of_another()
        self._warn_of_topic()
        _clients.add(self)

    def _start(self) -> None:
        """Start a sender, with a new epoch."""
        self.epoch = time.time_ns() // 1000
        self._config.name = f"{self.producer}-{self.epoch}"
        self._ring = Ring.create(RING_BYTES)
        try:
            self._link = self._connect()
        except BaseException:
            self._ring.close()
            raise
        encoder = Encoder(self.run, self.timeline, self.producer, self.epoch)
        self._handover = Handover(self._ring, self._link, self._lock, encoder, self._invalid, self._complaints)
        self._closing = Closing(self._ring, self._link, self._handover, self._lock, self._invalid, self._complaints)
        self._when_dropped = weakref.finalize(self, self._closing.dropped, self.close_timeout, self.run)
        self._when_dropped.atexit = False  # _close_all() closes it then
        self._ready = self._started = True
        _close_with_multiprocessing()

    def _connect(self) -> Link:
        process = self._sender == "process" or self._sender == "auto" and can_spawn()
        try:
            return Link(self._ring, self._config, process=process)
        except OSError as failure:
            if self._sender == "process":
                raise
            say(logging.WARNING, f"cannot start a process for the sender ({failure}); it runs as a thread")
            return Link(self._ring, self._config, process=False)

    def _warn_of_another(self) -> None:
        """Warn if this process has another open client with the same identity. In a notebook, the cell may have been run twice."""
        def what(client: Client) -> tuple[str, str, str, bool]:
            return client.run, client.timeline, client.producer, bool(client._config.packages)

        if any(not client._closed and what(client) == what(self) for client in list(_clients)):
            say(logging.WARNING, f"this process has another open client of the run {self.run}, and both send. Each one numbers the events of a seed "
                "from 0, so send events with one of them only. The other one ends after close(), or when nothing refers to it any more")

    def _warn_of_topic(self) -> None:
        """Warn if no ingest reads the topic: Kafka would acknowledge the frames, and nobody would miss them."""
        if not self._config.packages:
            return
        _, topic = address(self._config.urls[0])
        if not topic.endswith(RAW):
            say(logging.WARNING, f"ingest reads frames only from topics whose names end in {RAW}, such as {TOPIC}; {topic} is none of them. Correct urls")

    # What the training loop calls.

    def frame(
        self,
        layer: str,
        step: int,
        seed_ids: Any,
        states: Any,
        metrics: Mapping[str, Any],
        tensors: Mapping[tuple[str, int], Any] | None = None,
        *,
        observed_at: int | None = None,
    ) -> bool:
        """Send the measurements of a layer's seeds. Return whether the frame was accepted.

        seed_ids are integers. states has a State for each seed, or is one State for
        all of them. metrics maps names to values, one for each seed; NaN means that
        nothing was measured. tensors maps (name, seed id) to an array. observed_at is
        in microseconds since the Unix epoch; the default is now. All arguments are
        copied, so the caller may change the arrays afterwards.
        """
        try:
            if observed_at is None:
                observed_at = time.time_ns() // 1000
            elif on_device(observed_at):
                raise InvalidFrame("observed_at", ON_DEVICE)
            with self._lock:
                if self._busy:
                    raise self._not_now()
                try:
                    self._busy = True
                    if not self._ready:
                        self._renew()
                    taken = self._handover.frame(layer, step, observed_at, seed_ids, states, metrics, tensors)
                    if type(step) is not int:
                        step = wire.whole("step", step)  # the caller may change an array with the step
                    if step > self._reached:
                        self._reached = step
                finally:
                    self._busy = False
            if self._complaints.noted:
                self._complaints.say()
            return taken
        except Exception as failure:
            return self._failed(FRAME, failure)

    def event(
        self,
        layer: str,
        seed_id: int,
        from_state: int,
        to_state: int,
        *,
        step: int = 0,
        reason: str = "",
        evidence: Mapping[str, float] | None = None,
        at: int | None = None,
        blueprint_id: str = "",
        actor: str = "",
        mark: str = "NORMAL",
        sequence: int | None = None,
    ) -> bool:
        """Send a transition of a seed. Return whether the event was accepted.

        The events of a seed are numbered from 0, in the order of the calls. An event
        that ingest would refuse is not accepted and uses no number. To continue a run
        that another client began, pass sequence.

        Pass the mark "REWOUND" if the seed returned to its state in a checkpoint, and
        "ADOPTED" if it was found in this state. Such an event may start from any state.
        """
        now = time.time_ns() // 1000  # before any wait for the lock
        return self._hand(EVENT, lambda: self._event(layer, seed_id, sequence, {
            "from_state": from_state, "to_state": to_state, "step": step, "reason": reason, "evidence": evidence, "at": now if at is None else at,
            "blueprint_id": blueprint_id, "actor": actor, "mark": mark,
        }))

    def end(self, outcome: Outcome | str = Outcome.COMPLETED, reason: str = "", *, step: int | None = None, at: int | None = None) -> bool:
        """Say that the run has ended. Return whether this was accepted.

        It is sent after all frames and events before it. outcome is an Outcome or its
        name. step is the last step; the default is the greatest one of this client's
        frames. at is in microseconds since the Unix epoch; the default is now. A long
        reason is shortened.

        Only one process of a run says this. close() does not, because a process may be
        started again. If frames with later times follow, the run was resumed, and may
        end again.
        """
        now = time.time_ns() // 1000  # before any wait for the lock
        return self._hand(END, lambda: self._end({
            "outcome": outcome, "reason": events.shortened(reason), "step": self._reached if step is None else step, "at": now if at is None else at,
        }))

    def _hand(self, kind: int, pass_on: Callable[[], bool]) -> bool:
        """Call pass_on under the lock, with a sender that is started. frame() does the same inline, because it is called most often."""
        try:
            with self._lock:
                if self._busy:
                    raise self._not_now()
                try:
                    self._busy = True
                    if not self._ready:
                        self._renew()
                    taken = pass_on()
                finally:
                    self._busy = False
            self._complaints.say()
            return taken
        except Exception as failure:
            return self._failed(kind, failure)

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait until ingest has answered for everything so far. Return False if it has not answered within the timeout, in seconds.

        In a thread of the client itself, which may run a log handler, it does not wait.
        During a call of frame(), it does not wait for copies from a device.
        """
        end = time.monotonic() + settings.limit(timeout)
        if not self._ready:
            return self._answered()
        if self._closing.concerns(threading.current_thread()):
            end = time.monotonic()
        with self._lock:
            if self._busy and self._handover.copier.busy:
                return False
        if not self._handover.copier.drain(end):
            return False
        with self._lock:
            if not self._ready:
                return self._answered()
            goal = [self._ring.get(f"handed{kind}") for kind in (FRAME, EVENT)]
            self._ring.add("flush")
            self._link.poke()
        try:
            while any(self._settled(kind) < goal[kind] for kind in (FRAME, EVENT)):
                if time.monotonic() >= end:
                    return False
                time.sleep(0.005)
        except ValueError:  # the client was closed in the meantime
            return self._answered()
        return True

    def _answered(self) -> bool:
        """Report whether ingest had answered for everything when the client was closed."""
        stats = self.stats()
        return not any(counts.lost or counts.spooled or counts.waiting for counts in (stats.frames, stats.events))

    def close(self, timeout: float | None = None) -> Stats:
        """Send what is waiting, stop the sender, and return the final counters.

        It takes at most about timeout seconds. Frames and events that ingest has not
        answered by then stay in the spool, if there is one. Otherwise they are counted
        as lost, and this is logged.

        In a thread of the client itself, which may run a log handler, close() does not
        wait: the sender continues until the timeout, and the counters are not final yet.
        """
        end = time.monotonic() + (self.close_timeout if timeout is None else settings.limit(timeout))
        ours = False
        try:
            with self._lock:
                if self._closed:  # another call has closed the client, or is closing it
                    return self.stats()
                ours = self._closed = True
                if not self._ready:  # the client was not used since a fork
                    return self.stats()
                self._ready = False
            self._forget()
            if self._closing.concerns(threading.current_thread()):
                self._closing.later(end, awaited=True)
            else:
                self._closing.finish(end)
        except BaseException:
            if ours and self._started and not self._closing.freed:
                self._interrupted(end)
            raise
        return self.stats()

    def _forget(self) -> None:
        """Make sure that nothing else closes the client."""
        _clients.discard(self)
        self._when_dropped.detach()

    def _interrupted(self, end: float) -> None:
        """Let the sender continue alone, after close() was interrupted."""
        self._ready = False
        self._forget()
        self._closing.later(end, awaited=False)
        stats = self.stats()
        say(logging.ERROR, f"close() was interrupted; {stats.frames.waiting} frames and {stats.events.waiting} events are not answered yet. The sender "
            f"continues until the deadline{'' if self._link.pid else ', or until the interpreter exits, as it is a thread'}")

    def stats(self) -> Stats:
        """Return the counters."""
        if not self._started:
            last = NOTHING
        elif self._closing.last is not None:
            last = self._closing.last
        else:
            try:
                # After an interrupted close(), the sender may have ended by now.
                return read(self._ring, self._invalid, self._link.pid, ended=bool(self._ring.get("done")))
            except ValueError:  # another thread has just closed the client
                last = self._closing.last or NOTHING
        # This object counts invalid, even while there is no sender.
        return replace(last, frames=replace(last.frames, invalid=self._invalid[FRAME]), events=replace(last.events, invalid=self._invalid[EVENT]))

    def __enter__(self) -> Client:
        return self

    def __deepcopy__(self, memo: Any) -> Client:
        return self  # a copy of a model that refers to the client sends with the same one

    def __reduce__(self) -> Any:
        raise TypeError("a Client cannot be pickled, as its sender belongs to this process; make one in each process, and save a model without it")

    def __exit__(self, *_: object) -> None:
        self.close()

    # Implementation.

    def _event(self, layer: str, seed_id: int, sequence: int | None, fields: dict[str, Any]) -> bool:
        if self._config.packages:
            raise InvalidFrame("", "events can only be sent over HTTP; use a second client with the address of ingest")
        if self._forked and sequence is None:
            raise InvalidFrame("sequence", "is required after a fork, as the parent process numbers events too")
        return self._handover.event(layer, seed_id, sequence, {
            **fields, "run_id": self.run, "timeline": self.timeline, "producer_id": self.producer, "producer_epoch": self.epoch,
        })

    def _end(self, fields: dict[str, Any]) -> bool:
        if self._config.packages:
            raise InvalidFrame("", "it can only be sent over HTTP; use a second client with the address of ingest")
        return self._handover.end({
            **fields, "run_id": self.run, "timeline": self.timeline, "producer_id": self.producer, "producer_epoch": self.epoch,
        })

    def _not_now(self) -> Exception:
        return Closed(CLOSED) if self._closed else RuntimeError(_REENTERED)

    def _renew(self) -> None:
        """Start a sender in a child process, after a fork."""
        if self._closed:
            raise Closed(CLOSED)
        self._start()

    def _abandon(self) -> None:
        """Become the client of a child process, after a fork. Its sender starts with its first frame or event."""
        if self._closed:
            return
        self._forked = True
        self._when_dropped.detach()
        self._ready = self._started = False
        self._invalid = [0, 0]
        self._complaints = Complaints()
        self._lock = threading.RLock()
        self._busy = False
        self.producer = f"{self.producer[:110]}-{os.getpid()}"
        self._link.abandon()
        self._ring.close()

    def _failed(self, kind: int, failure: Exception) -> bool:
        self._invalid[min(kind, EVENT)] += 1
        if self.strict:
            raise failure
        field = failure.field if isinstance(failure, InvalidFrame) else type(failure).__name__
        self._complaints.note(f"invalid-{field}", f"{('a frame', 'an event', 'the end of the run')[kind]} was not sent: {wire.told(failure)}")
        if not self._busy:  # otherwise the interrupted call, or the one in another thread, logs it without the lock
            self._complaints.say()
        return False

    def _settled(self, kind: int) -> int:
        ring = self._ring
        return sum(ring.get(f"{name}{kind}") for name in ("accepted", "rejected", "dropped", "full", "lost")) - ring.get(f"split{kind}") - ring.get(f"found{kind}")


_clients: weakref.WeakSet[Client] = weakref.WeakSet()  # open clients, which are closed when the interpreter exits


def _close_all() -> None:
    for client in list(_clients):
        client.close()
    closing.wait_for_all()


_registered = 0  # id of the process in which multiprocessing also closes the clients


def _close_with_multiprocessing() -> None:
    """Close the clients when a child of multiprocessing ends, because it does not call the functions registered with atexit."""
    global _registered
    util = sys.modules.get("multiprocessing.util")  # every such child has it
    if util is not None and _registered != os.getpid():
        _registered = os.getpid()
        util.Finalize(None, _close_all, exitpriority=10)


def _abandon_all() -> None:
    for client in list(_clients):
        client._abandon()
    closing.abandon_all()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)
