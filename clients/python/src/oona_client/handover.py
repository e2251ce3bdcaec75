"""Passes frames, events and ends of runs to the sender.

Afterwards each of them is in exactly one counter, even if a call is interrupted by
Ctrl-C or by a signal handler that closes the client.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from oona_client import events, wire
from oona_client.complaints import Complaints
from oona_client.device import Copier, Copy, on_device, on_host
from oona_client.encoder import Encoder
from oona_client.link import Link
from oona_client.ring import END, EVENT, FRAME, FULL, HANDED, HEAD, Ring
from oona_client.wire import InvalidFrame

RING_BYTES = 8 << 20

ON_DEVICE = "is a tensor on a device, and the call would wait for the device; pass a value in host memory"
CLOSED = "the client is closed"
_PLAIN = frozenset((int, float, str, type(None)))  # types whose values are never on a device


class Closed(RuntimeError):
    """The client is closed, so it accepts no more frames and events."""


class Handover:
    """Passes frames and events from the training loop to a sender. The caller of its methods holds the client's lock."""

    def __init__(self, ring: Ring, link: Link, lock: threading.RLock, encoder: Encoder, invalid: list[int], complaints: Complaints) -> None:
        self.closed = False  # close() has read the last counters
        self.copier = Copier(lock, self._copied, self._lost, complaints)
        self.sequences: dict[tuple[str, int], int] = {}  # number of the next event of each seed
        self._ring = ring
        self._link = link
        self._encoder = encoder
        self._invalid = invalid
        self._complaints = complaints

    def frame(self, layer: str, step: int, observed_at: int, seed_ids: Any, states: Any,
              metrics: Mapping[str, Any], tensors: Mapping[tuple[str, int], Any] | None) -> bool:
        """Encode or copy a frame in the fastest way that its arguments allow."""
        if type(step) is not int and on_device(step):
            raise InvalidFrame("step", ON_DEVICE)
        if type(metrics) is not dict and not isinstance(metrics, Mapping):  # isinstance is slower
            raise InvalidFrame("metrics", f"{type(metrics).__name__} is not a mapping of names to values")
        copier = self.copier
        if tensors is None and not copier.busy:
            record = self._encoder.again(layer, step, observed_at, seed_ids, states, metrics)
            if record is not None:
                return self._push(FRAME, record)
        if on_device(seed_ids):
            raise InvalidFrame("seed_ids", ON_DEVICE)
        if tensors is not None and not isinstance(tensors, Mapping):
            raise InvalidFrame("tensors", f"{type(tensors).__name__} is not a mapping of (name, seed id) to arrays")
        seed_ids = on_host(seed_ids, "seed_ids")
        if any(map(on_device, metrics.values())) or copier.busy or tensors and any(map(on_device, tensors.values())) \
                or on_device(states):
            return self._copy(layer, step, observed_at, seed_ids, states, metrics, tensors)
        metrics = {name: on_host(values, "metrics", name) for name, values in metrics.items()}
        if tensors:
            tensors = {key: on_host(values, "tensors") for key, values in tensors.items()}
        return self._encode(layer, step, observed_at, seed_ids, on_host(states, "states"), metrics, tensors)

    def event(self, layer: str, seed_id: int, sequence: int | None, fields: dict[str, Any]) -> bool:
        """Number an event and put it on the ring. fields are those of events.encode_event()."""
        evidence = fields["evidence"]
        values = [("layer", layer), ("seed_id", seed_id), ("sequence", sequence), *fields.items()]
        if isinstance(evidence, Mapping):
            values += [(wire.within("evidence", name), value) for name, value in evidence.items()]
        for field, value in values:
            if type(value) not in _PLAIN and on_device(value):
                raise InvalidFrame(field, ON_DEVICE)
        key = (wire.identifier("layer", layer), wire.whole("seed_id", seed_id))
        following = self.sequences.get(key, 0)
        number = following if sequence is None else wire.whole("sequence", sequence)
        record = events.encode_event(layer_id=layer, seed_id=seed_id, sequence=number, **fields)
        handed = self._ring.get("handed1")
        try:
            self.sequences[key] = number + 1
            return self._push(EVENT, record)
        except BaseException:
            if not self.closed and self._ring.get("handed1") == handed:
                self.sequences[key] = following  # Ctrl-C came before the event was on the ring
            raise

    def end(self, fields: dict[str, Any]) -> bool:
        """Put the end of a run on the ring, after all frames. fields are those of events.encode_end()."""
        for field, value in fields.items():
            if type(value) not in _PLAIN and on_device(value):
                raise InvalidFrame(field, ON_DEVICE)
        record = events.encode_end(**fields)
        if self.copier.busy:
            return self._when_copied(END, Copy(), lambda: self._push(END, record, 0))
        return self._push(END, record)

    def _encode(self, layer: str, step: int, observed_at: int, seed_ids: Any, states: Any,
                metrics: Mapping[str, Any], tensors: Mapping[tuple[str, int], Any] | None, *, counted: bool = False) -> bool:
        """Encode a frame and put it on the ring, with all its parts or with none."""
        taken = True
        # All parts are encoded before the first one is sent, because a later one may be invalid.
        records = list(self._encoder.frames(layer, step, observed_at, seed_ids, states, metrics, tensors))
        size = sum(map(len, records))
        fits = len(records) == 1 or self.closed or self._ring.has_room(map(len, records))
        for record in records:
            taken = self._push(FRAME, record, 0 if counted else 1, fits=fits, size=size) and taken
            counted = False
        return taken

    def _copy(self, layer: str, step: int, observed_at: int, seed_ids: Any, states: Any,
              metrics: Mapping[str, Any], tensors: Mapping[tuple[str, int], Any] | None) -> bool:
        """Start to copy a frame from a device. It is sent when the copy is done."""
        # The caller may change its objects during the copy, such as an array with the step.
        layer, step, observed_at = wire.identifier("layer", layer), wire.whole("step", step), wire.whole("observed_at", observed_at)
        values: dict[Any, Any] = {("metrics", name): v for name, v in metrics.items()}
        values.update({("tensors", key): v for key, v in (tensors or {}).items()})
        fixed = states if isinstance(states, (int, bytes)) else None
        if fixed is None:
            values["states", ""] = states
        copy = self.copier.begin(values)
        ids = np.array(wire.array(seed_ids, "seed_ids"))

        def frame() -> None:
            arrays = copy.arrays
            self._encode(layer, step, observed_at, ids, arrays.get(("states", ""), fixed),
                         {key: a for (kind, key), a in arrays.items() if kind == "metrics"},
                         {key: a for (kind, key), a in arrays.items() if kind == "tensors"}, counted=True)

        return self._when_copied(FRAME, copy, frame)

    def _when_copied(self, kind: int, copy: Copy, pass_on: Callable[[], object]) -> bool:
        """Count a record as handed, and pass it on when its copy, and those before it, are done."""
        if self.closed:  # by a signal handler
            raise Closed(CLOSED)
        counters = self._ring.counters
        handed, full = counters[HANDED[kind]], counters[FULL[kind]]
        counted = False
        try:
            counters[HANDED[kind]] = handed + 1
            counted = True
            if self.copier.put(copy, pass_on):
                return True
            counters[FULL[kind]] = full + 1
            self._complaints.note("full", "too many copies from the device are in progress, so frames are dropped; see stats()")
            return False
        except BaseException as failure:
            if not self.closed:
                if not self.copier.has(copy) and counters[FULL[kind]] == full:
                    counters[HANDED[kind]] = handed
            elif counted and isinstance(failure, Exception):
                return False  # closed by a signal handler: close() has counted it as lost
            raise

    def _copied(self, frame: Callable[[], None]) -> None:
        """Encode a frame whose copy is done. Called by the copier's thread."""
        if self.closed:
            return  # close() has counted it as lost
        try:
            frame()
        except InvalidFrame as failure:
            self._ring.set("handed0", self._ring.get("handed0") - 1)
            self._invalid[FRAME] += 1
            self._complaints.note(f"invalid-{failure.field}", f"a frame was not sent: {failure}")

    def _lost(self) -> None:
        if not self.closed:
            self._ring.add("lost0")

    def _push(self, kind: int, record: bytes, handed: int = 1, *, fits: bool = True, size: int = 0) -> bool:
        """Count a record as handed and put it on the ring.

        If it is a part of a frame, size is that of the frame, and fits says whether the ring has room for all parts.
        """
        if self.closed:  # by a signal handler
            raise Closed(CLOSED)
        ring = self._ring
        counters = ring.counters
        before, head, full = counters[HANDED[kind]], counters[HEAD], counters[FULL[kind]]
        try:
            counters[HANDED[kind]] = before + handed
            used = ring.push(kind, record) if fits else 0
            if used:
                if used > RING_BYTES // 4:
                    self._link.poke()
                return True
            counters[FULL[kind]] = full + 1
            self._link.poke()
            if (n := max(len(record), size)) + 8 > RING_BYTES:
                self._complaints.note("large", f"a frame of {n} bytes is dropped: with its tensors it may have at most {RING_BYTES} bytes; send smaller or fewer tensors in a frame")
            else:
                self._complaints.note("full", f"the sender does not keep up, and the memory for what it must still read is full, so {('frames', 'events', 'ends of runs')[kind]} are dropped; see stats()")
            return False
        except BaseException as failure:
            if not self.closed:  # Ctrl-C: it counts only if it is on the ring or was dropped
                if counters[HEAD] == head and counters[FULL[kind]] == full:
                    counters[HANDED[kind]] = before
            elif isinstance(failure, Exception):
                return False  # closed by a signal handler: close() has counted it as lost
            raise
