"""A ring in shared memory: the training process writes to it, the sender reads.

The first page has 64-bit counters. Each is written by one side only. The records
come after it, each with its length and kind, at multiples of 8. A position counts
bytes since the ring was created; the place is the position modulo the capacity.
A record never wraps around: the rest of the ring is skipped instead. A mark at that
place says so, or a counter, if the record is so long that it covers the place.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
import threading
from collections.abc import Iterable

PAGE = 4096
FRAME, EVENT, END = 0, 1, 2  # kinds of records; END is the end of a run
_SKIP = 0xFFFFFFFF
_RECORD = struct.Struct("<II")

# Counters of the training process.
_WRITER = ("magic", "capacity", "head", "closing", "close_by", "flush", "handed0", "handed1", "full0", "full1", "lost0", "lost1",
           "skip")  # skip: 1 more than the last position at which the rest was skipped without a mark
# Counters of the sender. A digit at the end means frames (0) or events and ends of runs (1).
_READER = (
    "tail", "flushed", "done", "requests", "failures", "bytes_sent", "spool_bytes",
    "recovered", "recovered_rejected", "recovered_dropped", "recovered_aside",
    "in_spool0", "in_spool1", "accepted0", "accepted1", "aside0", "aside1", "rejected0", "rejected1",
    "dropped0", "dropped1", "waiting0", "waiting1", "split0", "split1", "corrupt", "found0", "found1",
)
SLOTS = {name: i for i, name in enumerate(_WRITER)} | {name: 64 + i for i, name in enumerate(_READER)}
HEAD, _TAIL = SLOTS["head"], SLOTS["tail"]
# By kind.
HANDED = SLOTS["handed0"], SLOTS["handed1"], SLOTS["handed1"]
FULL = SLOTS["full0"], SLOTS["full1"], SLOTS["full1"]
_MAGIC = 0x316E6C63616E6F6F
_new_lock = threading.Lock


class Ring:
    """One writer process, whose threads take turns, and one reader."""

    def __init__(self, memory: mmap.mmap, fd: int) -> None:
        self.fd = fd
        self._memory = memory
        self._view = memoryview(memory)
        self.counters = self._view[:PAGE].cast("Q")
        self._data = self._view[PAGE:]
        self.capacity = len(self._data)

    @classmethod
    def create(cls, capacity: int) -> Ring:
        """Create a ring. The sender can inherit its descriptor."""
        if hasattr(os, "memfd_create"):
            fd = os.memfd_create("oona-client")
        else:
            fd, name = tempfile.mkstemp(prefix="oona-client-")
            os.unlink(name)
        capacity = -(-capacity // PAGE) * PAGE
        os.ftruncate(fd, PAGE + capacity)
        # All pages are allocated now, so that no call of frame() waits for one.
        populate = getattr(mmap, "MAP_POPULATE", 0)
        ring = cls(mmap.mmap(fd, PAGE + capacity, mmap.MAP_SHARED | populate), fd)
        ring.set("magic", _MAGIC)
        ring.set("capacity", capacity)
        return ring

    @classmethod
    def open(cls, fd: int) -> Ring:
        """Open the ring of another process by its descriptor."""
        ring = cls(mmap.mmap(fd, os.fstat(fd).st_size), fd)
        if ring.get("magic") != _MAGIC or ring.get("capacity") != ring.capacity:
            raise ValueError("the descriptor is not one of a ring")
        return ring

    def get(self, name: str) -> int:
        return self.counters[SLOTS[name]]

    def set(self, name: str, value: int) -> None:
        self.counters[SLOTS[name]] = value

    def add(self, name: str, n: int = 1) -> None:
        self.counters[SLOTS[name]] += n

    @property
    def used(self) -> int:
        return self.get("head") - self.get("tail")

    def push(self, kind: int, payload: bytes) -> int:
        """Append a record, and return how many bytes are then in use, or 0 if there is no room. The caller holds a lock."""
        n = len(payload)
        size = 8 + (n + 7 & ~7)
        counters = self.counters
        head = counters[HEAD]
        place = head % self.capacity
        capacity = self.capacity
        skip = capacity - place if place + size > capacity else 0
        used = head + skip + size - counters[_TAIL]
        if used > capacity:
            return self._alone(kind, payload, size)
        # On processors that reorder stores, releasing and taking a lock between the
        # record and the head keeps the reader from seeing the head first. The lock is a
        # new one, because a signal handler may let another thread push during this call.
        fence = _new_lock()
        with fence:
            if skip:
                _RECORD.pack_into(self._data, place, _SKIP, 0)
                place = 0
            _RECORD.pack_into(self._data, place, n, kind)
            self._data[place + 8:place + 8 + n] = payload
        with fence:
            counters[HEAD] = head + skip + size
        return used

    def has_room(self, lengths: Iterable[int]) -> bool:
        """Report whether records of these lengths fit, one after the other. The caller holds a lock until it has pushed them."""
        head, tail = self.get("head"), self.get("tail")
        for n in lengths:
            size = 8 + (n + 7 & ~7)
            place = head % self.capacity
            head += size + (self.capacity - place if place + size > self.capacity else 0)
        return head - tail <= self.capacity

    def _alone(self, kind: int, payload: bytes, size: int) -> int:
        """Append a record to an empty ring if it fits neither before nor after the position. Return 0 if the ring is not empty."""
        head = self.get("head")
        if size > self.capacity or head != self.get("tail"):
            return 0
        end = head + self.capacity - head % self.capacity + size
        fence = threading.Lock()  # as in push()
        with fence:
            self.set("skip", head + 1)
            _RECORD.pack_into(self._data, 0, len(payload), kind)
            self._data[8:8 + len(payload)] = payload
        with fence:
            self.set("head", end)
        return end - head

    def read(self) -> tuple[list[tuple[int, bytes]], int]:
        """Return the records in the ring and the position after them. They stay in the ring until that position is released."""
        head, tail = self.get("head"), self.get("tail")
        records = []
        if tail < head and self.get("skip") == tail + 1:
            tail += self.capacity - tail % self.capacity
        while tail < head:
            place = tail % self.capacity
            n, kind = _RECORD.unpack_from(self._data, place)
            if n == _SKIP:
                tail += self.capacity - place
            else:
                records.append((kind, bytes(self._data[place + 8:place + 8 + n])))
                tail += 8 + (n + 7 & ~7)
        return records, tail

    def release(self, position: int) -> None:
        """Let the writer use the space before the position again."""
        self.set("tail", position)

    def close(self) -> None:
        """Free the memory. The ring must not be used again. If a call was interrupted, another call does the rest."""
        self.counters.release()
        self._data.release()
        self._view.release()
        self._memory.close()
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
