from collections.abc import Mapping
from typing import ClassVar

from autocompress.core.plan import Setting
from autocompress.core.sensitivity import Sensitivity
from autocompress.core.technique import ArtifactTechnique
from autocompress.techniques import BiasCorrection, Equalization, LearnedRounding, QuantizationAwareTraining
from autocompress.testing.accuracy_technique_suite import AccuracyTechniqueSuite

UNEVEN = Sensitivity("int8_static", {"per_channel": False}, 0.5, 64, (), ranges=30.0, outliers=20.0)


class TestEqualization(AccuracyTechniqueSuite):
    technique: ClassVar[type[ArtifactTechnique]] = Equalization
    models: ClassVar[Mapping[str, Mapping[str, Setting]]] = {
        "cnn": {},
        "mlp": {"method": "smooth"},
        "transformer": {"method": "smooth", "alpha": 0.75},
    }
    asking: ClassVar[Sensitivity] = UNEVEN


class TestLearnedRounding(AccuracyTechniqueSuite):
    technique: ClassVar[type[ArtifactTechnique]] = LearnedRounding
    models: ClassVar[Mapping[str, Mapping[str, Setting]]] = {
        "cnn": {"steps": 40},
        "transformer": {"steps": 40},
    }
    asking: ClassVar[Sensitivity] = UNEVEN


class TestBiasCorrection(AccuracyTechniqueSuite):
    technique: ClassVar[type[ArtifactTechnique]] = BiasCorrection
    models: ClassVar[Mapping[str, Mapping[str, Setting]]] = {"cnn": {}, "mlp": {}}
    asking: ClassVar[Sensitivity] = UNEVEN


class TestQuantizationAwareTraining(AccuracyTechniqueSuite):
    technique: ClassVar[type[ArtifactTechnique]] = QuantizationAwareTraining
    models: ClassVar[Mapping[str, Mapping[str, Setting]]] = {
        "cnn": {"steps": 30, "batch": 16, "ranges": "learned"},
        "transformer": {"steps": 30, "batch": 16, "optimizer": "adamw", "learning_rate": 0.0001},
    }
    # the suite's labels are random, and training follows them a little
    error: ClassVar[float] = 0.25
    asking: ClassVar[Sensitivity] = UNEVEN
