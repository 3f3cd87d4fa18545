"""Whole runs by `autocompress` and `resolve` with scripted tools in the place of the real ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from autocompress import api
from autocompress.core.budget import Budget
from autocompress.core.profile import Profile, Protocol
from autocompress.core.tools import Tools
from autocompress.report import html
from autocompress.resolution import stored_run
from autocompress.run import setup
from autocompress.run.result import Result
from autocompress.testing.fakes import Answers, ExportedOnce, FakeDevice, Scripted, Variant

BUDGETS = {"size_mb": "0.7x", "latency_ms": "0.6x", "max_accuracy_drop_pp": 5.0}


class Runs:
    """Starts runs of the scripted model in folders below `root`."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.root, self.variants = root, {"good": Variant()}
        # drawing takes half of the time of such a run
        patch.setattr(html, "picture", lambda result, frame: "")
        for module in (setup, stored_run):
            patch.setattr(module, "tools_of", lambda profile: self.tools())

    def tools(self) -> Tools:
        """The scripted device and technique."""
        return Tools(ExportedOnce(), FakeDevice(), [Scripted("scripted", self.variants)])

    def start(self, name: str, data: Any, **more: Any) -> Result:
        """A run in the folder of this name."""
        budgets = tuple(Budget.parse(metric, limit) for metric, limit in BUDGETS.items())
        profile = Profile("scripted", protocol=Protocol(items="all"), budgets=budgets)
        return api.autocompress(Answers().eval(), profile, data, out=self.root / name, **more)

    def resolve(self, name: str, data: Any, budgets: Mapping[str, float | str]) -> Result:
        """Other budgets for the run in the folder of this name."""
        return api.resolve(self.root / name, budgets=budgets, data=data)
