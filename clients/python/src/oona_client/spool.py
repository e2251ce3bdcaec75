"""The spool: records that wait on disk while ingest does not accept them."""

from __future__ import annotations

import errno
import os
import re
import struct
import threading
from collections import deque
from typing import TYPE_CHECKING

from oona_client.segment import HEAD, Segment, sync_directory

if TYPE_CHECKING:
    from oona_client.home import Home

_FOR_NOW = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.EAGAIN)  # errors that may have another cause than the file
_DONE = struct.Struct("<QQ")
_OFFSET = 40  # number of bits of a position that are the offset in the segment
_NAME = re.compile(r"(frames|events|ends)-(\d{8})\.log")


class Full(Exception):
    """The spool has no room."""


class Spool:
    """The records of one kind, in order. Two threads use it: one appends, the other reads and commits."""

    def __init__(self, home: Home, kind: str) -> None:
        self._home = home
        self._kind = kind
        self._lock = threading.RLock()
        self._segments: deque[Segment] = deque()
        self._broken = False  # the last segment must not be appended to
        self._held = False  # the records that are being appended are also in memory
        self.dropped = 0  # records in segments that were deleted to make room, or that cannot be read
        self._done = self._settled_before()
        numbers = sorted((int(m[2]), p) for p in self._home.path.iterdir() if (m := _NAME.fullmatch(p.name)) and m[1] == self._kind)
        self._number = max([number for number, _ in numbers] + [self._done >> _OFFSET])
        for number, path in numbers:
            segment = Segment.found(path, number)
            self._home.used += segment.size
            self._segments.append(segment)
            self._broken = True  # segments of another process are not appended to
        self._done_fd = os.open(home.path / f"{kind}.done", os.O_RDWR | os.O_CREAT, 0o600)

    def load(self) -> None:
        """Read all segments, so that pending is known. Otherwise a segment is read when its records are sent."""
        with self._lock:
            for segment in list(self._segments):
                self._load(segment)
            self._trim()

    def _load(self, segment: Segment) -> bool:
        """Read a segment that was found. If it cannot be read, its file is kept, and the segments after it are sent."""
        try:
            if segment.loaded or segment.load(self._home.corrupt):
                while segment.next < len(segment.ends) and (segment.number << _OFFSET | segment.ends[segment.next]) <= self._done:
                    segment.next += 1
                segment.settled = max(segment.settled, segment.next)
                return True
        except OSError as failure:
            self._unreadable(segment, failure)
            return False
        self._segments.remove(segment)
        self._home.used -= segment.size
        return False

    def _unreadable(self, segment: Segment, failure: OSError) -> None:
        """Leave out a segment that cannot be read, and count its records as dropped. None of them is in flight."""
        if failure.errno in _FOR_NOW:
            raise failure
        self._segments.remove(segment)
        self._home.used -= segment.size
        self._home.unreadable += 1
        self.dropped += len(segment.ends) - segment.settled
        segment.close()
        self._home.log("error", f"spool-read-{segment.path.parent.name}", f"{segment.path} in the spool cannot be read: {failure}. "
                       "It stays there, and the records in it are not sent. stats().damaged counts such files.")

    def _settled_before(self) -> int:
        try:
            position, check = _unpack_done((self._home.path / f"{self._kind}.done").read_bytes())
        except (OSError, struct.error):
            return 0
        return position if position == check ^ (2**64 - 1) else 0

    @property
    def pending(self) -> int:
        """Records that are not settled."""
        with self._lock:
            return sum(len(s.ends) - s.settled for s in self._segments)

    @property
    def size(self) -> int:
        """Size of the files."""
        with self._lock:
            return sum(s.size for s in self._segments)

    @property
    def empty(self) -> bool:
        with self._lock:
            return not self._segments

    def append(self, records: list[bytes], *, held: bool = False) -> list[int]:
        """Write records so that they survive a crash, and return the end positions of those that were written.

        If held, the records are also in memory. Then those that are deleted again to make room
        for others do not count as dropped.
        """
        ends: list[int] = []
        with self._lock:
            self._held = held
            try:
                while len(ends) < len(records):
                    ends += self._append(records[len(ends):])
            except Full as full:
                self._home.log("warning", "spool-full", str(full))
            except OSError as failure:
                # A segment whose sync has failed is not synced again: the kernel may
                # have dropped what it could not write.
                self._broken = True
                self._discard()
                self._home.log("error", "spool-failed", f"the spool cannot be written: {failure}. Frames and events wait in memory.")
            self._held = False
        return ends

    def _append(self, records: list[bytes]) -> list[int]:
        self._home.room(self, len(records[0]))
        segment = self._segments[-1] if self._segments and not self._broken else None
        if segment is None or segment.size >= self._home.segment:
            segment = self._begin()
        fitting, size = 0, 0
        for record in records:
            if fitting and (segment.size + size + 8 + len(record) > self._home.segment or self._home.used + size + 8 + len(record) > self._home.limit):
                break
            fitting += 1
            size += 8 + len(record)
        before = len(segment.ends)
        segment.append(records[:fitting])
        self._home.used += size
        return [segment.number << _OFFSET | end for end in segment.ends[before:]]

    def _discard(self) -> None:
        """Remove the last segment if nothing was written to it. Otherwise each attempt would leave a file, and the spool would not be empty."""
        if not self._segments or self._segments[-1].ends:
            return
        segment = self._segments.pop()
        self._home.used -= segment.size
        try:
            segment.remove()
        except OSError:
            pass  # its records are also in memory; if they are sent twice, they are folded once

    def _begin(self) -> Segment:
        self._number += 1
        segment = Segment.create(self._home.path / f"{self._kind}-{self._number:08}.log", self._number)
        self._home.used += HEAD
        if self._segments:
            self._segments[-1].close()
        self._segments.append(segment)
        self._broken = False
        sync_directory(self._home.path)
        return segment

    def give_up(self) -> bool:
        """Delete the oldest segment without records in flight, and count its records as dropped."""
        with self._lock:
            segment = next((s for s in self._segments if s.next == s.settled), None)
            if segment is None or segment is self._segments[-1]:
                return False
            self._segments.remove(segment)
            if not self._held:
                self.dropped += len(segment.ends) - segment.settled
            self._home.used -= segment.size
            segment.remove()
        return True

    def read(self, size: int, count: int) -> tuple[list[bytes], int]:
        """Return the next records and the position after them."""
        records: list[bytes] = []
        total, end = 0, 0
        with self._lock:
            for segment in list(self._segments):
                if not segment.loaded and (records or not self._load(segment)):
                    if records:
                        break  # the next call reads it
                    continue
                while segment.next < len(segment.ends):
                    length = segment.ends[segment.next] - segment.starts[segment.next] - 8
                    if records and (len(records) == count or total + length > size):
                        return records, end
                    try:
                        record = segment.read()
                    except OSError as failure:
                        if records:
                            return records, end
                        self._unreadable(segment, failure)
                        break
                    end = segment.number << _OFFSET | segment.ends[segment.next - 1]
                    if record is None:
                        self._home.corrupt(segment.path, segment.starts[segment.next - 1], b"")
                        self.dropped += 1
                        continue
                    records.append(record)
                    total += length
                if not self._segments or segment is not self._segments[-1]:
                    segment.close()
            if not records and end:
                self.commit(end)
            elif not records:
                self._trim()
        return records, end

    def skip(self, end: int) -> None:
        """Continue to read at the position, because the records before it are in flight."""
        with self._lock:
            for segment in self._segments:
                while segment.next < len(segment.ends) and (segment.number << _OFFSET | segment.ends[segment.next]) <= end:
                    segment.next += 1

    def lost(self) -> int:
        """Return how many records were dropped since the last call."""
        with self._lock:
            lost, self.dropped = self.dropped, 0
        return lost

    def commit(self, end: int) -> None:
        """Count the records before the position as settled."""
        with self._lock:
            if self._done_fd < 0:
                return  # the spool is closed, and the answer has come too late
            for segment in self._segments:
                while segment.settled < len(segment.ends) and (segment.number << _OFFSET | segment.ends[segment.settled]) <= end:
                    segment.settled += 1
                segment.next = max(segment.next, segment.settled)
            self._trim()
            try:
                os.pwrite(self._done_fd, _DONE.pack(end, end ^ (2**64 - 1)), 0)
            except OSError:
                pass  # after a crash, more records are sent again, and folded once

    def _trim(self) -> None:
        while self._segments and self._segments[0].loaded and self._segments[0].settled == len(self._segments[0].ends):
            segment = self._segments.popleft()
            self._home.used -= segment.size
            try:
                segment.remove()
            except OSError as failure:
                self._home.log("error", "spool-remove", f"{segment.path} in the spool cannot be deleted: {failure}. "
                               "The records in it were sent, and the next client may send them again.")

    def close(self) -> None:
        """Close the files. Their descriptors must not be used afterwards, because other files may have the same numbers."""
        with self._lock:
            fd, self._done_fd = self._done_fd, -1
            os.close(fd)
            for segment in self._segments:
                segment.close()
            self._segments.clear()


def _unpack_done(data: bytes) -> tuple[int, int]:
    position, check = _DONE.unpack(data)
    return int(position), int(check)
