"""A segment: a file of the spool, with records of one kind.

It begins with a magic number and a random salt. A record is its length, a checksum
of the salt, the length and the content, and the content.
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from array import array
from pathlib import Path

from oona_client.lane import Log

MAGIC = b"oonaspl1"
HEAD = 16
MARKER = b"\xc3\x01"  # each record begins with this: Avro in single-object encoding
_RECORD = struct.Struct("<II")


class Segment:
    """One file. starts and ends are the offsets of its valid records.

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
        self.next = 0  # index of the next record to read
        self.settled = 0  # number of records that are settled

    @classmethod
    def create(cls, path: Path, number: int) -> Segment:
        segment = cls(path, number)
        salt = os.urandom(8)
        segment.seed = zlib.crc32(salt)
        segment.loaded = True
        segment.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            write_at(segment.fd, MAGIC + salt, 0)
        except OSError:
            segment.remove()
            raise
        return segment

    @classmethod
    def found(cls, path: Path, number: int) -> Segment:
        """Return a segment that another process has left, without reading it."""
        segment = cls(path, number)
        segment.size = path.stat().st_size
        return segment

    def load(self, corrupt: Corrupt) -> bool:
        """Find the records of a segment that another process has left. Copy damaged bytes to another file. Return False if the file is not a segment."""
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
                break  # zeros at the end, which a file system may leave after a crash
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
        """Write the records and sync. After an error, none of them is in the segment, and the segment must not be written to again."""
        parts: list[bytes] = []
        for record in records:
            parts += (_RECORD.pack(len(record), self.checksum(record)), record)
        write_at(self.fd, b"".join(parts), self.size)
        sync(self.fd)
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
    """Copies damaged bytes to files, and counts the places where they were."""

    def __init__(self, log: Log) -> None:
        self.count = 0
        self._log = log

    def __call__(self, path: Path, at: int, data: bytes) -> None:
        self.count += 1
        aside = path.with_name(f"{path.name}.corrupt-{at}")
        where = f"they are kept in {aside.name}"
        try:
            if at == 0:
                path.rename(aside)  # the whole file is damaged, and a copy would need space
            else:
                aside.write_bytes(data)
        except OSError as failure:
            where = f"they could not be kept in {aside.name}: {failure}"
        self._log("error", "spool-corrupt", f"the spool is damaged: {len(data)} bytes of {path} at offset {at} are not valid records; {where}. stats().damaged counts such places.")


def write_at(fd: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        n = os.pwrite(fd, view, at)
        if n == 0:
            raise OSError(errno.EIO, "nothing was written")
        view, at = view[n:], at + n


def sync(fd: int) -> None:
    getattr(os, "fdatasync", os.fsync)(fd)


def sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
