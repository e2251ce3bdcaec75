"""What the client logs in the training process.

A log handler may do anything: wait for a lock of its own, raise, or call close().
So nothing is logged while a lock of the client is held, or by a thread that others
wait for.
"""

from __future__ import annotations

import logging
import time
import traceback

QUIET = 60.0  # a message of one kind is logged at most once in so many seconds
KINDS = 256  # at most, that are remembered: names of metrics are among them, and may change from step to step

_log = logging.getLogger("oona_client")


def say(level: int, message: str) -> None:
    """Log a message. If a handler raises, that is printed: it must end neither the training nor a thread of the client."""
    try:
        _log.log(level, "%s", message)
    except Exception:
        traceback.print_exc()


class Complaints:
    """Errors that are noted at once and logged later, at most one of a kind in a minute."""

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
