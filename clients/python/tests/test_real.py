"""The client against a real ingest, in `oona demo` with its embedded broker."""

import json
import os
import re
import subprocess
import time

import numpy as np
import pytest
from unzstd import unzstd

from oona_client import Client, Outcome, State, coding

OONA = os.environ.get("OONA_BINARY", "")

pytestmark = pytest.mark.skipif(not OONA, reason="OONA_BINARY is not set; `make test-client` builds and sets it")


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """An installation in one process: the address of its ingest, and of its broker."""
    out = tmp_path_factory.mktemp("demo") / "out"
    ports = [f"--{name}-port=0" for name in ("ingest", "admin", "tensors", "broker")]
    with out.open("wb") as file:
        process = subprocess.Popen(
            [OONA, "demo", "--synthetic=layers=1,seeds=1,rate=1", "--for=1h", *ports], stdout=file, stderr=subprocess.STDOUT)
    try:
        for _ in range(3000):
            text = out.read_text()
            found = re.search(r"ingest +(http://\S+)/v1/frames.*broker +(\S+)", text, re.DOTALL)
            if found:
                break
            assert process.poll() is None, text
            time.sleep(0.1)
        else:
            pytest.fail(f"the demo does not say where it listens: {text}")
        yield found[1], found[2]
    finally:
        process.terminate()
        process.wait(300)


def watch(broker, topic, run, count):
    """Return the records of a run."""
    done = subprocess.run(
        [OONA, "watch", topic, "--brokers", broker, "--from", "beginning", "--run", run, "--count", str(count)],
        capture_output=True, text=True, timeout=300, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("sender", ["process", "thread"])
def test_frames_are_on_the_bus(demo, sender):
    url, broker = demo
    run = f"real-{sender}"
    ids, values = np.arange(1000, dtype=np.int32), np.linspace(0, 1, 1000, dtype=np.float32)
    values[7] = np.nan
    with Client(url, run, sender=sender, strict=True, close_timeout=300) as oona:
        for step in range(50):
            tensors = {("w", 3): np.ones((2, 2), np.float32)} if step == 49 else None
            assert oona.frame("enc.0", step, ids, State.TRAINING, {"gradient_norm": values, "loss": values * step}, tensors)
        counts = oona.close().frames
    assert (counts.handed, counts.accepted, counts.aside) == (50, 50, 0)
    records = watch(broker, "kasmina.telemetry.seed.metrics", run, 50)
    frames = [record.get("frame", record) for record in records]
    assert [f["step"] for f in frames] == list(range(50))
    last = frames[-1]
    assert last["seed_ids"] == ids.tolist() and last["states"][0] == "TRAINING"
    assert last["metrics"][0]["values"][7] is None
    assert np.allclose(last["metrics"][1]["values"][8:], values[8:] * 49)
    assert last["tensors"][0]["name"] == "w" and last["tensors"][0]["shape"] == [2, 2]


@pytest.mark.skipif(unzstd is None, reason="no package for zstd is installed")
def test_requests_in_zstd_are_on_the_bus(demo):
    url, broker = demo
    assert coding.coder()[1] == "zstd"
    with Client(url, "real-zstd", strict=True, linger=1.0) as oona:
        for step in range(50):
            oona.frame("enc.0", step, np.arange(1000), State.TRAINING, {"loss": np.full(1000, step, np.float32)})
        stats = oona.close()
    assert (stats.frames.accepted, stats.frames.rejected) == (50, 0)
    assert 0 < stats.bytes_sent < 50 * 1000  # it was compressed
    records = watch(broker, "kasmina.telemetry.seed.metrics", "real-zstd", 50)
    assert [record.get("frame", record)["metrics"][0]["values"][999] for record in records] == list(range(50))


def test_events_are_a_life_without_gaps(demo):
    url, broker = demo
    path = [State.DORMANT, State.GERMINATED, State.TRAINING, State.GRAFTING, State.STABILIZATION, State.EVALUATING,
            State.FINE_TUNING, State.FOSSILIZED]
    with Client(url, "real-events", strict=True, close_timeout=300) as oona:
        for seed in (3, 4):
            for step, (before, after) in enumerate(zip(path, path[1:])):
                assert oona.event("enc.0", seed, before, after, step=step, reason="it is time", evidence={"loss": 1 / (step + 1)})
        counts = oona.close().events
    assert (counts.handed, counts.accepted) == (14, 14)
    done = subprocess.run([OONA, "audit", "--run", "real-events", "--json", "--brokers", broker], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    *lives, sums = map(json.loads, done.stdout.splitlines())
    assert [life["seed_id"] for life in lives] == [3, 4]
    assert all([e["to_state"] for e in life["events"]] == [state.name for state in path[1:]] for life in lives)
    assert (sums["events"], sums["faults"]) == (14, {})


def test_the_end_of_a_run_is_on_the_bus(demo):
    url, broker = demo
    with Client(url, "real-end", strict=True, close_timeout=300) as oona:
        oona.frame("enc.0", 41, [1], State.TRAINING, {"loss": [0.5]})
        assert oona.end(Outcome.STOPPED, "a deadline")
        counts = oona.close().events
    assert (counts.handed, counts.accepted) == (1, 1)
    [record] = watch(broker, "kasmina.events.run.ended", "real-end", 1)
    end = record.get("run_end", record)
    assert (end["run_id"], end["outcome"], end["reason"], end["step"]) == ("real-end", "STOPPED", "a deadline", 41)
