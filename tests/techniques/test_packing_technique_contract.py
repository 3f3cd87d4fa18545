"""The contract suite of techniques that pack weights, for each of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from autocompress.core.plan import Setting
from autocompress.core.probes import Probes
from autocompress.core.technique import ArtifactTechnique
from autocompress.techniques import Int8Dynamic, Int8Static, Palettes, PaletteTraining
from autocompress.testing.packing_technique_suite import PackingTechniqueSuite

Models = Mapping[str, Mapping[str, Setting]]
Quantizers = Mapping[str, type[ArtifactTechnique]]


class TestPalettes(PackingTechniqueSuite):
    technique = Palettes
    models: ClassVar[Models] = {
        "cnn": {"samples": 64},
        "mlp": {"samples": 64, "allocation": "measured", "entries": 8},
        "lstm": {"samples": 64, "entries": 32},
        "transformer": {"samples": 64, "groups": 4},
    }
    quantizers: ClassVar[Quantizers] = {"cnn": Int8Static, "lstm": Int8Dynamic, "transformer": Int8Dynamic}


class TestPaletteTraining(PackingTechniqueSuite):
    technique = PaletteTraining
    asking = Probes(packed={"entries": 16, "groups": 1})
    models: ClassVar[Models] = {
        "cnn": {"entries": 16, "steps": 30, "batch": 16},
        "transformer": {"entries": 16, "steps": 30, "batch": 16, "optimizer": "adamw", "learning_rate": 0.0001},
    }
    quantizers: ClassVar[Quantizers] = {"cnn": Int8Static, "transformer": Int8Dynamic}
