from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest

from autocompress.core.plan import Setting
from autocompress.core.technique import ModelTechnique
from autocompress.errors import PlanError
from autocompress.techniques import Distillation
from autocompress.testing.recovery_technique_suite import RecoveryTechniqueSuite

BRIEF: Mapping[str, Setting] = {"steps": 12, "batch": 16, "seed": 0, "learning_rate": 0.05, "optimizer": "sgd"}


class TestDistillation(RecoveryTechniqueSuite):
    technique: ClassVar[type[ModelTechnique]] = Distillation
    models: ClassVar[Mapping[str, Mapping[str, Setting]]] = {
        "cnn": {**BRIEF, "views": 2},
        "mlp": {**BRIEF, "steps": 20},
        "transformer": {**BRIEF, "learning_rate": 2e-3, "optimizer": "adamw"},
        "resnet": {**BRIEF, "feature_weight": 1.0},
    }
    optional: ClassVar[frozenset[str]] = frozenset({"views", "feature_weight"})

    @pytest.mark.parametrize(("steps", "words"), [(150, "distilled 150 steps"), (12_000, "distilled 12k steps")])
    def test_what_it_does_is_said_by_steps(self, steps: int, words: str) -> None:
        assert Distillation().describe([{**BRIEF, "steps": steps}]) == words

    def test_the_steps_of_all_rounds_are_added(self) -> None:
        rounds = [{**BRIEF, "steps": steps} for steps in (400, 1200, 3600)]
        assert Distillation().describe(rounds) == "distilled 5.2k steps"

    @pytest.mark.parametrize(
        ("name", "value"),
        [("steps", 0), ("batch", 0), ("learning_rate", 0.0), ("views", -1), ("feature_weight", -0.1),
         ("optimizer", "luck")],
    )  # fmt: skip
    def test_values_that_mean_nothing_are_refused(self, name: str, value: Setting, tmp_path: Path) -> None:
        with pytest.raises(PlanError, match="cannot train"):
            self.apply("mlp", tmp_path, **{name: value})
