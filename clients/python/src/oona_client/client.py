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
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from oona_client import wire
from oona_client.counts import NOTHING, Stats, read
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
QUIET = 60.0  # a message of one kind is logged at most once in so many seconds


_REENTERED = "frame() and event() cannot be called by a signal handler that has interrupted one of them; let the handler set a flag instead"
_ON_DEVICE = "is a tensor on a device, and the call would wait for the device; pass a value in host memory"
_CLOSED = "the client is closed"


class Closed(RuntimeError):
    """The client is closed, and takes nothing more."""


class Client:
    """Sends the frames and events of a run to Oona, without making the training loop wait.

    frame() and event() copy their arguments and return. Unless strict is set, they
    do not raise: errors are counted, and logged at most once a minute for each kind.
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
            context(os.fspath(ca_file), os.fspath(cert_file), os.fspath(key_file))  # raises if a file is not of the right kind
        _check_numbers(queue_bytes=queue_bytes, queue_frames=queue_frames, spool_bytes=spool_bytes, linger=linger, timeout=timeout,
                       close_timeout=close_timeout)
        if spool:
            Path(spool).mkdir(parents=True, exist_ok=True)
            if not os.access(spool, os.W_OK | os.X_OK):
                raise PermissionError(f"the spool {os.fspath(spool)} is not writable; use another directory, or correct its owner or mode")
        if overflow not in ("oldest", "newest"):
            raise ValueError(f"overflow is {overflow!r}; it must be oldest or newest, the frames that a full queue drops")
        if sender not in ("auto", "process", "thread"):
            raise ValueError(f"sender is {sender!r}; it must be auto, process or thread")
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
            address(addresses[0])  # raises if it is not valid
            self._config.kafka, self._config.packages, self._config.key = dict(kafka or {}), packages(), self.producer
        elif kafka:
            raise ValueError("kafka can only be set with an address kafka://BROKERS")
        self._last: Stats | None = None  # set when the client is closed
        self._forked = False
        self._ready = False
        self._invalid = [0, 0]
        self._said: dict[str, float] = {}
        self._start()
        _clients.add(self)

    def _start(self) -> None:
        """Start a sender, with a new epoch."""
        self._lock = threading.RLock()  # reentrant, as a signal handler may call close() during frame()
        self._busy = False  # in frame() or event(); the lock cannot tell, as it is reentrant
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
            log.warning("cannot start a process for the sender (%s); it runs as a thread", failure)
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
        """Send the measurements of a layer's seeds. Return whether the frame was taken.

        seed_ids are integers. states has a State for each seed, or is one State for
        all of them. metrics maps names to values, one for each seed; NaN means that
        nothing was measured. tensors maps (name, seed id) to an array. observed_at is
        in microseconds since the Unix epoch, by default the present time. All
        arguments are copied, so the caller may change the arrays afterwards.
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
        """Send a transition of a seed. Return whether the event was taken.

        The events of a seed are numbered from 0, in the order of the calls. An event
        that ingest would refuse is not taken and uses no number. To continue a run
        that another client began, pass sequence.
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
        """Wait until ingest has answered for everything so far. Return False if it has not within the timeout, in seconds."""
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
        """Report whether ingest had answered for everything when the client was closed."""
        stats = self.stats()
        return not any(counts.lost or counts.spooled or counts.waiting for counts in (stats.frames, stats.events))

    def close(self, timeout: float | None = None) -> Stats:
        """Send what is waiting, stop the sender, and return the final counters.

        It takes at most about timeout seconds. What ingest has not answered by then
        stays in the spool, if there is one. Otherwise it is counted as lost and logged.
        """
        end = time.monotonic() + (self.close_timeout if timeout is None else timeout)
        ours = False
        try:
            with self._lock:
                if self._closed:  # or is being closed by another call
                    return self.stats()
                ours = self._closed = True
                if not self._ready:  # not used since a fork
                    self._last = NOTHING
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
        self._last = last = read(self._ring, self._invalid, self._link.pid, ended=True)
        if ended and not self._copier.busy:
            self._ring.close()
        for what, counts in (("frames", last.frames), ("events", last.events)):
            if counts.lost:
                log.error("%d %s are counted as lost: their sender died, or they were not answered before close() ended. "
                          "Ingest may have received some of them", counts.lost, what)
            if counts.spooled:
                log.warning("%d %s are in the spool; the next client that uses it will send them", counts.spooled, what)
            if counts.dropped or counts.rejected:
                log.warning("of %d %s, %d were dropped and %d rejected", counts.handed, what, counts.dropped, counts.rejected)
        return last

    def _end(self) -> None:
        """Tell the sender that nothing more will come."""
        self._link.closing = True
        self._ring.set("closing", 1)
        self._link.poke()

    def _leave(self, end: float) -> None:
        """Let the sender continue alone until the deadline, after an interrupted close()."""
        self._ready = False
        _clients.discard(self)
        self._ring.set("close_by", int(end * 1000))
        if self._copier.busy:
            self._copier.close(self._end)
        else:
            self._end()
        stats = self.stats()
        log.error("close() was interrupted; %d frames and %d events are not answered yet. The sender continues until the deadline%s",
                  stats.frames.waiting, stats.events.waiting, "" if self._link.pid else ", or until the interpreter exits, as it is a thread")

    def stats(self) -> Stats:
        """Return the counters."""
        if self._last is None and (self._ready or self._closed):
            try:
                # After an interrupted close(), the sender may have ended by now.
                return read(self._ring, self._invalid, self._link.pid, ended=bool(self._ring.get("done")))
            except ValueError:
                pass  # closed by another thread just now
        last = self._last or NOTHING
        # invalid is counted here, also while there is no sender.
        return replace(last, frames=replace(last.frames, invalid=self._invalid[FRAME]), events=replace(last.events, invalid=self._invalid[EVENT]))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Implementation.

    def _take(self, layer: str, step: int, observed_at: int, seed_ids: Any, states: Any,
              metrics: Mapping[str, Any], tensors: Mapping[tuple[str, int], Any] | None) -> bool:
        """Encode or copy a frame, on the fastest path that fits it. The caller holds the lock."""
        if not self._ready:
            self._renew()
        if type(step) is not int and on_device(step):
            raise InvalidFrame("step", _ON_DEVICE)
        if type(metrics) is not dict and not isinstance(metrics, Mapping):  # the second takes longer
            raise InvalidFrame("metrics", f"{type(metrics).__name__} is not a mapping of names to values")
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
        """Number an event and put it on the ring. The caller holds the lock."""
        if not self._ready:
            self._renew()
        if self._config.packages:
            raise InvalidFrame("", "events can only be sent over HTTP; use a second client with the address of ingest")
        if self._forked and sequence is None:
            raise InvalidFrame("sequence", "is required after a fork, as the parent process numbers events too")
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
        """Encode a frame and put it on the ring. The caller holds the lock."""
        taken = True
        # All parts are encoded before the first is sent, as one may be invalid.
        for record in list(self._encoder.frames(layer, step, observed_at, seed_ids, states, metrics, tensors)):
            taken = self._push(FRAME, record, 0 if counted else 1) and taken
            counted = False
        return taken

    def _copy(self, layer: str, step: int, observed_at: int, seed_ids: Any, states: Any,
              metrics: Mapping[str, Any], tensors: Mapping[tuple[str, int], Any] | None) -> bool:
        """Start to copy a frame from a device. It is sent when the copy is done."""
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

        if self._last is not None:  # closed by a signal handler
            raise Closed(_CLOSED)
        counters = self._ring.counters
        handed, full = counters[HANDED[FRAME]], counters[FULL[FRAME]]
        try:
            counters[HANDED[FRAME]] = handed + 1
            if self._copier.put(copy, frame):
                return True
            counters[FULL[FRAME]] = full + 1
            self._complain("full", "too many copies from the device are in progress, so frames are dropped; see stats()")
            return False
        except BaseException:
            if self._last is None and not self._copier.has(copy) and counters[FULL[FRAME]] == full:
                counters[HANDED[FRAME]] = handed
            raise

    def _hand_on(self, frame: Callable[[], None]) -> None:
        """Encode a frame whose copy is done. Runs in the copier's thread."""
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
        """Count a record as handed and put it on the ring. The caller holds the lock."""
        if self._last is not None:  # closed by a signal handler
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
                self._complain("large", f"a frame of {len(record)} bytes is dropped: with its tensors it may have at most {RING_BYTES} bytes")
            else:
                self._complain("full", "the sender does not keep up and its ring is full, so frames are dropped; see stats()")
            return False
        except BaseException as failure:
            if self._last is None:  # Ctrl-C: it counts only if it is on the ring or was dropped
                if counters[HEAD] == head and counters[FULL[kind]] == full:
                    counters[HANDED[kind]] = before
            elif isinstance(failure, Exception):
                return False  # closed by a signal handler: close() has counted it as lost
            raise

    def _renew(self) -> None:
        """Start a sender in a child process, after a fork."""
        if self._closed:
            raise Closed(_CLOSED)
        self._start()

    def _abandon(self) -> None:
        """Become the client of a child process, after a fork. Its sender starts with its first frame or event."""
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
        return sum(ring.get(f"{name}{kind}") for name in ("accepted", "rejected", "dropped", "full", "lost")) - ring.get(f"split{kind}") - ring.get(f"found{kind}")


def _check_numbers(**settings: float) -> None:
    """Raise for settings that are not numbers or out of range. The sender would fail with them, unnoticed."""
    for name, value in settings.items():
        whole = name.startswith(("queue", "spool"))
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
            raise TypeError(f"{name} is {value!r}; it must be {'a whole number' if whole else 'a number of seconds'}")
        lowest = 1 if whole else 0.001 if name == "timeout" else 0
        if not lowest <= value <= (1 << 62 if whole else 86400 * 365):
            raise ValueError(f"{name} is {value!r}; it must be at least {lowest}{'' if whole else ', and at most a year'}")


def _default_producer() -> str:
    """Return a name for this process: the host, and the rank or the process id."""
    rank = os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or ""
    name = socket.gethostname() + (f".{rank}" if rank else f".{os.getpid()}")
    return re.sub(r"[^A-Za-z0-9._:-]", "-", name)[:128]


def _can_spawn() -> bool:
    """Report whether the sender can be a process, which needs to inherit descriptors."""
    return os.name == "posix" and bool(sys.executable) and not getattr(sys, "frozen", False)


_clients: set[Client] = set()  # open ones, closed when the interpreter exits


def _close_all() -> None:
    for client in list(_clients):
        client.close()


def _abandon_all() -> None:
    for client in list(_clients):
        client._abandon()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)
