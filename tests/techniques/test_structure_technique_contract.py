from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from autocompress.core.facts import Kind
from autocompress.core.plan import Setting
from autocompress.core.probes import Parts, Probes
from autocompress.core.profile import Profile
from autocompress.core.technique import StructureTechnique
from autocompress.errors import PlanError, TechniqueError
from autocompress.techniques import BlockDropping, ChannelPruning
from autocompress.testing.artifact_technique_suite import facts_with
from autocompress.testing.networks import small_model
from autocompress.testing.structure_technique_suite import StructureTechniqueSuite

HALF: Mapping[str, Setting] = {
    "groups": "", "ratio": 0.5, "scope": "uniform", "importance": "group_magnitude", "multiple": 4
}  # fmt: skip


class TestBlockDropping(StructureTechniqueSuite):
    technique: ClassVar[type[StructureTechnique]] = BlockDropping
    models: ClassVar[Mapping[str, Mapping[str, Setting]]] = {
        "resnet": {"blocks": "blocks.1 blocks.3"},
        "encoder": {"blocks": "layers.0"},
    }

    def test_batch_norm_statistics_are_those_of_what_is_left(self, tmp_path: Path) -> None:
        kept = "blocks.2.narrow.1.running_mean"
        before, after = (one.state_dict()[kept] for one in (small_model("resnet"), self.apply("resnet", tmp_path)))
        assert not torch.allclose(after, before, rtol=0.1)

    @pytest.mark.parametrize(("blocks", "words"), [("a", "1 block dropped"), ("a b c", "3 blocks dropped")])
    def test_what_it_does_is_said_by_number(self, blocks: str, words: str) -> None:
        assert BlockDropping().describe([{"blocks": blocks}]) == words

    @pytest.mark.parametrize("blocks", ["", " "])
    def test_no_blocks_are_refused(self, blocks: str, tmp_path: Path) -> None:
        with pytest.raises(PlanError, match="names no blocks"):
            self.apply("resnet", tmp_path, blocks=blocks)

    @pytest.mark.parametrize("block", ["stem", "blocks.9", "blocks.0.wide"])
    def test_what_is_no_block_is_refused_by_name(self, block: str, tmp_path: Path) -> None:
        with pytest.raises(TechniqueError, match=f"'{block}' is no block"):
            self.apply("resnet", tmp_path, blocks=f"blocks.0 {block}")


class TestChannelPruning(StructureTechniqueSuite):
    technique: ClassVar[type[StructureTechnique]] = ChannelPruning
    models: ClassVar[Mapping[str, Mapping[str, Setting]]] = {
        "cnn": {**HALF, "importance": "taylor"},
        "mlp": {**HALF, "importance": "mean_activation", "scope": "global"},
        "transformer": HALF,
        "resnet": HALF,
        "encoder": HALF,
    }

    def test_it_is_refused_with_the_reason_where_every_group_is_left_alone(self) -> None:
        parts = Parts(ChannelPruning.parts, left_alone={"head": "its channels are the model's output."})
        probes = Probes(parts={ChannelPruning.name: parts})
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

    @pytest.mark.parametrize(
        ("groups", "ratio", "words"),
        [
            ("", 0.25, "all widths at 3/4"),
            ("stem.0", 0.5, "stem.0 at 1/2"),
            ("layer1.0.conv1 layer1.1.conv1", 0.75, "layer1.conv1 at 1/4"),
            ("first.0.up last.1.down", 0.37, "2 widths at 63%"),
            ("0.1", 0.5, "layer 0.1 at 1/2"),
        ],
    )
    def test_what_it_does_is_said_by_place_and_what_is_kept(self, groups: str, ratio: float, words: str) -> None:
        assert ChannelPruning().describe([{**HALF, "groups": groups, "ratio": ratio}]) == words
