"""The content coding of bodies: zstd if there is one, otherwise gzip."""

from __future__ import annotations

import gzip
import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

INCOMPRESSIBLE = 0.9  # compression must make a body smaller than this share
SKIP_COMPRESSION = 64  # requests that are not compressed after one that was not smaller
_MAGIC = b"\x28\xb5\x2f\xfd"  # with which a frame of zstd begins

Pack = Callable[[bytes], bytes]


def _functions(module: Any) -> Pack:
    return lambda body: bytes(module.compress(body, level=1))


def _objects(module: Any) -> Pack:
    compressor = module.ZstdCompressor(level=1)
    return lambda body: bytes(compressor.compress(body))


_ZSTD: dict[str, Callable[[Any], Pack]] = {
    "compression.zstd": _functions,  # of Python, from 3.14 on
    "backports.zstd": _functions,  # the same for older ones
    "zstandard": _objects,
}


def coder() -> tuple[Pack, str]:
    """Return how to compress, and the name of the coding: zstd, which is faster, or gzip if no module for zstd can be used."""
    for name, pack_with in _ZSTD.items():
        try:
            pack = pack_with(importlib.import_module(name))
            if pack(b"").startswith(_MAGIC):
                return pack, "zstd"
        except Exception:  # it is not there, is broken, or is another module of that name
            pass
    return lambda body: gzip.compress(body, compresslevel=1, mtime=0), "gzip"


def directory() -> str:
    """Return the directory with an installed package for zstd, for a sender that does not look for packages."""
    for name in _ZSTD:
        if name.startswith("compression."):
            continue  # it needs no directory
        try:
            found = importlib.util.find_spec(name)
        except (ImportError, ValueError):  # there is nothing of the package's name, or nothing that can be found
            continue
        if found is not None and found.origin is not None:
            return str(Path(found.origin).parents[name.count(".") + 1])
    return ""


class Compressor:
    """Compresses bodies, if that makes them smaller."""

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled
        self._pack, self._name = coder() if enabled else (bytes, "")
        self._skip = 0

    def __call__(self, body: bytes) -> tuple[bytes, str]:
        if not self.enabled or len(body) < 512:
            return body, ""
        if self._skip:
            self._skip -= 1
            return body, ""
        packed = self._pack(body)
        if len(packed) > INCOMPRESSIBLE * len(body):
            self._skip = SKIP_COMPRESSION
            return body, ""
        return packed, self._name
