"""Starts a sender, as a process or as a thread, and looks after it."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from oona_client.ring import Ring
from oona_client.sender import Config, Reporter, Sender

LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
RESTARTS = 5  # of a sender that dies; then a thread takes over

# The sender needs only the standard library. So that NumPy is not imported, the package
# is made without running its __init__, and site-packages are not looked at.
_START = """
import sys, types
package = types.ModuleType("oona_client")
package.__path__ = [sys.argv[1]]
sys.modules["oona_client"] = package
from oona_client.sender import main
main()
"""

log = logging.getLogger("oona_client")


class Link:
    """A sender and the ring to it."""

    def __init__(self, ring: Ring, config: Config, *, process: bool) -> None:
        self.ring = ring
        self.config = config
        self.process = process
        self.pid = 0
        self.closing = False
        self._child: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._inner: Sender | None = None  # if it is a thread
        self._read = self._wake = -1
        self._died = 0
        if process:
            self._spawn()
        else:
            self._start_thread()

    def _spawn(self) -> None:
        # What it writes to standard error goes to the log with the rest. If it had that of this
        # process, whoever reads it from a pipe would wait for the sender's end, too.
        config = dataclasses.replace(self.config, parent=os.getpid())
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _START, str(Path(__file__).parent)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, pass_fds=(self.ring.fd,), bufsize=0,
        )
        assert child.stdin is not None and child.stdout is not None
        self._child, self.pid = child, child.pid
        self._wake = child.stdin.fileno()
        start = {"ring": self.ring.fd, "config": dataclasses.asdict(config)}
        child.stdin.write(json.dumps(start).encode() + b"\n")
        self._thread = threading.Thread(target=self._listen, args=(child,), name="oona-log", daemon=True)
        self._thread.start()

    def _start_thread(self) -> None:
        self.pid = 0
        self._read, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        write = Reporter(lambda level, message: log.log(LEVELS[level], "%s", message))
        self._inner = Sender(self.ring, self.config, write, self._read, lambda: False)
        self._thread = threading.Thread(target=self._inner.run, name="oona-sender", daemon=True)
        self._thread.start()

    def _listen(self, child: subprocess.Popen[bytes]) -> None:
        """Pass on what the sender says, and start another one if it dies."""
        assert child.stdout is not None
        for line in child.stdout:
            try:
                level, message = json.loads(line)
                log.log(LEVELS[level], "%s", message)
            except (ValueError, KeyError):
                log.error("the sender says: %s", line.decode(errors="replace").rstrip())
        child.wait()
        if self.ring.get("done") or self.closing and not self._unsettled():
            return
        self._died += 1
        log.error("the sender has died with the status %s; %d frames and %d events that it had are counted as lost; %s", child.returncode,
                  self.ring.get("waiting0"), self.ring.get("waiting1"), "another one is started" if self._died <= RESTARTS else "a thread takes over")
        for kind in (0, 1):
            self.ring.add(f"lost{kind}", self.ring.get(f"waiting{kind}"))
            self.ring.set(f"waiting{kind}", 0)
        try:
            time.sleep(min(5.0, 0.1 * 2**self._died))
            if self._died <= RESTARTS:
                self._spawn()
            else:
                self._start_thread()
        except (OSError, RuntimeError) as failure:  # the latter while the interpreter ends
            log.error("no other sender can be started (%s); frames are lost from now on", failure)

    def _unsettled(self) -> bool:
        return self.ring.used > 0

    def poke(self) -> None:
        """Make the sender look at the ring now."""
        try:
            os.write(self._wake, b"\n")
        except OSError:
            pass  # the pipe is full, so it is awake, or it has died

    def wait(self, timeout: float) -> bool:
        """Wait for the sender's end after the ring was closed."""
        end = time.monotonic() + timeout
        while not self.ring.get("done"):
            if time.monotonic() >= end:
                return False
            time.sleep(0.005)
        return True

    def abandon(self) -> None:
        """Forget the sender after a fork: it is the parent's."""
        descriptors = [self._read, self._wake] if self._inner else []
        if self._child is not None:
            descriptors += [stream.fileno() for stream in (self._child.stdin, self._child.stdout) if stream is not None]
        for fd in descriptors:
            try:
                os.close(fd)
            except OSError:
                pass  # it was closed before
        if self._inner is not None:
            self._inner.abandon()
        self._wake = -1

    def reap(self, timeout: float) -> bool:
        """Take leave of a sender that has ended, or make its process end. False: something still uses the ring."""
        child = self._child
        if child is not None:
            try:
                child.wait(timeout)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        if self._thread is not None:
            self._thread.join(timeout)
            if self._thread.is_alive():
                return False
        if self._inner is not None:
            self._inner.network.join(timeout)  # it may wait for an answer
            if self._inner.network.is_alive():
                return False
            os.close(self._read)
        if child is not None and child.stdin is not None and child.stdout is not None:
            child.stdin.close()
            child.stdout.close()
        elif self._wake >= 0:
            os.close(self._wake)
        self._wake = -1
        return True
