"""The directories of a spool.

	DIR/NAME/lock                  locked by the sender that the directory belongs to
	DIR/NAME/frames-00000001.log   segments; events and ends of runs have their own
	DIR/NAME/frames.done           the position up to which records are settled

When the sender of a directory has ended, the next client with the spool DIR sends
the records in it.
"""

from __future__ import annotations

import fcntl
import os
import re
from pathlib import Path

from oona_client.lane import Log
from oona_client.segment import HEAD, Corrupt, sync_directory
from oona_client.spool import Full, Spool

LARGEST_SEGMENT, SMALLEST_SEGMENT = 8 << 20, 4 << 10
HEADROOM = 64 << 20  # bytes of the disk that the spool leaves free
ADOPTED = 16  # directories of other senders that are open at a time
_FILE = re.compile(r"lock|(frames|events|ends)(\.done|-\d{8}\.log(\.corrupt-\d+)?)")


class Home:
    """The directory of one sender in the spool, locked."""

    def __init__(self, path: Path, lock: int, log: Log, *, limit: int, oldest: bool) -> None:
        self.path = path
        self.log = log
        self.limit = limit
        # The oldest records are dropped a segment at a time, so there must be several segments.
        self.segment = max(SMALLEST_SEGMENT, min(LARGEST_SEGMENT, limit // 8))
        self.used = 0
        self.unreadable = 0  # segments
        self.corrupt = Corrupt(log)
        self._lock = lock
        self._oldest = oldest
        self.frames, self.events, self.ends = self.spools = Spool(self, "frames"), Spool(self, "events"), Spool(self, "ends")  # by kind

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
            sync_directory(root)
            home = cls(path, lock, log, limit=limit, oldest=oldest)
            for spool in home.spools:
                spool.load()
        except BaseException:
            os.close(lock)  # otherwise the next attempt would wait for it
            raise
        return home

    @classmethod
    def adopt(cls, root: Path, except_for: set[str], log: Log, most: int = ADOPTED) -> list[Home]:
        """Take over at most that many directories of senders that have ended."""
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
                # Continue with the others. This one stays locked, so that it is not tried again and again.
                log("error", f"spool-adopt-{path.name}", f"{path}, which an earlier client has left in the spool, cannot be read: {failure}")
                continue
            if home.empty:
                home.leave()
            else:
                homes.append(home)
        return homes

    def room(self, spool: Spool, size: int) -> None:
        """Raise Full if there is no room for a record of that size. With overflow="oldest", delete the oldest segments first to make room."""
        if HEAD + 8 + size > self.limit:
            raise Full(f"a record of {size} bytes does not fit into the spool, which may have {self.limit} bytes (spool_bytes); this record and those after it wait in memory")
        while self.used + HEAD + 8 + size > self.limit:
            # Frames are deleted first: events are fewer and smaller, and a missing event leaves a gap in the history of its seed.
            if not (self._oldest and (self.frames.give_up() or spool.give_up())):
                raise Full(f"the spool is full: it has the maximum of {self.limit} bytes (spool_bytes); frames and events wait in memory")
        disk = os.statvfs(self.path)
        if disk.f_bavail * disk.f_frsize < HEADROOM + size:
            raise Full(f"the disk of the spool {self.path.parent} has less than {HEADROOM >> 20} MiB left; frames and events wait in memory")

    @property
    def empty(self) -> bool:
        return all(spool.empty for spool in self.spools)

    @property
    def damaged(self) -> int:
        """Places that could not be read."""
        return self.corrupt.count + self.unreadable

    def abandon(self) -> None:
        """Close the lock in the child after a fork. It belongs to the parent, and must end with the parent."""
        os.close(self._lock)

    def leave(self) -> None:
        """Unlock the directory, and remove it if it is empty."""
        empty = self.empty
        for spool in self.spools:
            spool.close()
        try:
            if empty:
                self._remove()
        except OSError as failure:
            self.log("error", f"spool-leave-{self.path.name}", f"{self.path} in the spool cannot be removed: {failure}")
        if not self.unreadable:  # otherwise the directory would be taken over again and again
            os.close(self._lock)

    def _remove(self) -> None:
        """Remove the directory, unless it has damaged files or files of other programs."""
        names = ("frames.done", "events.done", "ends.done", "lock")
        if all(p.name in names for p in self.path.iterdir()):
            for name in names:
                (self.path / name).unlink(missing_ok=True)
            self.path.rmdir()


def _ours(path: Path) -> bool:
    """Report whether a directory has only files of a spool. Other programs may also have a file named lock."""
    try:
        return all(_FILE.fullmatch(p.name) for p in path.iterdir())
    except OSError:  # it may have been removed
        return False


def _lock(path: Path, *, wait: bool) -> int | None:
    """Lock a directory. Return None if another process has locked it, or if it does not exist any more."""
    try:
        fd = os.open(path / "lock", os.O_RDWR | (os.O_CREAT if wait else 0), 0o600)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError:
        if wait:
            raise
        return None  # the directory belongs to another user
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        if os.fstat(fd).st_nlink:  # otherwise the file was removed in the meantime
            return fd
    except BlockingIOError:
        pass
    os.close(fd)
    return None
