"""Starts a sender as a process or as a thread, and restarts a process that dies."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from oona_client.complaints import say
from oona_client.ring import Ring
from oona_client.sender import Config, Reporter, Sender

LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
RESTARTS = 5  # how often a process that dies is started again; after that, the sender is a thread

# The sender needs only the standard library. NumPy must not be imported, so the package's
# __init__ is not run, and Python does not search site-packages.
_START = """
import sys, types
package = types.ModuleType("oona_client")
package.__path__ = [sys.argv[1]]
sys.modules["oona_client"] = package
from oona_client.sender import main
main()
"""


class Link:
    """A sender, and the ring through which it gets records."""

    def __init__(self, ring: Ring, config: Config, *, process: bool) -> None:
        self.ring = ring
        self.config = config
        self.process = process
        self.pid = 0
        self.closing = False
        self._child: subprocess.Popen[bytes] | None = None
        self._log: threading.Thread | None = None  # logs the sender's messages
        self._thread: threading.Thread | None = None  # the sender, if it is a thread
        self._inner: Sender | None = None
        self._messages: queue.SimpleQueue[tuple[str, str] | None] = queue.SimpleQueue()
        self._read = self._wake = -1
        self._died = 0
        if process:
            self._spawn()
        else:
            self._start_thread()

    def _spawn(self) -> None:
        # The sender's standard error is logged, too. It must not inherit the standard error of this
        # process: a program that reads that from a pipe would wait for the sender to end.
        config = dataclasses.replace(self.config, parent=os.getpid())
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _START, str(Path(__file__).parent)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, pass_fds=(self.ring.fd,), bufsize=0,
        )
        assert child.stdin is not None and child.stdout is not None
        self._child, self.pid = child, child.pid
        start = {"ring": self.ring.fd, "config": dataclasses.asdict(config)}
        child.stdin.write(json.dumps(start).encode() + b"\n")
        os.set_blocking(child.stdin.fileno(), False)  # poke() must not wait if the process is stopped
        self._wake = child.stdin.fileno()
        self._log = threading.Thread(target=self._listen, args=(child,), name="oona-log", daemon=True)
        self._log.start()

    def _start_thread(self) -> None:
        self.pid = 0
        self._read, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        # The sender must not wait for log handlers. One of them may have called close(), which waits for the sender.
        messages = self._messages
        self._inner = Sender(self.ring, self.config, Reporter(lambda level, message: messages.put((level, message))), self._read, lambda: False)
        self._log = threading.Thread(target=self._pass_on, name="oona-log", daemon=True)
        self._thread = threading.Thread(target=self._inner.run, name="oona-sender", daemon=True)
        self._log.start()
        self._thread.start()

    def _pass_on(self) -> None:
        """Log the messages of a sender that is a thread."""
        while (message := self._messages.get()) is not None:
            say(LEVELS[message[0]], message[1])

    def _listen(self, child: subprocess.Popen[bytes]) -> None:
        """Log the messages of a sender that is a process, and start another one if it dies."""
        assert child.stdout is not None
        for line in child.stdout:
            try:
                level, message = json.loads(line)
                number = LEVELS[level]
            except (ValueError, KeyError, TypeError):
                number, message = logging.ERROR, f"the sender process has printed: {line.decode(errors='replace').rstrip()}"
            say(number, message)
        child.wait()
        if self.ring.get("done") or self.closing and not self._unsettled():
            return
        self._died += 1
        lost = [self.ring.get(f"waiting{kind}") for kind in (0, 1)]
        for kind in (0, 1):
            self.ring.add(f"lost{kind}", lost[kind])
            self.ring.set(f"waiting{kind}", 0)
        say(logging.ERROR, f"the sender has died with the status {child.returncode}; {lost[0]} frames and {lost[1]} events that it had are counted as "
            f"lost; {'another one is started' if self._died <= RESTARTS else 'a thread takes over'}")
        try:
            time.sleep(min(5.0, 0.1 * 2**self._died))
            if self._died <= RESTARTS:
                self._spawn()
            else:
                self._start_thread()
        except (OSError, RuntimeError) as failure:  # a RuntimeError if the interpreter is ending
            say(logging.ERROR, f"no other sender can be started ({failure}); frames and events are lost from now on. Close this client and create another one")

    def _unsettled(self) -> bool:
        return self.ring.used > 0

    def poke(self) -> None:
        """Wake the sender, so that it reads the ring."""
        try:
            os.write(self._wake, b"\n")
        except OSError:
            pass  # the pipe is full, so the sender will wake anyway; or the sender has died

    def runs(self, thread: threading.Thread) -> bool:
        """Report whether the thread is one of the sender's threads in this process."""
        return thread in (self._log, self._thread, self._inner and self._inner.network)

    def wait(self, timeout: float, pause: Callable[[float], None] = time.sleep) -> bool:
        """Wait until the sender has ended, after the ring was closed."""
        end = time.monotonic() + timeout
        while not self.ring.get("done"):
            if time.monotonic() >= end:
                return False
            pause(0.005)
        return True

    def abandon(self) -> None:
        """Forget the sender after a fork, because it belongs to the parent."""
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

    def reap(self, timeout: float | None) -> bool:
        """Release the resources of a sender that has ended, or kill its process. Return False if something still uses the ring.

        If a call was interrupted, another call does the rest.
        """
        child = self._child
        if child is not None:
            try:
                child.wait(timeout)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        if self._inner is not None:
            for thread in (self._thread, self._inner.network):  # the second thread may be waiting for an answer
                if not _ended(thread, timeout):
                    return False
            self._messages.put(None)
        if not _ended(self._log, timeout):
            return False
        wake, self._wake = self._wake, -1
        read, self._read = self._read, -1
        if self._inner is not None:
            for fd in (wake, read):
                if fd >= 0:
                    os.close(fd)
        if child is not None and child.stdin is not None and child.stdout is not None:
            child.stdin.close()
            child.stdout.close()
        return child is self._child  # another process may have been started after this one had died


def _ended(thread: threading.Thread | None, timeout: float | None) -> bool:
    """Wait for the end of a thread."""
    if thread is None:
        return True
    if thread.is_alive():
        thread.join(timeout)
    return not thread.is_alive()


def can_spawn() -> bool:
    """Report whether the sender can be a process, which needs to inherit descriptors."""
    return os.name == "posix" and bool(sys.executable) and not getattr(sys, "frozen", False)
