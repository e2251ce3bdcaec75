"""The sender: takes frames and events from the ring and sends them to ingest.

It runs in a separate process, so that it does not share an interpreter's lock with
the training loop, or else in a thread. One thread, the keeper, empties the ring,
bounds the queues and writes the spool. Another one sends.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oona_client.coding import Compressor
from oona_client.lane import HOLD, PLAIN, Lane, Log, Store
from oona_client.post import Answer, Poster, Unreachable
from oona_client.ring import END, EVENT, FRAME, Ring
from oona_client.split import halves

if TYPE_CHECKING:
    from oona_client.kafka import KafkaPoster
    from oona_client.home import Home

PATHS = ("/v1/frames", "/v1/events", "/v1/events")  # by kind
POLL, IDLE_POLL = 0.05, 0.1  # seconds between two reads of the ring
SPOOL_AFTER = 1.0  # seconds without an answer, after which frames are written to the spool
OPEN_EVERY = 10.0  # seconds between two attempts to open a spool that cannot be used
OPEN_SAID = 600.0  # seconds between two log messages that the spool cannot be used
ADOPT_EVERY = 30.0  # seconds between two searches for directories whose sender has ended
FAULT_PAUSE = 1.0  # seconds to wait after an error of the sender itself
NICE = 5  # the training loop has precedence on the processors
QUIET = 60.0  # seconds before a message of the same kind is repeated


@dataclass
class Config:
    """The configuration of a sender. It is passed to the process as JSON."""

    urls: list[str]
    token: str = ""
    token_file: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    compress: bool = True
    zstd: str = ""  # directory of a package for zstd, because the process does not search for packages
    linger: float = 0.1
    timeout: float = 15.0
    queue_bytes: int = 64 << 20
    queue_frames: int = 100_000
    oldest: bool = True  # which records a full queue drops
    orphan_timeout: float = 10.0  # seconds to continue sending after the training process has ended
    spool: str = ""
    spool_bytes: int = 1 << 30
    name: str = ""  # name of this client among those that share a spool
    parent: int = 0
    kafka: dict[str, Any] = field(default_factory=dict)  # settings of confluent-kafka
    packages: str = ""  # directory of confluent-kafka; if empty, frames are sent over HTTP
    key: str = ""  # key of records on the raw topic


class Reporter:
    """Passes on messages, at most one of each kind a minute."""

    def __init__(self, write: Callable[[str, str], None]) -> None:
        self._write = write
        self._said: dict[str, float] = {}
        self._lock = threading.Lock()

    def __call__(self, level: str, kind: str, message: str) -> None:
        now = time.monotonic()
        with self._lock:
            if now - self._said.get(kind, -QUIET) < QUIET:
                return
            self._said[kind] = now
        self._write(level, message)


def _poster(config: Config) -> Poster | KafkaPoster:
    if config.packages:
        from oona_client.kafka import KafkaPoster

        return KafkaPoster(config.urls[0], config.kafka, config.packages, key=config.key, timeout=config.timeout)
    return Poster(config.urls, token=config.token, token_file=config.token_file, ca_file=config.ca_file,
                  cert_file=config.cert_file, key_file=config.key_file, timeout=config.timeout)


class Sender:
    """Serves one ring until it is closed."""

    def __init__(self, ring: Ring, config: Config, log: Log, wake: int, orphaned: Callable[[], bool]) -> None:
        self.ring = ring
        self.config = config
        self._log = log
        self._wake = wake  # becomes readable if the sender should read the ring at once
        self._orphaned = orphaned
        self._hung_up = False
        self._changed = threading.Condition()
        self.network = threading.Thread(target=self._network, name="oona-network", daemon=True)
        self._stopping = False
        self._flush = 0
        self._refusals = 0
        self._poster = _poster(config)
        self._compress = Compressor(config.compress and not config.packages)  # Kafka compresses batches of records
        self._home: Home | None = None
        self._adopted: list[tuple[Home, list[Lane]]] = []
        self._adopt_at = 0.0
        self._adopts_more = False  # there may be more directories to adopt
        self._damaged = 0  # damaged places in directories that were adopted and are finished
        self._open_at = 0.0  # when to try to open the spool
        self._open_said = -OPEN_SAID  # when it was last logged that the spool cannot be used
        self.own = [self._lane(kind, None) for kind in (FRAME, EVENT, END)]
        self._before_end = [0, 0]  # how many frames and events were added before the last end of the run
        if config.spool:
            self._open_spool()
        self._gauge()

    @property
    def lanes(self) -> list[Lane]:
        return self.own + [lane for _, lanes in self._adopted for lane in lanes]

    def abandon(self) -> None:
        """Close the files in the child after a fork. The child does not have this sender's threads."""
        for home in [*([self._home] if self._home else []), *(home for home, _ in self._adopted)]:
            home.abandon()

    def _lane(self, kind: int, spool: Store | None, *, recovering: bool = False) -> Lane:
        config = self.config
        return Lane(kind, PATHS[kind], self.ring, self._log, queue_bytes=config.queue_bytes, queue_frames=config.queue_frames,
                    oldest=config.oldest, split=halves, spool=spool, recovering=recovering, peer=self._poster.peer)

    def _open_spool(self) -> None:
        """Open the spool, unless an attempt has failed less than OPEN_EVERY ago."""
        from oona_client.home import Home

        config, now = self.config, time.monotonic()
        if now < self._open_at:
            return
        try:
            home = Home.own(Path(config.spool), config.name, self._log, limit=config.spool_bytes, oldest=config.oldest)
        except OSError as failure:
            self._open_at = now + OPEN_EVERY
            if now - self._open_said >= OPEN_SAID:
                self._open_said = now
                self._log("error", "spool-open", f"the spool {config.spool} cannot be used: {failure}. Frames and events wait in memory only. "
                          f"It is tried again every {OPEN_EVERY:.0f} seconds.")
            return
        self._home, self._adopts_more = home, True
        for lane, spool in zip(self.own, home.spools):
            # Requests must be much smaller than the spool, so that it has room for one and for later records.
            lane.keep_in(spool, config.spool_bytes // 4)
            lane.added += lane.stored
        if self.own[END].stored:
            self._before_end = self._added()
        for index in (FRAME, EVENT):
            # If a sender died while it wrote to the spool, its records were counted as lost.
            if (found := self._stored(index) - self.ring.get(f"in_spool{index}")) > 0:
                self.ring.add(f"found{index}", found)
        if self._open_at:
            self._log("info", "spool-opened", f"the spool {config.spool} can be used now")

    def _adopt(self) -> None:
        """Take over directories of senders that have ended, and release those that are empty."""
        from oona_client.home import ADOPTED, Home

        for home, lanes in list(self._adopted):
            for lane in lanes:
                lane.count_dropped()
            if all(lane.idle for lane in lanes):
                self._adopted.remove((home, lanes))
                home.leave()
                self._damaged += home.damaged
                if self._adopts_more:
                    self._adopt_at = 0.0
        if time.monotonic() < self._adopt_at or self._stopping or len(self._adopted) >= ADOPTED:
            return
        self._adopt_at = time.monotonic() + ADOPT_EVERY
        names = {self.config.name} | {home.path.name for home, _ in self._adopted}
        try:
            room = ADOPTED - len(self._adopted)
            homes = Home.adopt(Path(self.config.spool), names, self._log, room)
            self._adopts_more = len(homes) == room
        except OSError as failure:
            self._adopts_more = False
            self._log("error", "spool-adopt", f"the spool {self.config.spool} cannot be searched for what earlier clients have left: {failure}")
            return
        for home in homes:
            self._adopted.append((home, [self._lane(kind, spool, recovering=True) for kind, spool in enumerate(home.spools)]))
            self._log("info", f"adopt-{home.path.name}", f"an earlier client has left {home.frames.size} bytes of frames and {home.events.size + home.ends.size} of events "
                      f"in the spool ({home.path.name}); they are sent")
            self._changed.notify_all()

    def run(self) -> None:
        """Send until the client closes the ring or has ended. Then send what is waiting until the deadline."""
        self.network.start()
        deadline, ending = float("inf"), False
        while True:
            moved = self._keep()
            self._poster.expire()
            if deadline == float("inf") and (close_by := self.ring.get("close_by")):
                deadline = close_by / 1e3  # until then, copies from a device may still arrive
                self._force()
            if not ending and (self.ring.get("closing") or self._hung_up or self._orphaned()):
                ending = True
                if deadline == float("inf"):
                    deadline = time.monotonic() + self.config.orphan_timeout
                self._force()
                continue
            if time.monotonic() >= deadline or ending and not moved and self._idle():
                break
            self._pause(POLL if moved or deadline != float("inf") else IDLE_POLL)
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._finish()
        self.ring.set("done", 1)

    def _keep(self) -> bool:
        """Move the records of the ring into the lanes. Report whether there were any."""
        with self._changed:
            records, position = self.ring.read()
            for kind, record in records:
                self.own[kind].put(record)
                if kind == END:
                    self._before_end = self._added()
            # If this process dies, the client counts waiting records as lost. So the records
            # must be counted as waiting before the ring releases them.
            self._gauge()
            self.ring.release(position)
            for lane in self.own:
                while lane.store(SPOOL_AFTER, linger=self.config.linger):
                    self._gauge()
                self._gauge()
            if self._home is not None:
                self._adopt()
            elif self.config.spool:
                self._open_spool()
            self._gauge()
            if records:
                self._changed.notify_all()
        if (flush := self.ring.get("flush")) != self._flush:
            self._flush = flush
            self._force()
        return bool(records)

    def _gauge(self) -> None:
        for index in (FRAME, EVENT):
            self.ring.set(f"waiting{index}", sum(lane.waiting for lane in self.own if lane.index == index))
        if self._home is not None:
            for index in (FRAME, EVENT):
                self.ring.set(f"in_spool{index}", self._stored(index))
            self.ring.set("spool_bytes", self._home.used)
            self.ring.set("corrupt", self._damaged + self._home.damaged + sum(home.damaged for home, _ in self._adopted))

    def _stored(self, index: int) -> int:
        return sum(lane.stored for lane in self.own if lane.index == index)

    def _added(self) -> list[int]:
        return [lane.added for lane in self.own[:END]]

    def _ready_at(self, lane: Lane) -> float | None:
        """Return when the lane can send, or None. An end of a run waits for the frames and events before it, which ends with theirs if they are dropped."""
        at = lane.ready_at(self.config.linger)
        if at is None or lane.kind != END or lane.flight is not None:
            return at
        if lane is self.own[END]:
            settled = all(before.settled >= n for before, n in zip(self.own, self._before_end))
        else:
            settled = all(other.idle for _, lanes in self._adopted if lane in lanes for other in lanes[:END])
        return at if settled else None

    def _force(self) -> None:
        with self._changed:
            for lane in self.lanes:
                lane.forced = True
            self._changed.notify_all()

    def _idle(self) -> bool:
        with self._changed:
            return self.ring.used == 0 and not self._adopts_more and all(lane.idle for lane in self.lanes)

    def _pause(self, seconds: float) -> None:
        if self._wake < 0:
            time.sleep(seconds)
        elif select.select([self._wake], [], [], seconds)[0] and not os.read(self._wake, 4096):
            self._wake, self._hung_up = -1, True  # the client's end is closed; the process may have become another program by exec

    def _finish(self) -> None:
        with self._changed:
            for lane in self.own:
                while lane.store(0.0, now=True):
                    self._gauge()
            for _, lanes in self._adopted:
                for lane in lanes:
                    lane.count_dropped()
            self._gauge()
            for home in [*([self._home] if self._home else []), *(home for home, _ in self._adopted)]:
                home.leave()

    def _network(self) -> None:
        while True:
            with self._changed:
                lane = self._next()
                if lane is None:
                    self._poster.close()
                    return
            try:
                self._send(lane)
            except Exception as failure:  # from the spool's disk, for example; without this thread, nothing more would be sent
                self._log("error", "network", f"sending fails: {type(failure).__name__}: {failure}")
                with self._changed:
                    lane.not_before = time.monotonic() + FAULT_PAUSE

    def _send(self, lane: Lane) -> None:
        with self._changed:
            flight = lane.take()
            if flight is None:
                return
            flight.started = time.monotonic()
        if flight.body is None:
            flight.body = self._compress(b"".join(flight.parts[0]))
        body, coding = flight.body
        try:
            answer = self._poster.post(lane.path, body, coding)
        except Exception as failure:  # usually Unreachable
            reason = str(failure)
            if not isinstance(failure, Unreachable):
                reason = f"sending fails: {type(failure).__name__}: {failure}"
                self._log("error", "network", reason)
            with self._changed:
                lane.failed(reason)
                for other in self.lanes:
                    other.not_before = max(other.not_before, lane.not_before)
            self._poster.move_on()
            return
        self._settle(lane, answer, len(body))

    def _next(self) -> Lane | None:
        """Wait for a lane that has something to send, and return it. The caller has the lock.

        Lanes that are ready take turns, so that none has to wait until another one is empty.
        """
        while not self._stopping:
            times = [(at, lane) for lane in self.lanes if (at := self._ready_at(lane)) is not None]
            now = time.monotonic()
            if ready := [lane for at, lane in times if at <= now]:
                lane = min(ready, key=lambda lane: lane.turn)
                lane.turn = max(lane.turn for lane in self.lanes) + 1
                return lane
            self._changed.wait(min(at for at, _ in times) - now if times else None)
        return None

    def _settle(self, lane: Lane, answer: Answer, sent: int) -> None:
        with self._changed:
            self.ring.add("requests")
            self.ring.add("bytes_sent", sent)
            what = lane.settle(answer)
            self._gauge()
        if what == PLAIN:
            self._compress.enabled = False
        self._refusals = self._refusals + 1 if answer.status == 503 else 0
        # Ingest always gives a reason, so without one another server has answered.
        elsewhere = what == HOLD and (answer.status == 404 or not answer.reason) or answer.status >= 500 and answer.status != 503
        if elsewhere or self._refusals >= 3:
            self._refusals = 0
            self._poster.move_on()


def main() -> None:
    """Run the sender as a process. It reads its configuration from standard input."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the training process decides when to end
    os.nice(NICE)
    start = json.loads(sys.stdin.buffer.readline())
    config = Config(**start["config"])
    if config.zstd:
        sys.path.append(config.zstd)  # after the standard library

    def write(level: str, message: str) -> None:
        try:
            sys.stdout.write(json.dumps([level, message]) + "\n")
            sys.stdout.flush()
        except (OSError, ValueError):
            pass  # the training process has ended

    ring = Ring.open(start["ring"])
    log = Reporter(write)
    try:
        Sender(ring, config, log, sys.stdin.fileno(), lambda: os.getppid() != config.parent).run()
        os._exit(0)
    except BaseException as failure:
        write("error", f"the sender has failed: {type(failure).__name__}: {failure}")
    finally:
        os._exit(1)
