"""The spool: records on disk, for the time in which ingest does not take them.

	DIR/NAME/lock                  held by the sender whose directory it is
	DIR/NAME/frames-00000001.log   segments; events have their own
	DIR/NAME/frames.done           the position up to which records are settled

A segment begins with a magic number and a random salt. A record has its length,
a checksum over salt, length and content, and its content. A directory whose
sender is gone is emptied by the next client that has DIR as its spool.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import struct
import threading
import zlib
from array import array
from collections import deque
from pathlib import Path

from oona_client.lane import Log

MAGIC = b"oonaspl1"
HEAD = 16
LARGEST_SEGMENT, SMALLEST_SEGMENT = 8 << 20, 4 << 10
HEADROOM = 64 << 20  # bytes of the disk that stay free
ADOPTED = 16  # directories of senders that are gone that are open at a time
_FOR_NOW = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EINTR, errno.EAGAIN)  # errors that say nothing of the file
MARKER = b"\xc3\x01"  # with which each record begins: Avro in single-object encoding
_RECORD = struct.Struct("<II")
_DONE = struct.Struct("<QQ")
_OFFSET = 40  # bits of a position that are the offset in its segment
_NAME = re.compile(r"(frames|events)-(\d{8})\.log")
_FILE = re.compile(r"lock|(frames|events)(\.done|-\d{8}\.log(\.corrupt-\d+)?)")


class Full(Exception):
    """The spool has no room."""


class Segment:
    """One file. starts and ends are where its records are, for those that are valid.

    It is open only while it is written to or read: a spool may have more files than a
    process may have open.
    """

    def __init__(self, path: Path, number: int) -> None:
        self.path, self.number = path, number
        self.fd = -1
        self.seed = 0
        self.size = HEAD
        self.loaded = False
        self.starts, self.ends = array("Q"), array("Q")
        self.next = 0  # index of the record that is read next
        self.settled = 0  # records that are settled

    @classmethod
    def create(cls, path: Path, number: int) -> Segment:
        segment = cls(path, number)
        salt = os.urandom(8)
        segment.seed = zlib.crc32(salt)
        segment.loaded = True
        segment.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            _write(segment.fd, MAGIC + salt, 0)
        except OSError:
            segment.remove()
            raise
        return segment

    @classmethod
    def found(cls, path: Path, number: int) -> Segment:
        """Return a segment that another process has left. It is not read yet."""
        segment = cls(path, number)
        segment.size = path.stat().st_size
        return segment

    def load(self, corrupt: Corrupt) -> bool:
        """Find the records of a segment that another process has left. What is damaged is set aside. False: it is no segment."""
        data = self.path.read_bytes()
        if len(data) < HEAD or data[:8] != MAGIC:
            if len(data) > HEAD:
                corrupt(self.path, 0, data)
            self.path.unlink(missing_ok=True)
            return False
        self.seed = zlib.crc32(data[8:HEAD])
        at = HEAD
        while at < len(data):
            end = self.valid(data, at)
            if end:
                self.starts.append(at)
                self.ends.append(end)
                at = end
                continue
            following = self.resume(data, at)
            if following == len(data) and not any(data[at:]):
                break  # a tail of zeros, as a file system may leave
            corrupt(self.path, at, data[at:following])
            at = following
        self.loaded = True
        return True

    def valid(self, data: bytes, at: int) -> int:
        """Return the end of a valid record at the offset, or 0."""
        if at + 8 > len(data):
            return 0
        n, checksum = _RECORD.unpack_from(data, at)
        end = at + 8 + int(n)
        if n == 0 or end > len(data) or self.checksum(data[at + 8:end]) != checksum:
            return 0
        return end

    def resume(self, data: bytes, at: int) -> int:
        """Return the offset of the next valid record after a damaged one, or the end."""
        found = data.find(MARKER, at + 9)
        while found >= 0:
            if self.valid(data, found - 8):
                return found - 8
            found = data.find(MARKER, found + 1)
        return len(data)

    def checksum(self, content: bytes) -> int:
        return zlib.crc32(content, zlib.crc32(len(content).to_bytes(4, "little"), self.seed))

    def append(self, records: list[bytes]) -> None:
        """Write the records and sync. If that fails, none is in the segment, which must not be used again."""
        parts: list[bytes] = []
        for record in records:
            parts += (_RECORD.pack(len(record), self.checksum(record)), record)
        _write(self.fd, b"".join(parts), self.size)
        _sync(self.fd)
        for record in records:
            self.starts.append(self.size)
            self.size += 8 + len(record)
            self.ends.append(self.size)

    def read(self) -> bytes | None:
        """Return the next record, or None if it is damaged."""
        if self.fd < 0:
            self.fd = os.open(self.path, os.O_RDONLY)
        start, end = self.starts[self.next], self.ends[self.next]
        data = os.pread(self.fd, end - start, start)
        self.next += 1
        return data[8:] if self.valid(data, 0) == end - start else None

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def remove(self) -> None:
        self.close()
        self.path.unlink(missing_ok=True)


class Corrupt:
    """Sets damaged bytes aside, and counts them."""

    def __init__(self, log: Log) -> None:
        self.count = 0
        self._log = log

    def __call__(self, path: Path, at: int, data: bytes) -> None:
        self.count += 1
        aside = path.with_name(f"{path.name}.corrupt-{at}")
        where = f"they are in {aside.name}"
        try:
            if at == 0:
                path.rename(aside)  # all of the file; a copy would need room
            else:
                aside.write_bytes(data)
        except OSError as failure:
            where = f"they are lost, as they cannot be copied: {failure}"
        self._log("error", "spool-corrupt", f"the spool is damaged: {len(data)} bytes of {path} at {at} are no record; {where}. stats().damaged counts such places.")


class Spool:
    """The records of one kind, in order. Two threads use it: one appends, the other reads and commits."""

    def __init__(self, home: Home, kind: str) -> None:
        self._home = home
        self._kind = kind
        self._lock = threading.RLock()
        self._segments: deque[Segment] = deque()
        self._broken = False  # the last segment must not be appended to
        self._held = False  # what is appended is in memory, too
        self.dropped = 0  # records in segments that were given up to make room, or cannot be read
        self._done = self._settled_before()
        numbers = sorted((int(m[2]), p) for p in self._home.path.iterdir() if (m := _NAME.fullmatch(p.name)) and m[1] == self._kind)
        self._number = max([number for number, _ in numbers] + [self._done >> _OFFSET])
        for number, path in numbers:
            segment = Segment.found(path, number)
            self._home.used += segment.size
            self._segments.append(segment)
            self._broken = True  # what another process wrote is not appended to
        self._done_fd = os.open(home.path / f"{kind}.done", os.O_RDWR | os.O_CREAT, 0o600)

    def load(self) -> None:
        """Read all segments, so that pending is known. Otherwise each is read in its turn."""
        with self._lock:
            for segment in list(self._segments):
                self._load(segment)
            self._trim()

    def _load(self, segment: Segment) -> bool:
        """Read a segment that was found. If it cannot be read, it is left where it is, and those behind it are sent."""
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
        """Leave a segment that cannot be read out, and count its records. Nothing of it is being sent."""
        if failure.errno in _FOR_NOW:
            raise failure
        self._segments.remove(segment)
        self._home.used -= segment.size
        self._home.unreadable += 1
        self.dropped += len(segment.ends) - segment.settled
        segment.close()
        self._home.log("error", f"spool-read-{segment.path.parent.name}", f"{segment.path} in the spool cannot be read: {failure}. "
                       "It stays there, and what is in it is not sent. stats().damaged counts such files.")

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
        """Write records so that they survive a crash, and return the positions behind those that were written.

        held: they are in memory, too, so those of them that are given up again to make room for the others are not dropped.
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
                self._home.log("error", "spool-failed", f"the spool cannot be written: {failure}. What waits stays in memory.")
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
        """Remove the last segment if nothing was written to it. Else each attempt would leave one, and the spool would not be empty."""
        if not self._segments or self._segments[-1].ends:
            return
        segment = self._segments.pop()
        self._home.used -= segment.size
        try:
            segment.remove()
        except OSError:
            pass  # what it may have is in memory, too, and is folded once

    def _begin(self) -> Segment:
        self._number += 1
        segment = Segment.create(self._home.path / f"{self._kind}-{self._number:08}.log", self._number)
        self._home.used += HEAD
        if self._segments:
            self._segments[-1].close()
        self._segments.append(segment)
        self._broken = False
        _sync_directory(self._home.path)
        return segment

    def give_up(self) -> bool:
        """Delete the oldest segment of which nothing is being sent, and count its records as dropped."""
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
        """Return the next records and the position behind them."""
        records: list[bytes] = []
        total, end = 0, 0
        with self._lock:
            for segment in list(self._segments):
                if not segment.loaded and (records or not self._load(segment)):
                    if records:
                        break  # its turn comes
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
        """Go on reading at the position: what is before it is being sent."""
        with self._lock:
            for segment in self._segments:
                while segment.next < len(segment.ends) and (segment.number << _OFFSET | segment.ends[segment.next]) <= end:
                    segment.next += 1

    def lost(self) -> int:
        """Return how many records were given up since the last call, to make room."""
        with self._lock:
            lost, self.dropped = self.dropped, 0
        return lost

    def commit(self, end: int) -> None:
        """Forget what is before the position."""
        with self._lock:
            if self._done_fd < 0:
                return  # closed: the answer has come too late
            for segment in self._segments:
                while segment.settled < len(segment.ends) and (segment.number << _OFFSET | segment.ends[segment.settled]) <= end:
                    segment.settled += 1
                segment.next = max(segment.next, segment.settled)
            self._trim()
            try:
                os.pwrite(self._done_fd, _DONE.pack(end, end ^ (2**64 - 1)), 0)
            except OSError:
                pass  # then more is sent again after a crash, and folded once

    def _trim(self) -> None:
        while self._segments and self._segments[0].loaded and self._segments[0].settled == len(self._segments[0].ends):
            segment = self._segments.popleft()
            self._home.used -= segment.size
            try:
                segment.remove()
            except OSError as failure:
                self._home.log("error", "spool-remove", f"{segment.path} in the spool cannot be deleted: {failure}. "
                               "What is in it was sent, and may be sent again by the next client.")

    def close(self) -> None:
        """Close the files. The number of one must not be used afterwards, as another file may have it."""
        with self._lock:
            fd, self._done_fd = self._done_fd, -1
            os.close(fd)
            for segment in self._segments:
                segment.close()
            self._segments.clear()


class Home:
    """The directory of one sender in the spool, locked."""

    def __init__(self, path: Path, lock: int, log: Log, *, limit: int, oldest: bool) -> None:
        self.path = path
        self.log = log
        self.limit = limit
        # The oldest are given up by segments, so there are several.
        self.segment = max(SMALLEST_SEGMENT, min(LARGEST_SEGMENT, limit // 8))
        self.used = 0
        self.unreadable = 0  # segments
        self.corrupt = Corrupt(log)
        self._lock = lock
        self._oldest = oldest
        self.frames, self.events = Spool(self, "frames"), Spool(self, "events")

    @classmethod
    def own(cls, root: Path, name: str, log: Log, *, limit: int, oldest: bool) -> Home:
        """Make the directory of a new sender, or take that of a sender that died."""
        root.mkdir(parents=True, exist_ok=True)
        path = root / name
        while True:
            path.mkdir(mode=0o700, exist_ok=True)
            lock = _lock(path, wait=True)
            if lock is not None:
                break
        try:
            _sync_directory(root)
            home = cls(path, lock, log, limit=limit, oldest=oldest)
            home.frames.load()
            home.events.load()
        except BaseException:
            os.close(lock)  # for the next attempt, which would otherwise wait for it
            raise
        return home

    @classmethod
    def adopt(cls, root: Path, except_for: set[str], log: Log, most: int = ADOPTED) -> list[Home]:
        """Take directories of senders that are gone, some of them if there are more."""
        homes: list[Home] = []
        for path in sorted(root.iterdir()):
            if len(homes) == most:
                break
            if path.name in except_for or not path.is_dir() or not _ours(path):
                continue
            try:
                lock = _lock(path, wait=False)
                if lock is None:
                    continue
                home = cls(path, lock, log, limit=0, oldest=False)
            except OSError as failure:
                # The others are taken. This one stays locked, so that it is not tried again and again.
                log("error", f"spool-adopt-{path.name}", f"{path}, which an earlier client has left in the spool, cannot be read: {failure}")
                continue
            if home.frames.empty and home.events.empty:
                home.leave()
            else:
                homes.append(home)
        return homes

    def room(self, spool: Spool, size: int) -> None:
        """Raise Full if a record of the size has no room. By policy the oldest are given up."""
        if HEAD + 8 + size > self.limit:
            raise Full(f"a record of {size} bytes is larger than the spool (spool_bytes); it waits in memory, and so do those behind it")
        while self.used + HEAD + 8 + size > self.limit:
            # Events are fewer and smaller, and a gap in them stays in the life of a seed.
            if not (self._oldest and (self.frames.give_up() or spool.give_up())):
                raise Full(f"the spool has its {self.limit} bytes (spool_bytes); frames wait in memory")
        disk = os.statvfs(self.path)
        if disk.f_bavail * disk.f_frsize < HEADROOM + size:
            raise Full(f"the disk of the spool has less than {HEADROOM >> 20} MiB left; frames wait in memory")

    @property
    def damaged(self) -> int:
        """Places that could not be read."""
        return self.corrupt.count + self.unreadable

    def abandon(self) -> None:
        """Let go of the lock after a fork: it is the parent's, and must end with it."""
        os.close(self._lock)

    def leave(self) -> None:
        """Unlock the directory, and remove it if nothing is in it any more."""
        empty = self.frames.empty and self.events.empty
        self.frames.close()
        self.events.close()
        try:
            if empty:
                self._remove()
        except OSError as failure:
            self.log("error", f"spool-leave-{self.path.name}", f"{self.path} in the spool cannot be removed: {failure}")
        if not self.unreadable:  # it would be tried again and again
            os.close(self._lock)

    def _remove(self) -> None:
        """Remove the directory, unless it has damaged files or those of others."""
        names = ("frames.done", "events.done", "lock")
        if all(p.name in names for p in self.path.iterdir()):
            for name in names:
                (self.path / name).unlink(missing_ok=True)
            self.path.rmdir()


def _ours(path: Path) -> bool:
    """Report whether a directory has only files of a spool. Another program may have a file named lock, too."""
    try:
        return all(_FILE.fullmatch(p.name) for p in path.iterdir())
    except OSError:  # it may be gone by now
        return False


def _lock(path: Path, *, wait: bool) -> int | None:
    """Lock a directory. None: another process has it, or it is gone."""
    try:
        fd = os.open(path / "lock", os.O_RDWR | (os.O_CREAT if wait else 0), 0o600)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError:
        if wait:
            raise
        return None  # it is another user's
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        if os.fstat(fd).st_nlink:  # else somebody has removed it meanwhile
            return fd
    except BlockingIOError:
        pass
    os.close(fd)
    return None


def _unpack_done(data: bytes) -> tuple[int, int]:
    position, check = _DONE.unpack(data)
    return int(position), int(check)


def _write(fd: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        n = os.pwrite(fd, view, at)
        if n == 0:
            raise OSError(errno.EIO, "nothing was written")
        view, at = view[n:], at + n


def _sync(fd: int) -> None:
    getattr(os, "fdatasync", os.fsync)(fd)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
