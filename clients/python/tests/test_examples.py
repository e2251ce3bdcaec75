"""The examples, each as a process of its own."""

import importlib.util
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from server import Server

from oona_client import State

HERE = Path(__file__).resolve().parents[1]


def run(name, *arguments):
    """Run an example to its end, and return what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(HERE / "src")}
    done = subprocess.run([sys.executable, str(HERE / "examples" / name), *arguments], env=environment, capture_output=True,
                          text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def split(accepted):
    """Return the frames and the events. The last record is the end of the run."""
    assert [r["outcome"] for r in accepted if "outcome" in r] == ["COMPLETED"] and "outcome" in accepted[-1]
    return [r for r in accepted if "metrics" in r], [r for r in accepted if "evidence" in r]


def test_plain_loop():
    with Server() as server:
        said = run("plain_loop.py", server.url, "--run", "plain", "--steps", "60")
        frames, events = split(server.accepted)
    assert [f["step"] for f in frames] == list(range(60))
    assert len(events) > 30
    assert f"{len(frames)} of 60 frames and {len(events) + 1} of {len(events) + 1} events, with the end" in said
    for frame in frames:
        assert frame["run_id"] == "plain" and frame["seed_ids"] == list(range(64))
        assert [m["name"] for m in frame["metrics"]] == ["reconstruction_loss", "gradient_norm", "weight_norm"]
        assert all(np.isfinite(m["values"]).all() for m in frame["metrics"])
    lives = defaultdict(list)
    for event in events:
        lives[event["seed_id"]].append(event)
    for seed, life in lives.items():
        assert [e["sequence"] for e in life] == list(range(len(life)))
        state = State.DORMANT
        for event in life:
            assert event["from_state"] == state
            state = event["to_state"]
            # The frame of the step has the state before the event, the next one the state after it.
            assert frames[event["step"]]["states"][seed] == event["from_state"]
            assert event["step"] == 59 or frames[event["step"] + 1]["states"][seed] == state


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_torch_loop():
    with Server() as server:
        said = run("torch_loop.py", server.url, "--steps", "21")
        frames, events = split(server.accepted)
    assert [f["step"] for f in frames] == [0, 5, 10, 15, 20] and not events
    assert "accepted=5" in said
    for frame in frames:
        found = {m["name"]: np.array(m["values"]) for m in frame["metrics"]}
        assert frame["seed_ids"] == list(range(8)) and set(frame["states"]) == {State.TRAINING}
        for name in ("reconstruction_loss", "gradient_norm", "weight_norm", "activation_variance"):
            assert (found[name] > 0).all(), name
