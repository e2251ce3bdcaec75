"""Compression with zstd: of Python from 3.14 on, or of a package."""

import gzip
import importlib
import json
import sys
import types
import zlib
from pathlib import Path

import numpy as np
import pytest
import server as server_module
from server import Server, ok, problem
from unzstd import unzstd

from oona_client import Client, State, coding

IDS, STEPS = np.arange(1000), 40
BODIES = Path(__file__).resolve().parents[3] / "schemas" / "avro" / "conformance" / "bodies.json"
MODULES = ("compression.zstd", "backports.zstd", "zstandard")

real = pytest.mark.skipif(unzstd is None, reason="no package for zstd is installed")


def send(url, sender):
    """Send frames that can be compressed, and return what became of them."""
    with Client(url, "zstd", sender=sender, strict=True, close_timeout=300) as oona:
        for step in range(STEPS):
            assert oona.frame("enc.0", step, IDS, State.TRAINING, {"loss": np.full(1000, step, np.float32)})
        return oona.close()


@real
def test_requests_are_in_zstd(sender):
    with Server() as server:
        stats = send(server.url, sender)
    assert stats.frames.accepted == STEPS
    assert {r.coding for r in server.requests} == {"zstd"}
    assert [r["step"] for r in server.accepted] == list(range(STEPS))
    assert all(r["metrics"][0]["values"] == [r["step"]] * 1000 for r in server.accepted)
    assert stats.bytes_sent < 4000 * STEPS / 4


@real
def test_an_ingest_that_does_not_know_zstd_gets_them_uncompressed(sender):
    def script(n, request):
        return problem(415, "media-type") if request.coding else ok(n, request)

    with Server(script) as server:
        stats = send(server.url, sender)
    assert (stats.frames.accepted, stats.frames.rejected) == (STEPS, 0)
    assert [r["step"] for r in server.accepted] == list(range(STEPS))
    assert server.requests[0].coding == "zstd"


@real
def test_a_body_that_zstd_does_not_make_smaller_stays_as_it_is():
    body = np.random.default_rng(1).bytes(10_000)
    compress = coding.Compressor(True)
    assert compress(body) == (body, "")
    packed, name = coding.Compressor(True)(bytes(10_000))
    assert name == "zstd" and unzstd(packed) == bytes(10_000)


@real
def test_the_bodies_of_the_conformance_files_can_be_unpacked():
    golden = {c["name"]: c["avro"] for c in json.loads(BODIES.with_name("frames.json").read_text("utf-8"))["frames"]}
    packed = [b for b in json.loads(BODIES.read_text("utf-8"))["bodies"] if b["as"] == "zstd"]
    for body in packed:
        if any(set(part) != {"frame"} for part in body["made_of"]):
            continue
        content = "".join(golden[part["frame"]] for part in body["made_of"])
        assert unzstd(bytes.fromhex(body["bytes"])).hex() == content, body["name"]
    assert packed


# The choice, with modules that stand for the real ones.


def functions(mark):
    module = types.ModuleType("zstd")
    module.compress = lambda body, level: b"\x28\xb5\x2f\xfd" + mark + bytes([level]) + body
    return module


def objects(mark):
    class ZstdCompressor:
        def __init__(self, level):
            self.level = level

        def compress(self, body):
            return b"\x28\xb5\x2f\xfd" + mark + bytes([self.level]) + body

    module = types.ModuleType("zstandard")
    module.ZstdCompressor = ZstdCompressor
    return module


MAKERS = dict(zip(MODULES, (functions, functions, objects)))


@pytest.fixture
def installed(monkeypatch):
    """Return a function that installs modules, and no others for zstd."""
    def install(**modules):
        for name in MODULES:
            package = name.partition(".")[0]
            if package != name:
                monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
            monkeypatch.setitem(sys.modules, name, modules.get(name))  # None: it cannot be imported
    return install


@pytest.mark.parametrize("there", [MODULES[i:] for i in range(3)], ids=lambda there: there[0])
def test_the_best_module_that_is_there_is_taken(installed, there):
    installed(**{name: MAKERS[name](name.encode()) for name in there})
    pack, name = coding.coder()
    assert name == "zstd"
    assert pack(b"body") == b"\x28\xb5\x2f\xfd" + there[0].encode() + b"\x01body"


def test_without_any_it_is_gzip(installed):
    installed()
    pack, name = coding.coder()
    assert name == "gzip" and gzip.decompress(pack(b"body" * 1000)) == b"body" * 1000
    assert coding.directory() == ""


@pytest.mark.parametrize("module", [
    types.ModuleType("zstandard"),  # another one of that name
    types.SimpleNamespace(ZstdCompressor=lambda level: types.SimpleNamespace(compress=lambda body: b"something else")),
    types.SimpleNamespace(ZstdCompressor=lambda level: 1 / 0),
], ids=["empty", "other", "broken"])
def test_a_module_that_cannot_be_used_is_passed_over(installed, module):
    installed(zstandard=module)
    assert coding.coder()[1] == "gzip"


def test_nothing_is_looked_for_if_nothing_is_compressed(monkeypatch):
    monkeypatch.setattr(coding, "coder", lambda: pytest.fail("it was looked for"))
    assert coding.Compressor(False)(bytes(10_000)) == (bytes(10_000), "")


PACKAGES = {
    "backports/zstd/__init__.py": "import zlib\ndef compress(body, level):\n    return b'\\x28\\xb5\\x2f\\xfd' + zlib.compress(body, level)\n",
    "zstandard/__init__.py": "import zlib\nclass ZstdCompressor:\n    def __init__(self, level):\n        self.level = level\n"
                             "    def compress(self, body):\n        return b'\\x28\\xb5\\x2f\\xfd' + zlib.compress(body, self.level)\n",
}


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="Python has zstd, which is taken")
@pytest.mark.parametrize("path", PACKAGES)
def test_a_sender_that_is_a_process_finds_the_package(tmp_path, monkeypatch, path):
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(PACKAGES[path])
    for name in [*MODULES, "backports"]:
        monkeypatch.delitem(sys.modules, name, raising=False)
    others = [p for p in sys.path if not any((Path(p) / package).exists() for package in ("backports", "zstandard"))]
    monkeypatch.setattr(sys, "path", [str(tmp_path), *others])
    importlib.invalidate_caches()
    monkeypatch.setattr(server_module, "unzstd", lambda body: zlib.decompress(body[4:]))
    with Server() as server:
        stats = send(server.url, "process")
    assert stats.frames.accepted == STEPS and stats.sender_pid
    assert {r.coding for r in server.requests} == {"zstd"}
