"""Shorter warm-ups and probes, kept for all runs of these tests: each of them is measured all the same."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from autocompress.analysis import layer_probes, model_probes
from autocompress.devices import alternation
from autocompress.structure import measuring


@pytest.fixture(scope="session", autouse=True)
def _brief_measurements(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOCOMPRESS_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(alternation, "WARM_UP_SECONDS", 0.02)
        patch.setattr(layer_probes, "PROBE_SECONDS", 0.05)
        patch.setattr(model_probes, "PROBE_SECONDS", 0.1)
        patch.setattr(measuring, "MEASURE_SECONDS", 0.3)
        yield
