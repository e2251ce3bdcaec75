"""Counters of frames and events."""

from __future__ import annotations

from dataclasses import dataclass

from oona_client.ring import EVENT, FRAME, Ring


@dataclass(frozen=True)
class Counts:
    """Counters of frames, or of events and ends of runs. handed is the sum of the next six."""

    handed: int = 0  # accepted by frame(), event() or end(); each part of a frame that was split counts
    waiting: int = 0  # in memory, and not answered yet
    spooled: int = 0  # on disk, and not answered yet
    accepted: int = 0  # accepted by ingest: on the bus, or in ingest's spool
    rejected: int = 0  # refused by ingest for good
    dropped: int = 0  # dropped because the queue, the ring or the spool was full, or a file of the spool could not be read
    lost: int = 0  # the sender died, a device failed, or there was no answer before close() ended; ingest may have received some
    aside: int = 0  # accepted, but will not be folded
    invalid: int = 0  # not accepted by frame(), event() or end(): invalid, or after close()


@dataclass(frozen=True)
class Stats:
    """The counters of a client."""

    frames: Counts
    events: Counts
    requests: int  # requests with an answer
    failures: int  # requests without an answer
    bytes_sent: int
    spool_bytes: int
    recovered: int  # records that earlier clients left in the spool and that ingest has accepted
    sender_pid: int  # 0 if the sender is a thread
    damaged: int  # places in the spool that could not be read; the log says where their bytes are
    recovered_rejected: int = 0  # records that earlier clients left in the spool and that ingest has refused
    recovered_dropped: int = 0  # records that earlier clients left in the spool and that could not be read any more
    recovered_aside: int = 0  # recovered records that will not be folded


NOTHING = Stats(Counts(), Counts(), 0, 0, 0, 0, 0, 0, 0)


def read(ring: Ring, invalid: list[int], pid: int, *, ended: bool = False) -> Stats:
    """Read the counters from a ring. If the sender has ended, records that are still waiting count as lost."""
    return Stats(
        frames=_counts(ring, FRAME, invalid[FRAME], ended), events=_counts(ring, EVENT, invalid[EVENT], ended),
        requests=ring.get("requests"), failures=ring.get("failures"), bytes_sent=ring.get("bytes_sent"),
        spool_bytes=ring.get("spool_bytes"), recovered=ring.get("recovered"), sender_pid=pid,
        damaged=ring.get("corrupt"), recovered_rejected=ring.get("recovered_rejected"),
        recovered_dropped=ring.get("recovered_dropped"), recovered_aside=ring.get("recovered_aside"),
    )


def _counts(ring: Ring, kind: int, invalid: int, ended: bool) -> Counts:
    def get(name: str) -> int:
        return ring.get(f"{name}{kind}")

    # handed is read last, so that waiting is never negative.
    # found counts records in the spool that were counted as lost, because their sender died while it wrote them.
    accepted, rejected, lost = get("accepted"), get("rejected"), get("lost") - get("found")
    dropped, spooled = get("dropped") + get("full"), get("in_spool")
    handed = get("handed") + get("split")
    waiting = max(0, handed - accepted - rejected - dropped - lost - spooled)
    return Counts(
        handed=handed, accepted=accepted, rejected=rejected, dropped=dropped, spooled=spooled,
        waiting=0 if ended else waiting, lost=lost + (waiting if ended else 0), aside=get("aside"), invalid=invalid,
    )
