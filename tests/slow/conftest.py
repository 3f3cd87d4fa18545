"""The published networks and their data, for the tests on real ones."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("AUTOCOMPRESS_DATA", ROOT / ".." / "shared" / "data"))


@pytest.fixture(scope="module")
def networks() -> ModuleType:
    """The module benchmarks/networks.py; tests that need it are skipped without the data."""
    if not (DATA / "cifar10").is_dir():
        pytest.skip(f"no real data at {DATA}: set AUTOCOMPRESS_DATA")
    spec = importlib.util.spec_from_file_location("networks", ROOT / "benchmarks" / "networks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["networks"] = module
    spec.loader.exec_module(module)
    return module
