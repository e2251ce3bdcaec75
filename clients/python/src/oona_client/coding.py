"""The content coding of bodies: zstd if Python or a package has it, otherwise gzip."""

from __future__ import annotations

import gzip
import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

INCOMPRESSIBLE = 0.9  # a body is sent compressed if it is at most this part of its size
SKIP_COMPRESSION = 64  # how many requests are not compressed after one that did not get smaller
_MAGIC = b"\x28\xb5\x2f\xfd"  # the beginning of a zstd frame

Pack = Callable[[bytes], bytes]


def _functions(module: Any) -> Pack:
    return lambda body: bytes(module.compress(body, level=1))


def _objects(module: Any) -> Pack:
    compressor = module.ZstdCompressor(level=1)
    return lambda body: bytes(compressor.compress(body))


_ZSTD: dict[str, Callable[[Any], Pack]] = {
    "compression.zstd": _functions,  # in Python from 3.14 on
    "backports.zstd": _functions,  # the same for older versions
    "zstandard": _objects,
}


def coder() -> tuple[Pack, str]:
    """Return a function that compresses, and the name of its coding: zstd, which is faster, or gzip if no module for zstd can be used."""
    for name, pack_with in _ZSTD.items():
        try:
            pack = pack_with(importlib.import_module(name))
            if pack(b"").startswith(_MAGIC):
                return pack, "zstd"
        except Exception:  # the module is missing or broken, or is another one of that name
            pass
    return lambda body: gzip.compress(body, compresslevel=1, mtime=0), "gzip"


def directory() -> str:
    """Return the directory that has an installed package for zstd, because the sender does not search for packages."""
    for name in _ZSTD:
        if name.startswith("compression."):
            continue  # a module of Python needs no directory
        try:
            found = importlib.util.find_spec(name)
        except (ImportError, ValueError):  # there is no such package, or a module of that name without a specification
            continue
        if found is not None and found.origin is not None:
            return str(Path(found.origin).parents[name.count(".") + 1])
    return ""


class Compressor:
    """Compresses bodies if that makes them smaller."""

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
