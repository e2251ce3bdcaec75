"""Ends the sender of a client and frees its resources."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from oona_client.complaints import Complaints, say
from oona_client.counts import Stats, read
from oona_client.handover import Handover
from oona_client.link import Link
from oona_client.ring import Ring

_awaited: set[threading.Thread] = set()  # threads that the interpreter waits for when it exits
_dropped: dict[Closing, float] = {}  # senders that have not ended and whose clients nothing refers to, with their deadlines


class Closing:
    """Ends a sender. close() calls it, and a thread does the part for which close() cannot wait."""

    def __init__(self, ring: Ring, link: Link, handover: Handover, lock: threading.RLock, invalid: list[int], complaints: Complaints) -> None:
        self.last: Stats | None = None  # the last counters
        self.freed = False  # whether the memory is free, or a thread will free it
        self._ring = ring
        self._link = link
        self._handover = handover
        self._lock = lock
        self._without_lock = threading.Condition(lock)
        self._invalid = invalid
        self._complaints = complaints

    def finish(self, end: float) -> None:
        """Let the sender send until the given time, read the last counters, and free the memory.

        If a call was interrupted, another call does the rest.
        """
        copier = self._handover.copier
        if self.last is None:
            self._ring.set("close_by", int(end * 1000))
            copier.drain(end, self._pause)
            copier.close()
            self._tell_sender()
            self._link.wait(max(0.0, end - time.monotonic()) + 2.0, self._pause)
        ended = self._link.reap(1.0)
        with self._lock:
            self._handover.closed = True
            if self.last is None:
                self.last = read(self._ring, self._invalid, self._link.pid, ended=True)
        if ended and not copier.busy:
            self._ring.close()
        else:
            _begin(self._free, awaited=False)
        self.freed = True
        self._report(self.last)
        _dropped.pop(self, None)
        _awaited.discard(threading.current_thread())

    def later(self, end: float, *, awaited: bool) -> None:
        """Let a thread do what finish() does. If awaited, the interpreter waits for it when it exits."""
        if self.last is None:
            self._ring.set("close_by", int(end * 1000))
        # If no thread can be started, the interpreter is ending, and everything that uses the memory ends with it.
        if not _begin(self.finish, end, awaited=awaited) and self.last is None:
            self._tell_sender()

    def dropped(self, timeout: float, run: str) -> None:
        """Do in a thread what close() does, for a client that nothing refers to any more.

        The garbage collector may call this at any point of the program, so it neither
        waits nor logs.
        """
        end = _dropped[self] = time.monotonic() + timeout
        self._ring.set("close_by", int(end * 1000))
        if not _begin(self._finish_dropped, end, run, awaited=True):
            self._tell_sender()  # wait_for_all() does the rest

    def _finish_dropped(self, end: float, run: str) -> None:
        say(logging.INFO, f"nothing refers to a client of the run {run} any more; its sender sends what waits, and then ends")
        self.finish(end)

    def abandon(self) -> None:
        """Forget the sender after a fork, because it belongs to the parent."""
        self._link.abandon()
        self._ring.close()

    def concerns(self, thread: threading.Thread) -> bool:
        """Report whether finish() would wait for the thread."""
        return thread is self._handover.copier.thread or self._link.runs(thread)

    def _pause(self, seconds: float) -> None:
        """Sleep. If this thread has the lock, because it runs a signal handler that has interrupted frame(), release it meanwhile."""
        try:
            self._without_lock.wait(seconds)
        except RuntimeError:  # this thread does not have the lock
            time.sleep(seconds)

    def _tell_sender(self) -> None:
        """Tell the sender that there will be no more frames and events."""
        self._link.closing = True
        self._ring.set("closing", 1)
        self._link.poke()

    def _free(self) -> None:
        """Free the memory once nothing uses it any more."""
        while not self._link.reap(None):
            pass
        self._handover.copier.join()
        self._ring.close()

    def _report(self, last: Stats) -> None:
        """Log how many frames and events were not accepted."""
        self._complaints.say()
        for what, counts in (("frames", last.frames), ("events", last.events)):
            if counts.lost:
                say(logging.ERROR, f"{counts.lost} {what} are counted as lost: their sender died, or they were not answered before close() ended. "
                    "Ingest may have received some of them")
            if counts.spooled:
                say(logging.WARNING, f"{counts.spooled} {what} are in the spool; the next client with the same spool directory sends them")
            if counts.dropped or counts.rejected:
                say(logging.WARNING, f"of {counts.handed} {what}, {counts.dropped} were dropped and {counts.rejected} rejected; earlier messages say why")
        if last.recovered_rejected or last.recovered_dropped:
            say(logging.WARNING, f"of the frames and events that earlier clients left in the spool, {last.recovered} were accepted, "
                f"{last.recovered_rejected} rejected and {last.recovered_dropped} dropped")


def wait_for_all() -> None:
    """Wait for the threads that close clients: those that nothing refers to, and those that a log handler has closed in a thread of the client."""
    for thread in list(_awaited):
        thread.join()
    for closing, end in list(_dropped.items()):  # no thread could be started for these
        closing.finish(end)


def abandon_all() -> None:
    """Forget after a fork the senders that threads of the parent were ending."""
    for closing in list(_dropped):
        closing.abandon()
    _dropped.clear()
    _awaited.clear()


def _begin(target: Callable[..., None], *arguments: object, awaited: bool) -> bool:
    """Start a thread. Return False if it cannot be started because the interpreter is ending."""
    thread = threading.Thread(target=target, args=arguments, name="oona-close", daemon=True)
    if awaited:
        _awaited.add(thread)
    try:
        thread.start()
    except RuntimeError:
        _awaited.discard(thread)
        return False
    return True
