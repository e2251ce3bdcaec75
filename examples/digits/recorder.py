"""Turns what a run tells into records, and writes them to a file."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from fastavro.write import Writer

import contract
from lifecycle import Transition
from training import Frame, Tensor

PRODUCERS = {"enc.0": "rank-0", "enc.1": "rank-0", "enc.2": "rank-1"}
"""Who sends a layer's frames, as if the layers were on two ranks."""


class Clock:
    """Microseconds since the Unix epoch, running stretch times as fast as the real time.

    A run of ten seconds with a stretch of 8 is recorded as one of eighty.
    """

    def __init__(self, stretch: float = 1.0) -> None:
        if not stretch > 0:
            raise ValueError(f"stretch is {stretch}; it must be above 0")
        self.stretch = stretch
        self.started = time.time_ns() // 1000
        self._origin = time.perf_counter_ns()

    def now(self) -> int:
        elapsed = (time.perf_counter_ns() - self._origin) / 1000
        return self.started + int(elapsed * self.stretch)


class Recorder:
    """A sink that gives records their identity and time, and writes them to a recording."""

    def __init__(self, run: str, clock: Clock, recording: Recording) -> None:
        self.run = run
        self.clock = clock
        self.recording = recording
        self.sequences: Counter[str] = Counter()

    def frame(self, frame: Frame) -> None:
        producer = PRODUCERS[frame.layer]
        record = {
            "run_id": self.run,
            "layer_id": frame.layer,
            "timeline": "",
            "producer_id": producer,
            "producer_epoch": self.clock.started,
            "sequence": self.sequences[producer],
            "observed_at": self.clock.now(),
            "step": frame.step,
            "seed_ids": list(range(len(frame.states))),
            "states": bytes(frame.states),
            "metrics": [{"name": name, "values": values.tolist()} for name, values in frame.columns.items()],
            "tensors": [tensor_record(t) for t in frame.tensors],
        }
        self.sequences[producer] += 1
        self.recording.frame(record)

    def transition(self, transition: Transition) -> None:
        record = {
            "run_id": self.run,
            "layer_id": transition.layer,
            "seed_id": transition.seed,
            "sequence": transition.sequence,
            "at": self.clock.now(),
            "step": transition.step,
            "from_state": int(transition.from_state),
            "to_state": int(transition.to_state),
            "reason": transition.reason,
            "evidence": transition.evidence,
        }
        self.recording.event(record)


def tensor_record(tensor: Tensor) -> dict[str, Any]:
    """Return the tensor with its values inline, little-endian and in C order."""
    values = np.ascontiguousarray(tensor.values, dtype="<f4")
    return {
        "name": tensor.name,
        "seed_id": tensor.seed,
        "dtype": "float32",
        "shape": list(values.shape),
        "data": values.tobytes(),
    }


class Recording:
    """An Avro object container file of frames and events, in the order in which they came."""

    def __init__(self, path: Path, notes: dict[str, str]) -> None:
        self._file = path.open("wb")
        self._writer = Writer(self._file, contract.union(), codec="deflate", metadata=notes)

    def frame(self, record: dict[str, Any]) -> None:
        self._writer.write((contract.FRAME, record))

    def event(self, record: dict[str, Any]) -> None:
        self._writer.write((contract.EVENT, record))

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._writer.flush()
        self._file.close()
