from collections.abc import Mapping
from typing import ClassVar

import pytest

from autocompress.core.facts import Kind
from autocompress.core.plan import Setting, Stage, Step
from autocompress.core.probes import Probes, PruningPath, Structure
from autocompress.core.profile import Profile
from autocompress.core.technique import ModelTechnique
from autocompress.errors import PlanError
from autocompress.techniques.channel_pruning import ChannelPruning
from autocompress.testing.artifact_technique_suite import facts_with
from autocompress.testing.model_technique_suite import ModelTechniqueSuite

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

    def test_what_it_proposes_are_the_cuts_of_the_measured_ways_down(self) -> None:
        facts, profile = facts_with(Kind.CONVOLUTION), Profile("any")
        assert list(ChannelPruning().space(facts, Probes(), profile).grid()) == [{}]
        cuts = [Step("channel_pruning", Stage.STRUCTURE, {**HALF, "ratio": ratio}) for ratio in (0.25, 0.5)]
        ways = (PruningPath("width", tuple(Structure((cut,), 0.1, 0.5, 0.5) for cut in cuts)),)
        grid = list(ChannelPruning().space(facts, Probes(ways=ways), profile).grid())
        assert grid == [dict(cut.settings) for cut in cuts]

    def test_it_is_refused_with_the_reason_where_every_group_is_left_alone(self) -> None:
        probes = Probes(left_alone={"head": "its channels are the model's output."})
        reason = ChannelPruning().refuses(facts_with(Kind.LINEAR, Kind.LINEAR), probes, Profile("any"))
        assert reason is not None
        assert "head: its channels are the model's output" in reason.sentence

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
