"""Compression with zstd, which Python has from 3.14 on. Before, backports.zstd takes its place."""

import json
from pathlib import Path

import numpy as np
import pytest
from server import Server, ok, problem, zstd

from oona_client import Client, State, lane

IDS, STEPS = np.arange(1000), 40
BODIES = Path(__file__).resolve().parents[3] / "schemas" / "avro" / "conformance" / "bodies.json"

pytestmark = pytest.mark.usefixtures("zstd_of_python")


def send(url):
    """Send frames that can be compressed, and return what became of them."""
    with Client(url, "zstd", sender="thread", strict=True) as oona:
        for step in range(STEPS):
            assert oona.frame("enc.0", step, IDS, State.TRAINING, {"loss": np.full(1000, step, np.float32)})
        return oona.close()


def test_requests_are_in_zstd():
    with Server() as server:
        stats = send(server.url)
    assert stats.frames.accepted == STEPS
    assert {r.headers.get("content-encoding") for r in server.requests} == {"zstd"}
    assert [r["step"] for r in server.accepted] == list(range(STEPS))
    assert all(r["metrics"][0]["values"] == [r["step"]] * 1000 for r in server.accepted)
    assert stats.bytes_sent < 4000 * STEPS / 4


def test_an_ingest_that_does_not_know_zstd_gets_them_uncompressed():
    def script(n, request):
        return problem(415, "media-type") if request.headers.get("content-encoding") else ok(n, request)

    with Server(script) as server:
        stats = send(server.url)
    assert (stats.frames.accepted, stats.frames.rejected) == (STEPS, 0)
    assert [r["step"] for r in server.accepted] == list(range(STEPS))
    assert server.requests[0].headers["content-encoding"] == "zstd"


def test_a_body_that_zstd_does_not_make_smaller_stays_as_it_is():
    body = np.random.default_rng(1).bytes(10_000)
    compress = lane.Compressor(True)
    assert compress(body) == (body, "")
    packed, coding = lane.Compressor(True)(bytes(10_000))
    assert coding == "zstd" and zstd.decompress(packed) == bytes(10_000)


def test_the_bodies_of_the_conformance_files_can_be_unpacked():
    golden = {c["name"]: c["avro"] for c in json.loads(BODIES.with_name("frames.json").read_text("utf-8"))["frames"]}
    packed = [b for b in json.loads(BODIES.read_text("utf-8"))["bodies"] if b["as"] == "zstd"]
    for body in packed:
        if any(set(part) != {"frame"} for part in body["made_of"]):
            continue
        content = "".join(golden[part["frame"]] for part in body["made_of"])
        assert zstd.decompress(bytes.fromhex(body["bytes"])).hex() == content, body["name"]
    assert packed
