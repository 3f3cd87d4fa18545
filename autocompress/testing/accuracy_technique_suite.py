"""Contract suite for artifact techniques that keep accuracy: stages PREPARATION and TUNING.

They save nothing. Inherit `AccuracyTechniqueSuite` in a class named `Test...` and fill it in.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import pytest

from autocompress.core.facts import Kind
from autocompress.core.plan import ACCURACY_STAGES, Effort, Stage
from autocompress.core.probes import Probes
from autocompress.core.profile import Profile
from autocompress.core.search_space import check_settings
from autocompress.core.sensitivity import Sensitivity
from autocompress.runtimes import OnnxRuntime
from autocompress.runtimes.node_names import nodes_named
from autocompress.testing.finish_technique_suite import FinishTechniqueSuite, facts_with, relative_error
from autocompress.testing.networks import Exported, Exports

# what adding up float32 numbers in another order changes
ROUNDING = 1e-4
# what a file may grow by: vectors that were stored once for several layers
GROWTH = 1.05


class AccuracyTechniqueSuite(FinishTechniqueSuite):
    """Tests of the contract of `Technique` and `ArtifactTechnique` for a technique that saves nothing.

    `asking` is a sensitivity that asks for it. A technique of the stage TUNING is given files of static int8, and
    `error` bounds the difference of what it leaves to the float file's outputs.
    """

    asking: ClassVar[Sensitivity]
    error: ClassVar[float] = 0.1

    def probes(self) -> Probes:
        """Probes that ask for it."""
        return Probes(sensitivities=(self.asking,))

    # declared attributes

    def test_it_keeps_accuracy_and_says_where(self) -> None:
        assert self.technique.stage in ACCURACY_STAGES
        assert self.technique.serves
        assert self.technique.serves <= {"static", "dynamic", "weights"}
        assert not self.technique.quantization

    def test_it_changes_neither_size_nor_time(self) -> None:
        assert self.technique().covers(facts_with(*Kind)) == frozenset()
        assert not any(choice.structural for choice in self.technique.choices)
        assert not self.technique.probed

    # proposed settings and refusals

    def test_all_it_proposes_can_be_applied(self) -> None:
        for probes in (Probes(), self.probes()):
            combinations = list(self.technique().space(facts_with(*Kind), probes, Profile("any")).grid())
            assert combinations
            for settings in combinations:
                check_settings(self.technique.name, self.technique.choices, settings)
            assert len({str(sorted(settings.items())) for settings in combinations}) == len(combinations)

    def test_it_is_refused_until_int8_was_seen_to_lose_accuracy(self) -> None:
        reason = self.technique().refuses(facts_with(*Kind), Probes(), Profile("any"))
        assert reason is not None
        assert reason.rule == "sensitivity"
        assert reason.sentence.endswith(".")
        assert reason.fact

    def test_it_is_not_refused_where_the_sensitivity_asks_for_it(self) -> None:
        assert self.technique().refuses(facts_with(*Kind), self.probes(), Profile("any")) is None

    # results of apply

    def test_a_preparation_computes_the_same(self, exported: Exported, model: str, tmp_path: Path) -> None:
        if self.technique.stage is not Stage.PREPARATION:
            pytest.skip("is no preparation")
        wanted, found = self.answers(exported, self.apply(exported, model, tmp_path / "made"), model)
        assert relative_error(found, wanted) < ROUNDING

    def test_the_result_computes_roughly_the_same(self, exported: Exported, model: str, tmp_path: Path) -> None:
        wanted, found = self.answers(exported, self.apply(exported, model, tmp_path / "made"), model)
        assert relative_error(found, wanted) < self.error
        assert (found.argmax(1) == wanted.argmax(1)).mean() > 0.9

    def test_something_changes_and_the_size_stays(self, exported: Exported, model: str, tmp_path: Path) -> None:
        start = self.start(exported.artifact, model, tmp_path / "made")
        result = self.apply(exported, model, tmp_path / "made")
        assert result.hash != start.hash
        assert result.size_bytes < GROWTH * start.size_bytes
        assert OnnxRuntime().contents(result).operators == OnnxRuntime().contents(start).operators

    def test_a_preparation_keeps_the_names_of_layers(self, exports: Exports, tmp_path: Path) -> None:
        if self.technique.stage is not Stage.PREPARATION:
            pytest.skip("is no preparation")
        model, extra = next(iter(self.models.items()))
        exported = exports(OnnxRuntime(), model)
        (tmp_path / "named").mkdir()
        named = OnnxRuntime().export(exported.module, exported.example, tmp_path / "named" / "a.onnx", named=True)
        context = self.context(model, tmp_path / "made")
        result = self.technique().apply(named, self.settings(**extra), context)
        before, after = (list(nodes_named(onnx.load(one.path).graph)) for one in (named, result))
        assert before == after
        assert before

    def test_what_is_marked_to_stay_in_float_stays(
        self, exported: Exported, model: str, tmp_path: Path, exports: Exports
    ) -> None:
        # in all models the last linear layer is called head
        layer = {"mlp": "layers.4"}.get(model, "head")
        marked = exports(OnnxRuntime(), model, (layer,)).artifact
        start = self.start(marked, model, tmp_path / "made")
        chosen = self.settings(**self.models[model])
        result = self.technique().apply(start, chosen, self.context(model, tmp_path / "made", marked))
        kept = exported.module.get_submodule(layer).weight.detach().numpy()
        arrays = [onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(result.path).graph.initializer]
        same = [array for array in arrays if sorted(array.shape) == sorted(kept.shape) and array.dtype == kept.dtype]
        # training may change the values of layers in float, which stay in float
        trains = self.technique.effort is Effort.TRAINING
        assert any(trains or np.array_equal(array, kept) or np.array_equal(array.T, kept) for array in same)
        assert result.hash != start.hash
