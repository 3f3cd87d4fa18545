from collections.abc import Mapping
from typing import ClassVar

import pytest
from model_technique_suite import ModelTechniqueSuite
from technique_suite import facts_with

from autocompress.errors import PlanError
from autocompress.facts import Kind
from autocompress.ladder import check_settings
from autocompress.plan import Setting
from autocompress.probes import Probes
from autocompress.profile import Profile
from autocompress.technique import ModelTechnique
from autocompress.techniques.channel_pruning import ChannelPruning

HALF: Mapping[str, Setting] = {
    "groups": "", "ratio": 0.5, "scope": "uniform", "importance": "group_magnitude", "multiple": 4
}  # fmt: skip


class TestChannelPruning(ModelTechniqueSuite):
    technique: ClassVar[type[ModelTechnique]] = ChannelPruning
    models: ClassVar[Mapping[str, Mapping[str, Setting]]] = {
        "cnn": {**HALF, "importance": "taylor"},
        "mlp": {**HALF, "importance": "mean_activation", "scope": "global"},
        "transformer": HALF,
    }

    def test_what_it_proposes_are_ratios_from_little_to_much(self) -> None:
        space = ChannelPruning().space(facts_with(Kind.CONVOLUTION), Probes(), Profile("any"))
        grid = list(space.grid())
        listed = [choice for choice in ChannelPruning.choices if choice.options]
        assert [settings["ratio"] for settings in grid] == [0.125, 0.25, 0.375, 0.5, 0.625, 0.75]
        for settings in grid:
            assert set(settings) == set(HALF)
            check_settings("channel_pruning", listed, {choice.name: settings[choice.name] for choice in listed})

    @pytest.mark.parametrize("kinds", [(Kind.RECURRENT,), (Kind.LINEAR, Kind.NORM)])
    def test_it_is_refused_where_no_layer_reads_anothers_channels(self, kinds: tuple[Kind, ...]) -> None:
        reason = ChannelPruning().refuses(facts_with(*kinds), Probes(), Profile("any"))
        assert reason is not None
        assert reason.sentence.endswith(".")

    def test_it_is_not_refused_where_two_layers_follow(self) -> None:
        assert ChannelPruning().refuses(facts_with(Kind.LINEAR, Kind.LINEAR), Probes(), Profile("any")) is None

    @pytest.mark.parametrize(
        ("name", "value"),
        [("ratio", 0.0), ("ratio", 1.0), ("ratio", True), ("ratio", "half"), ("groups", 3), ("scope", "here"),
         ("importance", "luck"), ("multiple", 3)],
    )  # fmt: skip
    def test_values_that_mean_nothing_are_refused(self, name: str, value: Setting) -> None:
        with pytest.raises(PlanError, match=f"{name} cannot be"):
            ChannelPruning().apply(None, {**HALF, name: value}, None)  # type: ignore[arg-type]
