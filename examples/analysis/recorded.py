"""Plays the recorded run of testdata/digits.avro through `oona demo`, and replays it into two directories."""

from __future__ import annotations

import argparse
import re
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

CLOSED = re.compile(r"^window closed  \S+  \S+  (\S+)")
LAYERS = 3


def build(directory: Path) -> Path:
    """Build the command, and return its path."""
    oona = directory / "oona"
    subprocess.run(["go", "build", "-o", oona, "./cmd/oona"], cwd=ROOT, check=True)
    return oona


@contextmanager
def demo(oona: Path, seconds: float = 60) -> Iterator[str]:
    """Run the demo, and give the address of its broker when the whole run and rollups of each layer are on it."""
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen([oona, "demo", "--speed", "max"], cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True)
        watchdog = threading.Timer(seconds, process.kill)
        watchdog.start()
        try:
            broker, closed = None, set()
            for line in process.stdout:
                if line.strip().startswith("broker "):
                    broker = line.split()[1]
                if match := CLOSED.match(line):
                    closed.add(match[1])
                if len(closed) == LAYERS:
                    break
            else:
                errors.seek(0)
                raise RuntimeError(f"oona demo did not play the run within {seconds:g} s: {errors.read()}")
            watchdog.cancel()
            # Later lines must not fill the pipe.
            rest = threading.Thread(target=process.stdout.read)
            rest.start()
            yield broker
            process.send_signal(signal.SIGINT)
            rest.join()
        finally:
            watchdog.cancel()
            process.kill()
            process.wait()


def replay(oona: Path, broker: str, out: Path, *topics: str) -> None:
    """Write OUT/archive and OUT/parquet."""
    for form in ("archive", "parquet"):
        subprocess.run([oona, "replay", *topics, "--brokers", broker, f"--{form}", out / form], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", metavar="OUT", type=Path, help="directory for archive/ and parquet/")
    out = parser.parse_args().out.resolve()
    with tempfile.TemporaryDirectory() as temporary:
        oona = build(Path(temporary))
        with demo(oona) as broker:
            replay(oona, broker, out)


if __name__ == "__main__":
    main()
