"""Recordings."""

from collections import Counter
from pathlib import Path

import fastavro
import numpy as np
import pytest

import contract
import describe
import recorder
import train
from lifecycle import State
from training import Frame, Tensor


def frame(layer: str = "enc.0", tensors: list[Tensor] | None = None) -> Frame:
    columns = {"blend": np.array([np.nan, 0.5], dtype=np.float32)}
    return Frame(layer, 30, [State.DORMANT, State.GRAFTING], columns, tensors or [])


def test_events_are_of_the_newest_version(tmp_path: Path):
    """A recording names the newest schema, whose new fields have their defaults."""
    newest = max(contract.SCHEMAS.glob("seed_event.v*.avsc"), key=lambda p: int(p.name.split(".v")[1].split(".")[0]))
    path = tmp_path / "events.avro"
    event = {"run_id": "r", "layer_id": "l", "seed_id": 1, "sequence": 2, "at": 1_700_000_000_000_000, "from_state": 0, "to_state": 1}
    with recorder.Recording(path, {}) as recording:
        recording.event(event)
    with path.open("rb") as file:
        (read,) = fastavro.reader(file)
    assert set(read) == {field["name"] for field in contract.load(newest.name)["fields"]}
    assert (read["seed_id"], read["command_id"], read["mark"]) == (1, "", "NORMAL")


def test_a_recording_reads_as_it_was_written(tmp_path: Path):
    weights = np.arange(6, dtype=np.float32).reshape(2, 3)
    with recorder.Recording(tmp_path / "r.avro", {"oona.seed": "1"}) as file:
        told = recorder.Recorder("run", recorder.Clock(), file)
        for layer in ("enc.0", "enc.2", "enc.1"):
            told.frame(frame(layer, [Tensor("down", 1, weights.T)]))
    with (tmp_path / "r.avro").open("rb") as opened:
        reader = fastavro.reader(opened)
        assert reader.metadata["avro.codec"] == "deflate"
        records = list(reader)
    assert [(r["layer_id"], r["producer_id"], r["sequence"]) for r in records] == [
        ("enc.0", "rank-0", 0), ("enc.2", "rank-1", 0), ("enc.1", "rank-0", 1)]
    first = records[0]
    assert (first["run_id"], first["timeline"], first["step"], first["states"]) == ("run", "", 30, b"\x00\x03")
    assert np.isnan(first["metrics"][0]["values"][0]) and first["metrics"][0]["values"][1] == 0.5
    tensor = first["tensors"][0]
    assert (tensor["seed_id"], tensor["dtype"], tensor["shape"]) == (1, "float32", [3, 2])
    assert tensor["data"] == weights.T.tobytes()  # in C order, though it was a view


def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        train.main(["--steps", "1", "--out", str(tmp_path / "missing" / "r.avro")])


def test_the_clock_is_stretched(monkeypatch: pytest.MonkeyPatch):
    elapsed = iter([0, 2_000_000_000, 3_000_000_000])
    monkeypatch.setattr(recorder.time, "perf_counter_ns", lambda: next(elapsed))
    clock = recorder.Clock(6)
    assert (clock.now() - clock.started, clock.now() - clock.started) == (12_000_000, 18_000_000)
    with pytest.raises(ValueError, match="above 0"):
        recorder.Clock(0)


def test_the_header_is_the_schemas_fingerprint():
    encoder = contract.SingleObject()
    assert (len(encoder.header), encoder.header[:2]) == (10, b"\xc3\x01")
    # The specification's own algorithm, bit by bit, over the canonical form.
    canonical = fastavro.schema.to_parsing_canonical_form(contract.load("seed_metrics.v1.avsc")).encode()
    empty = 0xC15D213AA4D7A795
    fingerprint = empty
    for byte in canonical:
        fingerprint ^= byte
        for _ in range(8):
            fingerprint = fingerprint >> 1 ^ (empty if fingerprint & 1 else 0)
    assert encoder.header[2:] == fingerprint.to_bytes(8, "little")


def test_a_run_is_recorded(tmp_path: Path):
    path = tmp_path / "r.avro"
    assert train.main(["--steps", "100", "--out", str(path), "--run", "r"]) == 0
    content = describe.read(path)
    assert content.frames == {("rank-0", "enc.0"): 11, ("rank-0", "enc.1"): 11, ("rank-1", "enc.2"): 11}
    assert content.readings == 33 * 96
    assert content.samples + content.unmeasured == 33 * 96 * 8


@pytest.mark.parametrize(("arguments", "complaint"), [
    (["--steps", "0"], "give at least 1"),
    (["--stretch", "0"], "give a number above 0"),
    (["--spool", "x"], "give both"),
    (["--stretch", "2", "--post", "http://127.0.0.1:1"], "frames from the future"),
    (["--backend", "abacus"], "invalid choice"),
])
def test_mistakes_are_named(arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        train.main(arguments)
    assert complaint in capsys.readouterr().err


def test_the_recording_in_the_tree_is_what_its_note_says():
    testdata = contract.SCHEMAS.parents[1] / "testdata"
    content = describe.read(testdata / "digits.avro")
    assert describe.table(content) in (testdata / "digits.md").read_text()
    assert content.frames.total() > 1000 and len(content.frames) == 3
    assert content.largest_frame < 900_000 and content.large_tensors > 0
    assert 60 <= content.seconds <= 90
    assert Counter(to for _, to in content.events)[State.FOSSILIZED] > 0
