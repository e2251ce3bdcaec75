"""Copies of tensors. Those on a GPU are copied without waiting for its stream.

The copy goes into pinned memory, is put on the stream behind the work that makes
the values, and an event is recorded behind it. A thread of its own waits for the
event and then hands the frame on; the training loop waits for nothing.
"""

from __future__ import annotations

import logging
import queue
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

PINNED_BYTES = 64 << 20  # at most, for frames whose copies are under way, and as much to use again

log = logging.getLogger("oona_client")


def on_device(values: Any) -> bool:
    """Report whether the values are a tensor that is not in the memory of the host."""
    device = getattr(values, "device", None)
    return device is not None and getattr(device, "type", "cpu") != "cpu"


def on_host(values: Any) -> Any:
    """Return a tensor of the host as an array that shares its memory, and anything else as it is."""
    if type(values) is np.ndarray or not hasattr(values, "detach"):
        return values
    tensor = values.detach()
    if str(tensor.dtype) == "torch.bfloat16":  # NumPy does not have it
        tensor = tensor.float()
    return tensor.numpy()


@dataclass
class Copy:
    """What was begun for one frame: arrays that are valid once all events have happened."""

    arrays: dict[Any, Any] = field(default_factory=dict)  # by key
    buffers: list[tuple[Any, Any]] = field(default_factory=list)  # kind of the pool, pinned tensor
    events: list[Any] = field(default_factory=list)
    bytes: int = 0
    begun: int = 0  # bytes of this copy and of those before it
    frame: Any = None  # what is handed on then

    def wait(self) -> None:
        for event in self.events:
            event.synchronize()


class Pool:
    """Pinned tensors that are used again, as making one waits for the device.

    It keeps PINNED_BYTES, of the shapes that were used last.
    """

    def __init__(self) -> None:
        self._free: OrderedDict[Any, list[Any]] = OrderedDict()  # by kind, the one that was used last at the end
        self._lock = threading.Lock()
        self.bytes = 0

    def take(self, torch: Any, shape: tuple[int, ...], dtype: Any) -> tuple[Any, Any]:
        kind = (shape, dtype)
        with self._lock:
            if kind in self._free:
                return kind, self._pop(kind)
        return kind, torch.empty(shape, dtype=dtype, pin_memory=True)

    def give(self, buffers: list[tuple[Any, Any]]) -> None:
        with self._lock:
            for kind, buffer in buffers:
                self._free.setdefault(kind, []).append(buffer)
                self._free.move_to_end(kind)
                self.bytes += buffer.numel() * buffer.element_size()
            while self.bytes > PINNED_BYTES:
                self._pop(next(iter(self._free)))

    def _pop(self, kind: Any) -> Any:
        free = self._free[kind]
        buffer = free.pop()
        self.bytes -= buffer.numel() * buffer.element_size()
        if not free:
            del self._free[kind]
        return buffer


class Copier:
    """Begins copies, and hands frames on in the order of the calls once theirs are done.

    A frame is taken when its copy is in the deque. Nothing else has to be changed
    with it, so Ctrl-C in the midst of put() leaves no count that is wrong.
    """

    def __init__(self, hand_on: Callable[[Any], None], lost: Callable[[], None]) -> None:
        self._hand_on = hand_on
        self._lost = lost
        self._pool = Pool()
        self._under_way: deque[Copy] = deque()
        self._lock = threading.Lock()
        self._wake: queue.SimpleQueue[bool] = queue.SimpleQueue()  # False: end
        self._thread: threading.Thread | None = None
        self._then: Callable[[], None] | None = None

    @property
    def busy(self) -> bool:
        """Report whether copies are under way, so that other frames must wait behind them."""
        return bool(self._under_way)

    def has(self, copy: Copy) -> bool:
        """Report whether the copy was taken last. The caller keeps frames from being handed on meanwhile."""
        return self.busy and self._under_way[-1] is copy

    def begin(self, values: Mapping[Any, Any]) -> Copy:
        """Begin to copy tensors of devices; arrays of the host are copied at once."""
        copy = Copy()
        columns: dict[Any, list[Any]] = {}  # by device and length: vectors that become one copy
        for key, value in values.items():
            if not on_device(value):
                copy.arrays[key] = np.array(on_host(value))
            elif key[0] == "metric" and value.dim() == 1:
                columns.setdefault((value.device, value.shape[0]), []).append(key)
            else:
                self._one(copy, key, value)
        for keys in columns.values():
            self._stacked(copy, keys, [values[key] for key in keys])
        return copy

    def _one(self, copy: Copy, key: Any, value: Any) -> None:
        torch = sys.modules["torch"]
        source = value.detach()
        if source.dtype == torch.bfloat16:
            source = source.to(torch.float32)
        copy.arrays[key] = self._pinned(copy, torch, source)

    def _stacked(self, copy: Copy, keys: list[Any], values: list[Any]) -> None:
        torch = sys.modules["torch"]
        source = torch.stack([value.detach().to(torch.float32) for value in values])
        rows = self._pinned(copy, torch, source)
        for key, row in zip(keys, rows):
            copy.arrays[key] = row

    def _pinned(self, copy: Copy, torch: Any, source: Any) -> Any:
        """Put a copy into pinned memory on the stream, and return the array that it will be in."""
        if source.device.type != "cuda":
            return source.cpu().numpy()  # other devices have no pinned memory here: this waits
        kind, buffer = self._pool.take(torch, tuple(source.shape), source.dtype)
        buffer.copy_(source, non_blocking=True)
        event = torch.cuda.Event(blocking=True)  # its waiter sleeps
        event.record(torch.cuda.current_stream(source.device))
        copy.buffers.append((kind, buffer))
        copy.events.append(event)
        copy.bytes += buffer.numel() * buffer.element_size()
        return buffer.numpy()

    def put(self, copy: Copy, frame: Any) -> bool:
        """Hand the frame on once the copy is done. False: too much is under way."""
        copy.frame = frame
        with self._lock:
            copy.begun = copy.bytes
            if self._under_way:
                first, last = self._under_way[0], self._under_way[-1]
                copy.begun += last.begun
                if copy.begun - first.begun + first.bytes > PINNED_BYTES:
                    # The buffers are not used again, as the device may still write to them.
                    return False
            elif copy.bytes > PINNED_BYTES:
                return False
            if self._thread is None:
                threading.Thread(target=self._run, name="oona-copies", daemon=True).start()
            # The thread looks when it has the lock. In the other order, Ctrl-C could leave it asleep.
            self._wake.put(True)
            self._under_way.append(copy)
        return True

    def _run(self) -> None:
        with self._lock:
            if self._thread is not None:
                return  # Ctrl-C has interrupted a call that had started another one
            self._thread = threading.current_thread()
        while self._wake.get():
            while (copy := self._first()) is not None:
                self._finish(copy)
                with self._lock:
                    self._under_way.popleft()
        if self._then is not None:
            self._then()

    def _first(self) -> Copy | None:
        with self._lock:
            return self._under_way[0] if self._under_way else None

    def _finish(self, copy: Copy) -> None:
        try:
            copy.wait()
            self._hand_on(copy.frame)
        except Exception as failure:  # of the device, for example
            self._lost()
            log.error("a frame is lost, as its copy from the device failed: %s", failure)
        else:
            self._pool.give(copy.buffers)

    def drain(self, until: float) -> bool:
        """Wait until all frames are handed on."""
        while self._under_way:
            if time.monotonic() >= until:
                return False
            time.sleep(0.002)
        return True

    def close(self, then: Callable[[], None] | None = None) -> None:
        """End the thread once all frames are handed on, and let it call then."""
        self._then = then
        self._wake.put(False)
