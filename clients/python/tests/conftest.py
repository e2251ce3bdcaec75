import sys
import types
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from server import zstd


@pytest.fixture
def zstd_of_python(monkeypatch):
    """Let a client whose sender is a thread find zstd, as Python has it from 3.14 on."""
    if zstd is None:
        pytest.skip("neither compression.zstd nor backports.zstd is installed")
    if sys.version_info < (3, 14):
        package = types.ModuleType("compression")
        package.zstd = zstd
        monkeypatch.setitem(sys.modules, "compression", package)
    return zstd
