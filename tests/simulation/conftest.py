"""The small networks in static int8."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from autocompress.core.plan import Setting
from autocompress.core.source import whole
from autocompress.core.technique import Context
from autocompress.runtimes import OnnxRuntime
from autocompress.techniques import Int8Static
from autocompress.testing.networks import Exports, labelled_source

Quantized = Callable[[str], Path]
SIGNED: dict[str, Setting] = {"activation": "int8", "per_channel": False}


@pytest.fixture(scope="session")
def quantized(tmp_path_factory: pytest.TempPathFactory, exports: Exports) -> Quantized:
    """The int8 file of a small network, made once; `NAME, int8` has int8 activations and one scale for each weight."""
    made: dict[str, Path] = {}

    def path_of(name: str) -> Path:
        if name not in made:
            model = name.partition(",")[0]
            context = Context(None, None, whole("train", labelled_source(model, 48)), tmp_path_factory.mktemp("int8"))
            chosen = {choice.name: choice.options[0] for choice in Int8Static.choices}
            chosen |= SIGNED if name.endswith("int8") else {}
            made[name] = Int8Static().apply(exports(OnnxRuntime(), model).artifact, chosen, context).path
        return made[name]

    return path_of
