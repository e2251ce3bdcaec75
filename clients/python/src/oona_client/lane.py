"""Lanes: queues of the records for one endpoint.

There is one lane for frames, one for events and one for ends of runs. A lane has
at most one request in flight, so records stay in order.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from oona_client.post import Answer, printable
from oona_client.ring import EVENT

MAX_FRAMES = 512  # the most records of a request
BATCH_BYTES = 2 << 20  # the most bytes of a request, before compression
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0  # between attempts, in seconds


class Log(Protocol):
    """Logs a message, at most one of each kind a minute."""

    def __call__(self, level: str, kind: str, message: str) -> None: ...


@dataclass
class Flight:
    """Records that are being sent. parts[0] has the records of the next request."""

    parts: deque[list[bytes]]
    spool_end: int | None = None  # end of these records in the spool, if they are in it
    spooled: int = 0  # how many were in the spool at first; some may have been answered since
    attempts: int = 0
    body: tuple[bytes, str] | None = None  # parts[0] encoded, with its content coding
    started: float = field(default_factory=time.monotonic)

    def replace(self, *parts: list[bytes]) -> None:
        """Replace the first part by others."""
        self.parts.popleft()
        self.parts.extendleft(part for part in reversed(parts) if part)
        self.body = None

    @property
    def records(self) -> list[bytes]:
        return [record for part in self.parts for record in part]


def pause(attempts: int) -> float:
    """Return how many seconds to wait after a number of failures. The time is random, so that clients do not all retry at once."""
    longest: float = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(attempts, 10))
    return random.uniform(0.5, 1.0) * longest


# What to do with a request after its answer.
ACCEPTED, REJECTED, SPLIT, HOLD, RETRY, PLAIN = "accepted", "rejected", "split", "hold", "retry", "plain"


def meaning(answer: Answer, count: int) -> str:
    """Return what to do with a request of so many records after its answer.

    REJECTED: the records are invalid. HOLD: keep the records, as an operator has to
    correct something. PLAIN: send it uncompressed.
    """
    status, reason = answer.status, answer.reason
    if status in (200, 202):
        accepted = answer.body.get("accepted")  # by ingest all or none, so another number is not from ingest
        return ACCEPTED if answer.acknowledged or type(accepted) is int and accepted == count else HOLD
    if status == 413:
        return SPLIT
    if status == 415 or (status == 400 and reason == "coding"):
        return PLAIN
    if status in (401, 403, 404, 405) or 300 <= status < 400 or reason in ("clock", "header"):
        return HOLD
    if status in (408, 425, 429) or status >= 500 or reason == "read":
        return RETRY
    return REJECTED if reason else HOLD  # HOLD: ingest always gives a reason, so it is a proxy or another server


class Counters(Protocol):
    """The counters of the sender."""

    def add(self, name: str, n: int = 1) -> None: ...


class Store(Protocol):
    """Keeps records on disk, in order."""

    @property
    def empty(self) -> bool: ...

    @property
    def pending(self) -> int:
        """Records that are not settled."""

    def append(self, records: list[bytes], *, held: bool = False) -> list[int]:
        """Write records durably. Return the end positions of those that were written.

        If held, the records are also in memory. Then those that are deleted again to make
        room for others do not count as dropped.
        """

    def read(self, size: int, count: int) -> tuple[list[bytes], int]:
        """Return the next records, and the position where they end."""

    def skip(self, end: int) -> None:
        """Continue to read at the position."""

    def commit(self, end: int) -> None:
        """Remove the records before the position."""

    def lost(self) -> int:
        """Return how many records were deleted to make room since the last call."""


Split = Callable[[bytes], list[bytes]]


class Lane:
    """The records that wait for one endpoint. The caller of its methods holds the sender's lock."""

    def __init__(self, kind: int, path: str, counters: Counters, log: Log, *, queue_bytes: int, queue_frames: int,
                 oldest: bool, split: Split, spool: Store | None = None, recovering: bool = False, peer: str = "ingest") -> None:
        self.kind = kind
        self.index = min(kind, EVENT)  # of its counters: ends of runs count as events
        self.path = path
        self.flight: Flight | None = None
        self.not_before = 0.0
        self.added = 0  # records that came to the queue, or were in the spool at first
        self.turn = 0  # number of its last request, counted over all lanes
        self.forced = False
        self.failing = False
        self._unanswered = False  # the last request had no answer
        self._peer = peer  # name of the receiver, for messages
        self._batch_bytes = BATCH_BYTES
        self.keep_in(spool)
        self._counters = counters
        self._log = log
        self._queue: deque[bytes] = deque()
        self._queue_bytes = 0
        self._first = 0.0  # when the oldest record in the queue arrived
        self._limits = (queue_bytes, queue_frames)
        self._oldest = oldest
        self._split = split
        self._recovering = recovering
        self._batch_frames = MAX_FRAMES
        self._one, self._what = (("a frame", "frames"), ("an event", "events"), ("an end of a run", "ends of runs"))[kind]

    # Input.

    def put(self, record: bytes) -> None:
        """Add a record from the ring to the queue."""
        if len(record) > self._limits[0]:  # the record would not even fit into an empty queue
            self._count("dropped", 1)
            self._say("error", "large", f"{self._one} of {len(record)} bytes is dropped, because it is larger than the whole queue: {self._limits[0]} bytes (queue_bytes)")
            return
        while self._full(record):
            if not self._oldest:
                self._drop(1, "newest")
                return
            self._queue_bytes -= len(self._queue.popleft())
            self._drop(1, "oldest")
        if not self._queue:
            self._first = time.monotonic()
        self._queue.append(record)
        self._queue_bytes += len(record)
        self.added += 1

    def _full(self, record: bytes) -> bool:
        return self._queue_bytes + len(record) > self._limits[0] or len(self._queue) >= self._limits[1]

    def _drop(self, n: int, which: str) -> None:
        """Count and log records that were dropped from the queue."""
        self._count("dropped", n)
        more = "a spool" if self.spool is None else "the spool more room if it is full (spool_bytes, or on its disk)"
        self._say("warning", "dropped", f"the queue is full, so the {which} {self._what} are dropped; "
                  f"see stats(). To keep them, give a larger queue, or {more}.")

    @property
    def waiting(self) -> int:
        """Records that are only in memory and not answered."""
        flying = 0
        if self.flight is not None and self.flight.spool_end is None:
            flying = sum(map(len, self.flight.parts))
        return len(self._queue) + flying

    @property
    def stored(self) -> int:
        """Records in the spool that are not answered. The spool itself counts the records of a flight until all of them are answered."""
        if self.spool is None:
            return 0
        flight = self.flight
        answered = max(0, flight.spooled - sum(map(len, flight.parts))) if flight is not None else 0
        return self.spool.pending - answered

    @property
    def settled(self) -> int:
        """How many of the records that were added are answered or dropped. They are the oldest ones, unless the queue was full."""
        return self.added - self.waiting - self.stored

    @property
    def idle(self) -> bool:
        return self.waiting == 0 and self.flight is None and (self.spool is None or self.spool.empty)

    # The spool.

    def keep_in(self, spool: Store | None, batch_bytes: int = BATCH_BYTES) -> None:
        """Use a spool from now on. Its records are sent first, in requests of at most batch_bytes."""
        self.spool = spool
        self.spooling = spool is not None and not spool.empty
        self._batch_bytes = min(self._batch_bytes, batch_bytes)

    def store(self, after: float, *, linger: float = 0.0, now: bool = False) -> bool:
        """Write the waiting records to the spool, if ingest has not answered for the given seconds or if now is true.

        Return whether there is more to write.

        A call writes either the records in flight or those in the queue. So the caller can
        count the former as spooled before the latter are written, which takes a while.
        """
        if self.spool is None:
            return False
        self.count_dropped()
        if self.waiting == 0:
            return False
        if not self.spooling:
            at = time.monotonic()
            slow = self.flight is not None and at - self.flight.started > after
            # One thread sends for all lanes. It may be waiting for the answer to the request of another lane.
            kept = bool(self._queue) and at - self._first > linger + after
            if not (now or self.failing or slow or kept or self._queue_bytes > self._limits[0] // 2):
                return False
        if self.flight is not None and self.flight.spool_end is None:
            # These records are older than those in the queue.
            flying = self.flight.records
            ends = self.spool.append(flying, held=True)
            if len(ends) < len(flying):  # there is no room, or the disk has failed
                if ends:
                    self.spool.commit(ends[-1])
                return False
            # If the spool is smaller than a request, it now has only the last records.
            self.flight.spool_end, self.flight.spooled = ends[-1], self.spool.pending
            self.spool.skip(ends[-1])
            self.spooling = True
            return bool(self._queue)
        self.spooling = True
        written = len(self.spool.append(list(self._queue)))
        for _ in range(written):
            self._queue_bytes -= len(self._queue.popleft())
        return False

    def count_dropped(self) -> None:
        """Count the records that the spool has dropped."""
        if self.spool is None or not (lost := self.spool.lost()):
            return
        self._count("dropped", lost)
        if self._recovering:
            self._say("error", "recovered-dropped", f"{lost} {self._what} that an earlier client left in the spool are dropped, as they cannot be read; see stats()")
            return
        self._say("warning", "spool-dropped", f"the spool has dropped {self._what}: the oldest ones, because it is full, or those in a file that could not be read, "
                  "which the log then names; see stats(). To keep the oldest ones, give the spool more room (spool_bytes).")

    # Output.

    def ready_at(self, linger: float) -> float | None:
        """Return the time at which the next request can be sent, or None if there is nothing to send."""
        if self.flight is not None:
            return self.not_before
        if self.spool is not None and not self.spool.empty:
            return self.not_before
        if not self._queue:
            return None
        full = self._queue_bytes >= self._batch_bytes or len(self._queue) >= self._batch_frames
        return self.not_before if full or self.forced else max(self.not_before, self._first + linger)

    def take(self) -> Flight | None:
        """Return the records to send next. They are in flight from now on."""
        if self.flight is not None:
            return self.flight
        batch: list[bytes] = []
        end: int | None = None
        if self.spool is not None and not self.spool.empty:
            batch, end = self.spool.read(self._batch_bytes, self._batch_frames)
        else:
            size = 0
            while self._queue and len(batch) < self._batch_frames and size + len(self._queue[0]) <= self._batch_bytes or not batch and self._queue:
                record = self._queue.popleft()
                size += len(record)
                batch.append(record)
            self._queue_bytes -= size
            self._first = time.monotonic()
        self.flight = Flight(deque([batch]), end, 0 if end is None else len(batch)) if batch else None
        return self.flight

    # Answers.

    def settle(self, answer: Answer) -> str:
        """Handle the answer to the request with parts[0]. Return its meaning."""
        flight = self.flight
        assert flight is not None
        records = flight.parts[0]
        what = meaning(answer, len(records))
        if what == ACCEPTED:
            self._accepted(len(records), answer)
            flight.replace()
        elif what in (REJECTED, SPLIT):
            self._refused(flight, answer, what)
        elif what == PLAIN and flight.body is not None and flight.body[1]:
            flight.body = None
        elif what == PLAIN:  # the request was not compressed
            what = HOLD
        if what in (HOLD, RETRY):
            self._later(answer, what)
        else:
            self._recovered()
        if not flight.parts:
            self._landed(flight)
        return what

    def failed(self, reason: str) -> None:
        """Handle a request without an answer."""
        self._counters.add("failures")
        if not self._unanswered:
            self._say("warning", "unreachable", f"{reason}. The {self._what} are kept and will be sent again.")
        self._unanswered = True
        self._retry(None)

    def _accepted(self, n: int, answer: Answer) -> None:
        aside = answer.body.get("aside")
        for entry in aside if isinstance(aside, list) else ():
            if isinstance(entry, dict):
                frames, reason = entry.get("frames", 0), printable(str(entry.get("reason")))
                self._count("aside", min(frames, n) if isinstance(frames, int) and frames > 0 else 0)
                self._say("warning", f"aside-{reason}",
                          f"ingest has accepted {self._what} that will not be folded: {reason}: {printable(str(entry.get('detail', '')))}")
        self._count("accepted", n)  # last, because `flush` waits for it

    def _refused(self, flight: Flight, answer: Answer, what: str) -> None:
        """Drop or split the refused record, and send the others again. If the answer does not say which record it is, send two halves."""
        records = flight.parts[0]
        index = answer.body.get("frame", answer.body.get("event"))
        if len(records) == 1:
            index = 0
        if type(index) is int and 0 <= index < len(records):
            pieces = self._split(records[index]) if what == SPLIT and self.index == 0 else []
            if pieces:
                self._count("split", len(pieces) - 1)
                self._say("info", "split", f"a frame is too large for {self._peer} and was split by seed ids: {answer.detail}")
            else:
                self._count("rejected")
                kind = answer.reason or answer.why
                self._say("error", f"rejected-{kind}", f"{self._peer} refuses {self._what}, so they are dropped: {kind}: {answer.detail}")
            flight.replace(records[:index], pieces, records[index + 1:])
            return
        half = len(records) // 2
        if what == SPLIT:
            self._batch_frames = max(1, half)
            self._batch_bytes = max(64 << 10, sum(map(len, records)) // 2)
        flight.replace(records[:half], records[half:])

    def _later(self, answer: Answer, what: str) -> None:
        peer, why, kept = self._peer, answer.why, f"The {self._what} are kept and will be sent again."
        if not answer.reason and (answer.status < 300 or answer.status == 400):
            why += ", which is not an answer of ingest; check the address"
        if answer.status in (401, 403):
            self._say("error", f"held-{answer.status}", f"{peer} does not let this client send {self._what} ({why}): {answer.detail}. "
                      f"{answer.advice or 'Check the token, its runs and its producers'}. {kept}")
        elif what in (HOLD, PLAIN):
            self._say("error", f"held-{why}", f"{peer} does not accept {self._what} ({why}): {answer.detail}. {answer.advice or 'Correct the cause'}. {kept}")
        else:
            self._say("warning", f"retry-{why}", f"{peer} cannot accept {self._what} now ({why}): {answer.detail}. {kept}")
        self._unanswered = False
        self._retry(answer.retry_after)

    def _retry(self, after: float | None) -> None:
        assert self.flight is not None
        self.failing = True
        self.flight.attempts += 1
        wait = pause(self.flight.attempts)
        if after is not None:
            wait = min(after, 300.0) + random.uniform(0, 0.1) * min(after, 10.0)
        self.not_before = time.monotonic() + wait
        self.flight.started = time.monotonic()

    def _recovered(self) -> None:
        if self.failing:
            self._say("info", "again", f"{self._peer} accepts {self._what} again")
        self.failing = self._unanswered = False
        self.not_before = 0.0

    def _landed(self, flight: Flight) -> None:
        """Finish a flight whose records are all settled."""
        self.flight = None
        if self.spool is not None and flight.spool_end is not None:
            self.spool.commit(flight.spool_end)
            if self.spool.empty:
                self.spooling = False
        if self.waiting == 0:
            self.forced = False

    def _say(self, level: str, kind: str, message: str) -> None:
        """Log a message. Messages of different lanes are different kinds."""
        self._log(level, f"{kind}-{self._what}", message)

    def _count(self, name: str, n: int = 1) -> None:
        if not self._recovering:
            self._counters.add(f"{name}{self.index}", n)
        elif name == "accepted":
            self._counters.add("recovered", n)
        elif name != "split":
            self._counters.add(f"recovered_{name}", n)
