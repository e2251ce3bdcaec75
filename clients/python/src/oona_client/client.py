"""The client: what a training loop calls."""

from __future__ import annotations

import atexit
import logging
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from oona_client import wire
from oona_client.device import Copier, on_device, on_host
from oona_client.encoder import Encoder
from oona_client.kafka import address, is_kafka, packages
from oona_client.link import Link
from oona_client.post import check_token, check_urls, context, readable
from oona_client.ring import EVENT, FRAME, FULL, HANDED, HEAD, Ring
from oona_client.sender import Config
from oona_client.wire import InvalidFrame

log = logging.getLogger("oona_client")

RING_BYTES = 8 << 20
QUIET = 60.0  # seconds in which a complaint of a kind is not repeated


@dataclass(frozen=True)
class Counts:
    """What became of frames, or of events. handed is the sum of the six that follow it."""

    handed: int = 0  # that frame() or event() has taken; a frame that had to be split counts as its parts
    waiting: int = 0  # in memory, not yet answered
    spooled: int = 0  # on disk, not yet answered
    accepted: int = 0  # ingest has them: on the bus, or in its spool
    rejected: int = 0  # ingest has refused them for good
    dropped: int = 0  # by the policy for a full queue
    lost: int = 0  # with a sender that died, or without an answer when close() ended; ingest may have some of the latter
    aside: int = 0  # of those accepted: they will not be folded
    invalid: int = 0  # not taken: there is a fault in it, or the client is closed


@dataclass(frozen=True)
class Stats:
    """What a client has done so far."""

    frames: Counts
    events: Counts
    requests: int  # that ingest has answered
    failures: int  # without an answer
    bytes_sent: int
    spool_bytes: int
    recovered: int  # records of earlier clients that were in the spool, and were accepted
    sender_pid: int  # 0: the sender is a thread


_REENTERED = "the call is from a signal handler that has interrupted frame() or event(); let the handler set a flag instead"
_ON_DEVICE = "is a tensor on a device, for which the call would wait; give a value that is in the memory of the host"
_CLOSED = "the client is closed"
_NOTHING = Stats(Counts(), Counts(), 0, 0, 0, 0, 0, 0)


class Closed(RuntimeError):
    """The client is closed, and takes nothing more."""


class Client:
    """Sends the frames and events of a run to Oona. Nothing that it does makes the training wait.

    frame() and event() copy what they are given, and return. They raise nothing,
    unless strict is set: what is wrong is logged once per kind, and counted.
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
        addresses = [urls] if isinstance(urls, str) else list(urls)
        check_urls(addresses)
        for path in (token_file, ca_file, cert_file, key_file):
            readable(os.fspath(path))
        token = check_token(token.strip() if isinstance(token, str) else token, "token")
        if any(url.startswith("https:") for url in addresses):
            context(os.fspath(ca_file), os.fspath(cert_file), os.fspath(key_file))  # raises if a file is of another kind
        _check_numbers(queue_bytes=queue_bytes, queue_frames=queue_frames, spool_bytes=spool_bytes, linger=linger, timeout=timeout,
                       close_timeout=close_timeout)
        if spool:
            Path(spool).mkdir(parents=True, exist_ok=True)
            if not os.access(spool, os.W_OK | os.X_OK):
                raise PermissionError(f"the spool {os.fspath(spool)} cannot be written; give another directory, or correct its owner or mode")
        if overflow not in ("oldest", "newest"):
            raise ValueError(f"overflow is {overflow!r}; it is oldest or newest: which frames a full queue drops")
        if sender not in ("auto", "process", "thread"):
            raise ValueError(f"sender is {sender!r}; it is auto, process or thread")
        self.run = wire.identifier("run", run)
        self.timeline = wire.identifier("timeline", timeline, empty=True)
        self.producer = wire.identifier("producer", producer or _default_producer())
        self.strict = strict
        self.close_timeout = close_timeout
        self._sender = sender
        self._config = Config(
            urls=addresses, token=token, token_file=os.fspath(token_file), ca_file=os.fspath(ca_file),
            cert_file=os.fspath(cert_file), key_file=os.fspath(key_file), compress=compress, linger=linger,
            timeout=timeout, queue_bytes=queue_bytes, queue_frames=queue_frames, oldest=overflow == "oldest",
            spool=os.fspath(spool) and str(Path(spool).absolute()), spool_bytes=spool_bytes,
        )
        if is_kafka(addresses[0]):
            address(addresses[0])  # raises if it is none
            self._config.kafka, self._config.packages, self._config.key = dict(kafka or {}), packages(), self.producer
        elif kafka:
            raise ValueError("kafka is for an address kafka://BROKERS")
        self._last: Stats | None = None  # once it is closed
        self._forked = False
        self._ready = False
        self._invalid = [0, 0]
        self._said: dict[str, float] = {}
        self._start()
        _clients.add(self)

    def _start(self) -> None:
        """Take a new identity, and start a sender."""
        self._lock = threading.RLock()  # a signal handler may call close() in the midst of frame()
        self._busy = False  # in frame() or event(); the lock does not tell, as it lets the same thread in again
        self._closed = False
        self._sequences: dict[tuple[str, int], int] = {}
        self.epoch = time.time_ns() // 1000
        self._encoder = Encoder(self.run, self.timeline, self.producer, self.epoch)
        self._copier = Copier(self._hand_on, self._lost)
        self._config.name = f"{self.producer}-{self.epoch}"
        self._ring = Ring.create(RING_BYTES)
        process = self._sender == "process" or self._sender == "auto" and _can_spawn()
        try:
            self._link = Link(self._ring, self._config, process=process)
        except OSError as failure:
            if self._sender == "process":
                raise
            log.warning("a process for the sender cannot be started (%s); it is a thread", failure)
            self._link = Link(self._ring, self._config, process=False)
        self._ready = True

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
        """Hand over the readings of a layer's seeds, and report whether they were taken.

        seed_ids are integers, states one State a seed (or one for all), and metrics
        one value a seed each, NaN where nothing was measured. tensors has arrays by
        (name, seed id). observed_at is the time in microseconds since the Unix epoch;
        by default it is now. Everything is copied: the arrays may be changed after.
        """
        try:
            if observed_at is None:
                observed_at = time.time_ns() // 1000
            with self._lock:
                if self._busy:
                    raise RuntimeError(_REENTERED)
                try:
                    self._busy = True
                    return self._take(layer, step, observed_at, seed_ids, states, metrics, tensors)
                finally:
                    self._busy = False
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
        sequence: int | None = None,
    ) -> bool:
        """Hand over a transition of a seed, and report whether it was taken.

        An event that ingest would refuse is not taken, and gets no number. The events of
        a seed are counted from 0 in the order of the calls; give a sequence to go on
        with a run that another client began.
        """
        try:
            if at is None:
                at = time.time_ns() // 1000
            with self._lock:
                if self._busy:
                    raise RuntimeError(_REENTERED)
                try:
                    self._busy = True
                    return self._event(sequence, layer_id=layer, seed_id=seed_id, at=at, step=step, from_state=from_state, to_state=to_state,
                                       reason=reason, evidence=evidence, blueprint_id=blueprint_id, actor=actor)
                finally:
                    self._busy = False
        except Exception as failure:
            return self._failed(EVENT, failure)

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait until ingest has answered for all that was handed over, and report whether it has."""
        end = time.monotonic() + timeout
        if not self._ready:
            return self._answered()
        if not self._copier.drain(end):
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
        except ValueError:  # the client was closed meanwhile
            return self._answered()
        return True

    def _answered(self) -> bool:
        """Report whether ingest has answered for everything, if the client is closed."""
        stats = self.stats()
        return not any(counts.lost or counts.spooled or counts.waiting for counts in (stats.frames, stats.events))

    def close(self, timeout: float | None = None) -> Stats:
        """Send what waits, for at most the timeout, and end. Return what became of everything.

        What could not be sent by then is in the spool, if there is one, else lost: it
        is counted and logged.
        """
        end = time.monotonic() + (self.close_timeout if timeout is None else timeout)
        ours = False
        try:
            with self._lock:
                if self._closed:  # or another call of close() is under way
                    return self.stats()
                ours = self._closed = True
                if not self._ready:  # forked, and not used since
                    self._last = _NOTHING
                    return self.stats()
                self._ready = False
            _clients.discard(self)
            self._ring.set("close_by", int(end * 1000))
            self._copier.drain(end)
            self._copier.close()
            self._end()
            self._link.wait(max(0.0, end - time.monotonic()) + 2.0)
            ended = self._link.reap(1.0)
        except BaseException:
            if ours and self._last is None:
                self._leave(end)
            raise
        self._last = last = _stats(self._ring, self._invalid, self._link.pid, ended=True)
        if ended and not self._copier.busy:
            self._ring.close()
        for what, counts in (("frames", last.frames), ("events", last.events)):
            if counts.lost:
                log.error("%d %s are counted as lost: with a sender that died, or not answered when close() ended. "
                          "Ingest may have those that were on their way", counts.lost, what)
            if counts.spooled:
                log.warning("%d %s are in the spool; the next client with this directory sends them", counts.spooled, what)
            if counts.dropped or counts.rejected:
                log.warning("of %d %s, %d were dropped and %d rejected", counts.handed, what, counts.dropped, counts.rejected)
        return last

    def _end(self) -> None:
        """Tell the sender that nothing more comes."""
        self._link.closing = True
        self._ring.set("closing", 1)
        self._link.poke()

    def _leave(self, end: float) -> None:
        """Let the sender go on alone, as a second Ctrl-C has interrupted close()."""
        self._ready = False
        _clients.discard(self)
        self._ring.set("close_by", int(end * 1000))
        if self._copier.busy:
            self._copier.close(self._end)
        else:
            self._end()
        stats = self.stats()
        log.error("close was interrupted; %d frames and %d events are not answered. The sender goes on until the deadline%s",
                  stats.frames.waiting, stats.events.waiting, "" if self._link.pid else ", or until the interpreter ends, as it is a thread")

    def stats(self) -> Stats:
        """Return what became of what was handed over."""
        if self._last is None and (self._ready or self._closed):
            try:
                # A sender that was left alone may have ended meanwhile.
                return _stats(self._ring, self._invalid, self._link.pid, ended=bool(self._ring.get("done")))
            except ValueError:
                pass  # another thread has just closed the client
        last = self._last or _NOTHING
        # frame() and event() find faults also when there is no sender.
        return replace(last, frames=replace(last.frames, invalid=self._invalid[FRAME]), events=replace(last.events, invalid=self._invalid[EVENT]))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # How it is done.

    def _take(self, layer: str, step: int, observed_at: int, seed_ids: Any, states: Any,
              metrics: Mapping[str, Any], tensors: Mapping[tuple[str, int], Any] | None) -> bool:
        """Take a frame in the quickest way there is for it. The caller has the lock."""
        if not self._ready:
            self._renew()
        if type(step) is not int and on_device(step):
            raise InvalidFrame("step", _ON_DEVICE)
        copier = self._copier
        if tensors is None and not copier.busy:
            record = self._encoder.again(layer, step, observed_at, seed_ids, states, metrics)
            if record is not None:
                return self._push(FRAME, record)
        if any(map(on_device, metrics.values())) or copier.busy or tensors and any(map(on_device, tensors.values())) \
                or on_device(states):
            return self._copy(layer, step, observed_at, seed_ids, states, metrics, tensors)
        metrics = {name: on_host(values) for name, values in metrics.items()}
        if tensors:
            tensors = {key: on_host(values) for key, values in tensors.items()}
        return self._encode(layer, step, observed_at, on_host(seed_ids), on_host(states), metrics, tensors)

    def _event(self, sequence: int | None, **fields: Any) -> bool:
        """Number an event, and put it on the ring. The caller has the lock."""
        if not self._ready:
            self._renew()
        if self._config.packages:
            raise InvalidFrame("", "events are sent over HTTP only; give a client of its own the address of ingest")
        if self._forked and sequence is None:
            raise InvalidFrame("sequence", "is needed after a fork, as the parent counts the events, too")
        evidence = fields["evidence"]
        numbers = {"sequence": sequence, **fields}
        if isinstance(evidence, Mapping):
            numbers |= {f"evidence.{name}": value for name, value in evidence.items()}
        for field, value in numbers.items():
            if on_device(value):
                raise InvalidFrame(field, _ON_DEVICE)
        key = (fields["layer_id"], wire.whole("seed_id", fields["seed_id"]))
        following = self._sequences.get(key, 0)
        number = following if sequence is None else wire.whole("sequence", sequence)
        record = wire.encode_event(run_id=self.run, sequence=number, timeline=self.timeline, producer_id=self.producer,
                                   producer_epoch=self.epoch, **fields)
        handed = self._ring.get("handed1")
        try:
            self._sequences[key] = number + 1
            return self._push(EVENT, record)
        except BaseException:
            if self._last is None and self._ring.get("handed1") == handed:
                self._sequences[key] = following  # Ctrl-C came before the event was on the ring
            raise

    def _encode(self, layer: str, step: int, observed_at: int, seed_ids: Any, states: Any,
                metrics: Mapping[str, Any], tensors: Mapping[tuple[str, int], Any] | None, *, counted: bool = False) -> bool:
        """Encode a frame and put it on the ring. The caller has the lock."""
        taken = True
        # All parts are made before the first is sent, as there may be a fault in one.
        for record in list(self._encoder.frames(layer, step, observed_at, seed_ids, states, metrics, tensors)):
            taken = self._push(FRAME, record, 0 if counted else 1) and taken
            counted = False
        return taken

    def _copy(self, layer: str, step: int, observed_at: int, seed_ids: Any, states: Any,
              metrics: Mapping[str, Any], tensors: Mapping[tuple[str, int], Any] | None) -> bool:
        """Begin to copy what is on a device, and hand the frame on when that is done."""
        if on_device(seed_ids):
            raise InvalidFrame("seed_ids", _ON_DEVICE)
        values: dict[Any, Any] = {("metric", name): v for name, v in metrics.items()}
        values.update({("tensor", key): v for key, v in (tensors or {}).items()})
        fixed = states if isinstance(states, (int, bytes)) else None
        if fixed is None:
            values["states", ""] = states
        copy = self._copier.begin(values)
        ids = np.array(on_host(seed_ids))

        def frame() -> None:
            arrays = copy.arrays
            self._encode(layer, step, observed_at, ids, arrays.get(("states", ""), fixed),
                         {key: a for (kind, key), a in arrays.items() if kind == "metric"},
                         {key: a for (kind, key), a in arrays.items() if kind == "tensor"}, counted=True)

        if self._last is not None:  # a signal handler has closed the client
            raise Closed(_CLOSED)
        counters = self._ring.counters
        handed, full = counters[HANDED[FRAME]], counters[FULL[FRAME]]
        try:
            counters[HANDED[FRAME]] = handed + 1
            if self._copier.put(copy, frame):
                return True
            counters[FULL[FRAME]] = full + 1
            self._complain("full", "too many copies from the device are under way; frames are dropped. stats() counts them")
            return False
        except BaseException:
            if self._last is None and not self._copier.has(copy) and counters[FULL[FRAME]] == full:
                counters[HANDED[FRAME]] = handed
            raise

    def _hand_on(self, frame: Callable[[], None]) -> None:
        """Encode a frame whose copy is done, in the copier's thread."""
        with self._lock:
            if self._last is not None:
                return  # close() has counted it as lost
            try:
                frame()
            except InvalidFrame as failure:
                self._ring.set("handed0", self._ring.get("handed0") - 1)
                self._invalid[FRAME] += 1
                self._complain(f"invalid-{failure.field}", f"a frame was not sent: {failure}")

    def _lost(self) -> None:
        with self._lock:
            if self._last is None:
                self._ring.add("lost0")

    def _push(self, kind: int, record: bytes, handed: int = 1) -> bool:
        """Count the record as handed over, and put it on the ring. The caller has the lock."""
        if self._last is not None:  # a signal handler has closed the client
            raise Closed(_CLOSED)
        ring = self._ring
        counters = ring.counters
        before, head, full = counters[HANDED[kind]], counters[HEAD], counters[FULL[kind]]
        try:
            counters[HANDED[kind]] = before + handed
            used = ring.push(kind, record)
            if used:
                if used > RING_BYTES // 4:
                    self._link.poke()
                return True
            counters[FULL[kind]] = full + 1
            self._link.poke()
            if len(record) + 8 > RING_BYTES:
                self._complain("large", f"a frame of {len(record)} bytes is dropped; its tensors are too large, at most {RING_BYTES} bytes can be sent")
            else:
                self._complain("full", "the sender is behind, and its ring is full; frames are dropped. stats() counts them")
            return False
        except BaseException as failure:
            if self._last is None:  # Ctrl-C: the record was handed over if it is on the ring, or was counted as dropped
                if counters[HEAD] == head and counters[FULL[kind]] == full:
                    counters[HANDED[kind]] = before
            elif isinstance(failure, Exception):
                return False  # a signal handler has closed the client, and close() has counted the record as lost
            raise

    def _renew(self) -> None:
        """Start again in a child after a fork."""
        if self._closed:
            raise Closed(_CLOSED)
        self._start()

    def _abandon(self) -> None:
        """Be of a child after a fork: with an identity of its own, and a sender once it is used."""
        if self._closed:
            return
        self._forked = True
        self._ready = False
        self._invalid = [0, 0]
        self._said = {}
        self._lock = threading.RLock()
        self._busy = False
        self.producer = f"{self.producer[:110]}-{os.getpid()}"
        self._link.abandon()
        self._ring.close()

    def _failed(self, kind: int, failure: Exception) -> bool:
        self._invalid[kind] += 1
        if self.strict:
            raise failure
        field = failure.field if isinstance(failure, InvalidFrame) else type(failure).__name__
        self._complain(f"invalid-{field}", f"{('a frame', 'an event')[kind]} was not sent: {failure}")
        return False

    def _complain(self, kind: str, message: str) -> None:
        now = time.monotonic()
        if now - self._said.get(kind, -QUIET) >= QUIET:
            self._said[kind] = now
            log.error("%s", message)

    def _settled(self, kind: int) -> int:
        ring = self._ring
        return sum(ring.get(f"{name}{kind}") for name in ("accepted", "rejected", "dropped", "full", "lost")) - ring.get(f"split{kind}")


def _stats(ring: Ring, invalid: list[int], pid: int, *, ended: bool = False) -> Stats:
    def counts(kind: int) -> Counts:
        def get(name: str) -> int:
            return ring.get(f"{name}{kind}")

        # What is handed comes last, so that what waits is never below 0.
        accepted, rejected, lost = get("accepted"), get("rejected"), get("lost")
        dropped, spooled = get("dropped") + get("full"), get("in_spool")
        handed = get("handed") + get("split")
        waiting = max(0, handed - accepted - rejected - dropped - lost - spooled)
        return Counts(
            handed=handed, accepted=accepted, rejected=rejected, dropped=dropped, spooled=spooled,
            waiting=0 if ended else waiting, lost=lost + (waiting if ended else 0), aside=get("aside"), invalid=invalid[kind],
        )

    return Stats(
        frames=counts(FRAME), events=counts(EVENT), requests=ring.get("requests"), failures=ring.get("failures"),
        bytes_sent=ring.get("bytes_sent"), spool_bytes=ring.get("spool_bytes"), recovered=ring.get("recovered"), sender_pid=pid,
    )


def _check_numbers(**settings: float) -> None:
    """Raise for settings that are no numbers, or too small or large ones. The sender would fail with them, unseen."""
    for name, value in settings.items():
        whole = name.startswith(("queue", "spool"))
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
            raise TypeError(f"{name} is {value!r}; it is {'a whole number' if whole else 'a number of seconds'}")
        lowest = 1 if whole else 0.001 if name == "timeout" else 0
        if not lowest <= value <= (1 << 62 if whole else 86400 * 365):
            raise ValueError(f"{name} is {value!r}; it is at least {lowest}{'' if whole else ', and at most a year'}")


def _default_producer() -> str:
    """Return a name for this process: the host, and its rank if it has one."""
    rank = os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or ""
    name = socket.gethostname() + (f".{rank}" if rank else f".{os.getpid()}")
    return re.sub(r"[^A-Za-z0-9._:-]", "-", name)[:128]


def _can_spawn() -> bool:
    """Report whether the sender can be a process: that needs descriptors that are inherited."""
    return os.name == "posix" and bool(sys.executable) and not getattr(sys, "frozen", False)


_clients: set[Client] = set()  # those that are open, so that they are closed at the end


def _close_all() -> None:
    for client in list(_clients):
        client.close()


def _abandon_all() -> None:
    for client in list(_clients):
        client._abandon()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)
