"""Sends frames, events and the end of the run to a running ingest during the training, with Oona's client."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

try:
    from oona_client import Client, Stats
except ImportError:  # it is not installed; this is the one of the tree
    sys.path.append(str(Path(__file__).resolve().parents[2] / "clients" / "python" / "src"))
    from oona_client import Client, Stats

from lifecycle import Transition
from recorder import Clock
from training import Frame

TOKEN_FILE = "OONA_TOKEN_FILE"  # variable: the file of the token, for an ingest that asks for one
CA_FILE = "OONA_CA_FILE"  # variable: PEM file of the authorities of ingest's certificate; default: the system's
PATIENCE = 120.0  # seconds after the training in which the client still tries to send what waits


class Live:
    """A sink that hands everything to the client, which returns at once."""

    def __init__(self, url: str, run: str, clock: Clock, spool: Path | None = None) -> None:
        self._clock = clock
        self._client = Client(
            url, run,
            token_file=os.environ.get(TOKEN_FILE, ""),
            ca_file=os.environ.get(CA_FILE, ""),
            spool=spool or "",
            close_timeout=PATIENCE,
        )

    def frame(self, frame: Frame) -> None:
        self._client.frame(
            frame.layer, frame.step, np.arange(len(frame.states)), frame.states, frame.columns,
            {(tensor.name, tensor.seed): tensor.values for tensor in frame.tensors},
            observed_at=self._clock.now(),
        )

    def transition(self, transition: Transition) -> None:
        self._client.event(
            transition.layer, transition.seed, transition.from_state, transition.to_state,
            sequence=transition.sequence, step=transition.step, at=self._clock.now(),
            reason=transition.reason, evidence=transition.evidence,
        )

    def __enter__(self) -> Live:
        return self

    def __exit__(self, _: object, failure: BaseException | None, __: object) -> None:
        """Say how the run has ended, and close the client."""
        if failure is None:
            self._client.end(at=self._clock.now())
        else:
            self._client.end("failed" if isinstance(failure, Exception) else "stopped", repr(failure), at=self._clock.now())
        self._client.close()

    def close(self) -> Stats:
        """Send what waits, and end."""
        return self._client.close()


def report(stats: Stats) -> tuple[str, bool]:
    """Return what became of what was sent as text, and whether ingest will have all of it."""
    lines, complete = [], True
    for name, counts in (("frames", stats.frames), ("events", stats.events)):
        kept = counts.accepted + counts.spooled
        line = f"{counts.accepted} {name} sent" + (", with the end of the run" if name == "events" else "")
        if counts.spooled:
            line += f", {counts.spooled} in the spool, which the next run with it sends"
        if missing := counts.handed + counts.invalid - kept:
            line += f", {missing} not: {counts.rejected} refused, {counts.dropped} dropped, {counts.lost} lost, {counts.invalid} not valid"
            complete = False
        if counts.aside:
            line += f"; {counts.aside} of them will be put aside"
        lines.append(line)
    return "\n".join(lines), complete
