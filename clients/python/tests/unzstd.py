"""Unpacks zstd with what is installed."""

from __future__ import annotations

from typing import Any


def _unzstd() -> Any:
    """Return a function of bytes, or None if nothing is installed."""
    try:
        from compression.zstd import decompress  # from Python 3.14 on

        return decompress
    except ImportError:
        pass
    try:
        from backports.zstd import decompress  # the same for older ones

        return decompress
    except ImportError:
        pass
    try:
        import zstandard
    except ImportError:
        return None
    return lambda body: zstandard.ZstdDecompressor().decompressobj().decompress(body)


unzstd = _unzstd()
