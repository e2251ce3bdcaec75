"""Encodes the frames of one client, and keeps parts of the encoding that repeat."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from oona_client import frames, wire
from oona_client.split import STRIDE

MAX_BYTES = 998_000  # the most bytes of a frame without its tensors; the bus accepts a little more
REMEMBERED = 4_096  # how many layers and names of metrics are kept; a run has fewer, unless its names change from step to step


_FLOAT = np.dtype("<f4")


class _Plan:
    """The parts of a layer's frame that most likely repeat in the next one."""

    def __init__(self, metrics: Mapping[str, Any], ids: Any, encoded_ids: bytes, head: bytes, names: list[bytes]) -> None:
        count = len(ids)
        size = wire.long(count)
        self.names = tuple(metrics)
        self.dtype, self.shape = ids.dtype, ids.shape
        self.ids = ids.tobytes()
        # numbers, states and values take the place of None
        self.parts: list[Any] = [frames.FRAME_HEADER + head, None, encoded_ids + size, None]
        end = b""
        for i, name in enumerate(names):
            first = wire.long(len(names)) if i == 0 else b""
            self.parts += (end + first + name + size, None)
            end = b"\0"
        self.parts.append(b"\0\0\0" if names else b"\0\0")  # the ends of the values, the metrics and the tensors


class Encoder:
    """Encodes the frames of a producer, and gives them its identity and their numbers."""

    def __init__(self, run: str, timeline: str, producer: str, epoch: int) -> None:
        self.run = run
        self._tail = wire.text(timeline) + wire.text(producer) + wire.long(epoch)
        self._sequence = 0
        self._layers: dict[str, bytes] = {}
        self._names: dict[str, bytes] = {}
        self._ids: dict[str, tuple[Any, bytes, Any]] = {}
        self._plans: dict[str, _Plan] = {}

    def again(self, layer: str, step: int, observed_at: int, seed_ids: Any, states: Any, metrics: Mapping[str, Any]) -> bytes | None:
        """Encode a frame that is like the layer's last one and has arrays that need no conversion. Return None for any other frame."""
        try:
            plan = self._plans.get(layer)
        except TypeError:  # layer is not hashable; frames() raises the error
            return None
        if plan is None or type(seed_ids) is not np.ndarray or type(states) is not np.ndarray or tuple(metrics) != plan.names:
            return None
        shape = plan.shape
        if seed_ids.dtype != plan.dtype or states.dtype != np.uint8 or states.shape != shape or seed_ids.tobytes() != plan.ids:
            return None
        ordinals = states.tobytes()
        if ordinals.translate(None, frames.ORDINALS):
            return None
        parts = plan.parts.copy()
        at = 5
        for values in metrics.values():
            if type(values) is not np.ndarray or values.dtype != _FLOAT or values.shape != shape:
                return None
            parts[at] = values
            at += 2
        parts[1] = wire.long(self._sequence * STRIDE) + wire.moment("observed_at", observed_at) + wire.number("step", step)
        parts[3] = ordinals
        try:
            record = b"".join(parts)
        except (TypeError, BufferError, ValueError):  # an array is not contiguous
            return None
        self._sequence += 1
        return record

    def frames(self, layer: str, step: int, observed_at: int, seed_ids: Any, states: Any,
               metrics: Mapping[str, Any], tensors: Mapping[tuple[str, int], Any] | None) -> Iterator[bytes]:
        """Encode a frame. If it is too large for the bus, split it by seed ids into several."""
        if type(layer) is not str:
            wire.identifier("layer", layer)  # raises for a layer that cannot be looked up because it is not hashable
        if len(self._ids) >= REMEMBERED and layer not in self._ids:
            for layers in (self._ids, self._layers, self._plans):
                layers.clear()
        if len(self._names) >= REMEMBERED:
            self._names.clear()
        encoded_ids, ids = self._seed_ids(layer, seed_ids)
        if tensors:
            if not all(type(key) is tuple and len(key) == 2 for key in tensors):
                raise wire.InvalidFrame("tensors", "is a mapping of (name, seed id) to arrays")
            frames.among((seed for _, seed in tensors), ids)
        count = len(ids)
        columns = []
        for name, values in metrics.items():
            encoded = self._names.get(name)
            if encoded is None:
                encoded = self._names[name] = frames.metric_name(name)
            columns.append((encoded, frames.column(name, values, count)))
        ordinals = frames.states_of(states, count)
        head = self._layers.get(layer)
        if head is None:
            head = self._layers[layer] = wire.text(self.run) + wire.text(wire.identifier("layer", layer)) + self._tail
        size = len(head) + len(encoded_ids) + count + sum(len(name) + 16 + 4 * count for name, _ in columns)
        if size <= MAX_BYTES:
            extra = [frames.tensor_of(name, seed, a) for (name, seed), a in tensors.items()] if tensors else ()
            yield frames.frame_of(head, self._next(), observed_at, step, encoded_ids, ordinals, columns, extra)
            if isinstance(seed_ids, np.ndarray):
                self._plans[layer] = _Plan(metrics, np.array(seed_ids), encoded_ids, head, [name for name, _ in columns])
            return
        parts = -(-size // (MAX_BYTES - 64 * 200))  # the names are in each part
        for rows in np.array_split(np.arange(count), parts):
            part = slice(int(rows[0]), int(rows[-1]) + 1)
            here = set(ids[part].tolist())
            extra = [frames.tensor_of(name, seed, a) for (name, seed), a in tensors.items() if seed in here] if tensors else ()
            yield frames.frame_of(head, self._next(), observed_at, step, wire.ints(ids[part]), ordinals[part],
                                [(name, values[part]) for name, values in columns], extra)

    def _next(self) -> int:
        self._sequence += 1
        return (self._sequence - 1) * STRIDE

    def _seed_ids(self, layer: str, seed_ids: Any) -> tuple[bytes, Any]:
        """Return the encoded ids, and the ids. Most frames of a layer have the same ids, so these are encoded only once."""
        key: Any = seed_ids
        # The key must not change when the caller changes its object.
        if type(seed_ids) is list:
            key = seed_ids.copy()
        elif type(seed_ids) is not range:
            seed_ids = wire.array(seed_ids, "seed_ids")
            key = (seed_ids.dtype.char, seed_ids.shape, seed_ids.tobytes())
        known = self._ids.get(layer)
        try:
            if known is not None and type(known[0]) is type(key) and known[0] == key:
                return known[1], known[2]
        except Exception:  # lists whose elements cannot be compared
            pass
        ids = frames.seeds(seed_ids)
        encoded = wire.ints(ids)
        self._ids[layer] = (key, encoded, ids)
        return encoded, ids
