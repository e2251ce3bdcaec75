"""Copies tensors, without waiting for the stream of a GPU.

A copy into pinned memory is put on the stream, after the work that computes the
values, and an event is recorded after the copy. A separate thread waits for the
event and then passes the frame to the sender. The training loop does not wait.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from oona_client.complaints import Complaints
from oona_client.wire import InvalidFrame, array, told, within

PINNED_BYTES = 64 << 20  # limit for the copies in progress, and also for the buffers that are kept

def on_device(values: Any) -> bool:
    """Report whether the values are a tensor that is not in the memory of the host."""
    try:
        device = getattr(values, "device", None)
        return device is not None and getattr(device, "type", "cpu") != "cpu"
    except Exception:  # the values raise. Encoding them will fail, too, and that error names the argument
        return False


def on_host(values: Any, argument: str, name: Any = None) -> Any:
    """Return a tensor in host memory as an array that shares its memory, and anything else unchanged.

    argument is the argument of frame(), and name is the name of the metric.
    """
    if type(values) is np.ndarray:
        return values
    try:
        if not hasattr(values, "detach"):
            return values
        tensor = values.detach()
        if str(tensor.dtype) == "torch.bfloat16":  # NumPy does not have it
            tensor = tensor.float()
        return tensor.numpy()
    except Exception as failure:  # it is sparse, for example
        raise InvalidFrame(within(argument, name), f"cannot become an array: {told(failure)}") from failure


@dataclass
class Copy:
    """The copies of one frame. The arrays are valid when all events have happened."""

    arrays: dict[Any, Any] = field(default_factory=dict)  # by key
    buffers: list[tuple[Any, Any]] = field(default_factory=list)  # the kind in the pool, and the pinned tensor
    events: list[Any] = field(default_factory=list)
    bytes: int = 0
    begun: int = 0  # bytes of this copy and of all copies before it
    frame: Any = None  # passed on after the copy

    def wait(self) -> None:
        for event in self.events:
            event.synchronize()


class Pool:
    """Pinned tensors that are used again, because allocating one waits for the device.

    It keeps at most PINNED_BYTES, in the shapes that were used last. Its callers hold
    the client's lock.
    """

    def __init__(self) -> None:
        self._free: OrderedDict[Any, list[Any]] = OrderedDict()  # by kind, in the order of their last use
        self.bytes = 0

    def take(self, torch: Any, shape: tuple[int, ...], dtype: Any) -> tuple[Any, Any]:
        kind = (shape, dtype)
        if kind in self._free:
            return kind, self._pop(kind)
        return kind, torch.empty(shape, dtype=dtype, pin_memory=True)

    def give(self, buffers: list[tuple[Any, Any]]) -> None:
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
    """Begins copies, and passes on each frame when its copies are done, in the order of the calls.

    A frame is accepted when its copy is in the deque. Nothing else has to change at the
    same time, so no count is wrong if Ctrl-C interrupts put(). The lock is the client's.
    There is no other: a signal handler that closes the client during a call releases it
    while it waits, so that copies can be passed on.
    """

    def __init__(self, lock: threading.RLock, hand_on: Callable[[Any], None], lost: Callable[[], None], complaints: Complaints) -> None:
        self.thread: threading.Thread | None = None
        self._lock = lock
        self._hand_on = hand_on  # called with the lock held, as is lost
        self._lost = lost
        self._complaints = complaints
        self._pool = Pool()
        self._under_way: deque[Copy] = deque()
        self._wake: queue.SimpleQueue[bool] = queue.SimpleQueue()  # False ends the thread
        self._claimed = threading.Lock()  # held by the thread, so that there is only one

    @property
    def busy(self) -> bool:
        """Report whether copies are in progress. Then later frames must wait, too."""
        return bool(self._under_way)

    def has(self, copy: Copy) -> bool:
        """Report whether this copy was the last one to be put. The caller holds the lock."""
        return self.busy and self._under_way[-1] is copy

    def begin(self, values: Mapping[Any, Any]) -> Copy:
        """Begin to copy tensors on devices. Arrays in host memory are copied at once. A key is an argument of frame() and a name in it."""
        copy = Copy()
        columns: dict[Any, list[Any]] = {}  # vectors that are copied together, by device and length
        for key, value in values.items():
            if not on_device(value):
                argument, name = key[0], key[1] if key[0] == "metrics" else None
                copy.arrays[key] = np.array(array(on_host(value, argument, name), argument, name))
            elif key[0] == "metrics" and value.dim() == 1:
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
        """Put a copy into pinned memory on the stream, and return the array that will have the values."""
        if source.device.type != "cuda":
            return source.cpu().numpy()  # pinned memory is only for CUDA, so this waits
        kind, buffer = self._pool.take(torch, tuple(source.shape), source.dtype)
        buffer.copy_(source, non_blocking=True)
        event = torch.cuda.Event(blocking=True)  # a thread that waits for it sleeps
        event.record(torch.cuda.current_stream(source.device))
        copy.buffers.append((kind, buffer))
        copy.events.append(event)
        copy.bytes += buffer.numel() * buffer.element_size()
        return buffer.numpy()

    def put(self, copy: Copy, frame: Any) -> bool:
        """Pass the frame on when the copy is done. Return False if too many copies are in progress. The caller holds the lock."""
        copy.frame = frame
        copy.begun = copy.bytes
        if self._under_way:
            first, last = self._under_way[0], self._under_way[-1]
            copy.begun += last.begun
            if copy.begun - first.begun + first.bytes > PINNED_BYTES:
                # The buffers must not be used again, because the device may still write to them.
                return False
        elif copy.bytes > PINNED_BYTES:
            return False
        if self.thread is None:
            threading.Thread(target=self._run, name="oona-copies", daemon=True).start()
        # In the other order, Ctrl-C between the two could leave the thread asleep.
        self._wake.put(True)
        self._under_way.append(copy)
        return True

    def _run(self) -> None:
        if not self._claimed.acquire(blocking=False):
            return  # there is another thread, started by a call that Ctrl-C has interrupted
        self.thread = threading.current_thread()
        while self._wake.get():
            self._look()

    def _look(self) -> None:
        """Pass on the frames whose copies are done. put() wakes the thread before it appends the copy; the lock makes the thread wait until it has."""
        while True:
            with self._lock:
                copy = self._under_way[0] if self._under_way else None
            if copy is None:
                # Nothing waits for this thread now, so a log handler may take a long time.
                self._complaints.say()
                return
            self._finish(copy)

    def _finish(self, copy: Copy) -> None:
        failure: Exception | None = None
        try:
            copy.wait()
        except Exception as error:  # the device has failed
            failure = error
        with self._lock:
            try:
                if failure is None:
                    self._hand_on(copy.frame)
            except Exception as error:
                failure = error
            if failure is None:
                self._pool.give(copy.buffers)
            else:
                self._lost()
                self._complaints.note("copy", f"a frame is lost, as its copy from the device failed: {told(failure)}")
            self._under_way.popleft()

    def drain(self, until: float, pause: Callable[[float], None] = time.sleep) -> bool:
        """Wait until all frames are passed on."""
        while self._under_way:
            if time.monotonic() >= until:
                return False
            pause(0.002)
        return True

    def close(self) -> None:
        """End the thread when all frames are passed on."""
        self._wake.put(False)

    def join(self) -> None:
        """Wait until the thread has ended. It does not end if a device does not answer."""
        if self.thread is not None:
            self.thread.join()
