"""The scripts, on a replay of the recorded run, and compared with the recording itself."""

import csv
import json
import math
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import fastavro
import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

import events
import life
import recorded

HERE = Path(__file__).resolve().parent
RECORDING = recorded.ROOT / "testdata" / "digits.avro"
FRAME = "kasmina.telemetry.SeedMetrics"
SCRIPTS = {"pandas": "parquet", "duckdb": "parquet", "fastavro": "archive"}


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an archive, Parquet files and typed records of the recorded run. In blueprints/, there are events."""
    out = tmp_path_factory.mktemp("replay")
    oona = recorded.build(out)
    with recorded.demo(oona) as broker:
        recorded.replay(oona, broker, out)
        subprocess.run([oona, "replay", "kasmina.telemetry.seed.metrics", "--brokers", broker, "--avro", out / "typed"], check=True)
        events.publish(broker, first(out), blueprint)
        recorded.replay(oona, broker, out / "blueprints", "kasmina.telemetry.seed.metrics", events.TOPIC)
    return out


def first(replayed: Path) -> str:
    """Return the first run. The demo may have begun to play the recording again."""
    return min(path.name.removeprefix("run=") for path in (replayed / "parquet" / "seed_metrics").iterdir())


def blueprint(event: dict) -> str:
    return "" if event["layer_id"] == "enc.2" else "wide" if event["seed_id"] % 3 else "narrow"


@pytest.fixture(scope="module")
def run(replayed: Path) -> str:
    return first(replayed)


@pytest.fixture(scope="module")
def tables(replayed: Path, run: str) -> dict[str, dict[str, list[tuple]]]:
    """The tables that each script has written, by script and name."""
    return {name: made(name, replayed / form, replayed / name, run) for name, form in SCRIPTS.items()}


def made(script: str, directory: Path, out: Path, run: str) -> dict[str, list[tuple]]:
    subprocess.run([sys.executable, HERE / f"with_{script}.py", directory, "-o", out, "--run", run], check=True)
    for name in ("states", "gradients", "survival"):
        assert (out / f"{name}.svg").read_text().startswith("<?xml")
    return {
        "states": rows(out / "states.csv", str, int, str, int),
        "gradients": rows(out / "gradients.csv", str, int, int, float, float, float),
        "survival": rows(out / "survival.csv", str, int, int, int, float),
    }


def rows(path: Path, *types: type) -> list[tuple]:
    with path.open() as file:
        table = csv.reader(file)
        next(table)
        return [tuple(kind(value) for kind, value in zip(types, row, strict=True)) for row in table]


def frames() -> list[dict]:
    with RECORDING.open("rb") as file:
        return [record for name, record in fastavro.reader(file, return_record_name=True) if name == FRAME]


@pytest.mark.parametrize("script", SCRIPTS)
def test_states(script: str, tables: dict) -> None:
    """Each step of each layer has as many seeds in each state as the recording."""
    want = Counter()
    for frame in frames():
        for state in frame["states"]:
            want[frame["layer_id"], frame["step"], life.STATES[state]] += 1
    assert {row[:3]: row[3] for row in tables[script]["states"]} == want


@pytest.mark.parametrize("script", SCRIPTS)
def test_gradients(script: str, tables: dict) -> None:
    """The quantiles are those that NumPy makes of the recording's values."""
    norms = defaultdict(list)
    for frame in frames():
        (values,) = (metric["values"] for metric in frame["metrics"] if metric["name"] == "gradient_norm")
        norms[frame["layer_id"], frame["step"] // life.BUCKET * life.BUCKET] += [v for v in values if not math.isnan(v)]
    want = {key: [len(values), *np.quantile(values, [0.1, 0.5, 0.9])] for key, values in norms.items() if values}
    got = {row[:2]: list(row[2:]) for row in tables[script]["gradients"]}
    assert got.keys() == want.keys()
    for key, values in want.items():
        assert got[key] == pytest.approx(values, rel=1e-12), key


@pytest.mark.parametrize("script", SCRIPTS)
def test_survival(script: str, tables: dict) -> None:
    """As many seeds have died as the events of the recording say, which no topic has."""
    deaths, born = Counter(), Counter()
    for event in events.recorded():
        deaths[event["layer_id"]] += life.STATES[event["to_state"]] in ("CULLED", "CANCELLED", "ROLLED_BACK")
        born[event["layer_id"]] += life.STATES[event["to_state"]] == "GERMINATED"
    died = Counter()
    for layer, _, at_risk, dead, alive in tables[script]["survival"]:
        died[layer] += dead
        assert dead <= at_risk <= born[layer] and 0 <= alive < 1
    assert died == deaths


def test_blueprints(replayed: Path, run: str) -> None:
    """If events name blueprints, the survival is that of the blueprints. The three scripts agree."""
    deaths = Counter()
    for event in events.recorded():
        deaths[blueprint(event) or "no blueprint"] += life.STATES[event["to_state"]] in ("CULLED", "CANCELLED", "ROLLED_BACK")
    found = {name: made(name, replayed / "blueprints" / form, replayed / "blueprints" / name, run)["survival"] for name, form in SCRIPTS.items()}
    for survival in found.values():
        died = Counter()
        for group, _, _, dead, _ in survival:
            died[group] += dead
        assert died == deaths
        for ours, theirs in zip(survival, found["pandas"], strict=True):
            assert ours[:4] == theirs[:4] and ours[4] == pytest.approx(theirs[4], rel=1e-12)


@pytest.mark.parametrize("script", ["duckdb", "fastavro"])
def test_agreement(script: str, tables: dict) -> None:
    """The three scripts have the same rows in the same order. Their floats differ by rounding only."""
    for name, want in tables["pandas"].items():
        got = tables[script][name]
        assert len(got) == len(want)
        for ours, theirs in zip(got, want):
            assert list(ours) == [pytest.approx(v, rel=1e-12) if isinstance(v, float) else v for v in theirs]


def test_page(replayed: Path, tmp_path: Path) -> None:
    """The Python and SQL of docs/replay.md runs, and a join gives the rollups' own means."""
    (tmp_path / "digits").symlink_to(replayed / "parquet")
    (tmp_path / "tables").symlink_to(replayed / "parquet")
    (tmp_path / "typed").symlink_to(replayed / "typed")
    # The demo's tensor store is closed to others, so this index stands for that of --resolve.
    (tmp_path / "DIR" / "tensors").mkdir(parents=True)
    index = {"run_id": "r", "layer_id": "enc.0", "seed_id": 1, "step": 10, "name": "response", "file": "x.npy"}
    (tmp_path / "DIR" / "tensors" / "0.jsonl").write_text(json.dumps(index) + "\n")
    page = (recorded.ROOT / "docs" / "replay.md").read_text()
    blocks = re.findall(r"^```(python|sql)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert [kind for kind, _ in blocks].count("sql") >= 2
    for kind, text in blocks:
        if kind == "sql":
            text = f"import duckdb\nrows = duckdb.sql({text!r}).fetchall()\nassert rows\n"
            if "again" in text:
                text += "assert len(rows) >= 3 and all(abs(r[3] - r[4]) < 1e-12 and r[5] == r[6] for r in rows), rows\n"
        done = subprocess.run([sys.executable, "-c", text], cwd=tmp_path, check=True, capture_output=True)
        assert kind == "sql" or done.stdout, text


def test_pictures() -> None:
    """The page has the pictures, and they are small."""
    page = (recorded.ROOT / "docs" / "replay.md").read_text()
    for name in ("states", "gradients", "survival"):
        picture = recorded.ROOT / "docs" / "images" / f"run-{name}.svg"
        assert picture.stat().st_size < 100_000
        assert f"images/{picture.name}" in page


def test_expected() -> None:
    """A level is learnt; one that rises tenfold is outside, and a slow change is not."""
    steady = life.expected([1.0] * 20)
    assert all(math.isnan(low) for low, _ in steady[:8])
    assert all(low == pytest.approx(0.5) and high == pytest.approx(2) for low, high in steady[8:])
    low, high = life.expected([1.0] * 10 + [10.0])[-1]
    assert low < 1 < high < 10
    slow = [1.02**i for i in range(100)]
    assert all(low < median < high for median, (low, high) in list(zip(slow, life.expected(slow)))[8:])
    assert life.expected([]) == []
    assert len(life.expected([0.0, math.nan])) == 2


def test_several_runs() -> None:
    assert life.chosen(["a"], None) == "a"
    assert life.chosen(["b", "a"], None) == "a"
    assert life.chosen(["a", "b"], "b") == "b"
    for runs, wanted in (([], None), (["a"], "c")):
        with pytest.raises(SystemExit):
            life.chosen(runs, wanted)


@pytest.mark.parametrize("script", SCRIPTS)
def test_wrong_directory(script: str, tmp_path: Path) -> None:
    """A directory of another form, or of no replay, is refused with a sentence."""
    other = {"parquet": "archive", "archive": "parquet"}[SCRIPTS[script]]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "_oona.json").write_text(json.dumps({"form": other}))
    for directory, says in (("other", f"--{other}"), ("absent", "_oona.json")):
        done = subprocess.run([sys.executable, HERE / f"with_{script}.py", tmp_path / directory, "-o", tmp_path], capture_output=True, text=True)
        assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("script", [script for script, form in SCRIPTS.items() if form == "parquet"])
def test_other_runs(script: str, tmp_path: Path) -> None:
    """A run needs no gradient_norm, and its name may be a number. A directory without frames is refused with a sentence."""
    (tmp_path / "_oona.json").write_text(json.dumps({"form": "parquet"}))
    command = [sys.executable, HERE / f"with_{script}.py", tmp_path, "-o", tmp_path / "out", "--run", "042"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "no frames" in done.stderr and "Traceback" not in done.stderr

    folder = tmp_path / "seed_metrics" / "run=042" / "layer=07"
    folder.mkdir(parents=True)
    integers = {"step": [0, 10], "sequence": [0, 1], "producer": [0, 0], "seed": [1, 1], "state": [2, 8]}
    parquet.write_table(pyarrow.table(integers), folder / "part-0-0-1.parquet")
    parquet.write_table(pyarrow.table({"state": range(len(life.STATES)), "state_name": life.STATES}), tmp_path / "states.parquet")
    got = made(script, tmp_path, tmp_path / "out", "042")
    assert got["states"] == [("07", 0, "TRAINING", 1), ("07", 10, "CULLED", 1)]
    assert got["gradients"] == [] and got["survival"] == [("07", 10, 1, 1, 0.0)]
