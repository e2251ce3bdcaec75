"""What the client logs in the training process.

A log handler may wait for a lock, raise, or call close(). So the client logs nothing
while it holds one of its locks, or in a thread that others wait for.
"""

from __future__ import annotations

import logging
import time
import traceback

QUIET = 60.0  # seconds in which a message of one kind is logged at most once
KINDS = 256  # how many kinds are remembered; some have the name of a metric, which may change from step to step

_log = logging.getLogger("oona_client")


def say(level: int, message: str) -> None:
    """Log a message. If a handler raises, print the error, because it must end neither the training nor a thread of the client."""
    try:
        _log.log(level, "%s", message)
    except Exception:
        traceback.print_exc()


class Complaints:
    """Errors that are noted at once and logged later, at most one of each kind a minute."""

    def __init__(self) -> None:
        self.noted: list[str] = []
        self._said: dict[str, float] = {}

    def note(self, kind: str, message: str) -> None:
        now = time.monotonic()
        if now - self._said.get(kind, -QUIET) < QUIET:
            return
        if len(self._said) >= KINDS:
            self._said.clear()
        self._said[kind] = now
        self.noted.append(message)

    def say(self) -> None:
        """Log what was noted. The caller holds no lock of the client."""
        while self.noted:
            try:
                message = self.noted.pop(0)
            except IndexError:  # another thread has it
                return
            say(logging.ERROR, message)
