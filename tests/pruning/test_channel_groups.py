from __future__ import annotations

import gc
import importlib.util
import sys
import weakref
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from random_blocks import Add, Beside, Gated, Shuffled, Squeeze
from random_networks import TextNetwork
from torch import nn

from autocompress.core.runtime import Example
from autocompress.core.source import ArraySource, Split, whole
from autocompress.core.task import Task
from autocompress.data.copies import with_shared_weights
from autocompress.data.module import call
from autocompress.data.vision import import_torchvision
from autocompress.errors import TechniqueError
from autocompress.pruning import channel_groups
from autocompress.pruning.blocks import drop_blocks, droppable_blocks
from autocompress.pruning.channel_groups import UNTRIED, cut, outlined, prunable_groups
from autocompress.pruning.selection import Selection
from autocompress.testing.networks import labelled, small_model

HALF = Selection(0.5)


def images(batch: int = 2, size: int = 16) -> Example:
    return Example((np.random.default_rng(batch).standard_normal((batch, 3, size, size)).astype(np.float32),))


def vectors(batch: int = 2) -> Example:
    return Example((np.random.default_rng(batch).standard_normal((batch, 12)).astype(np.float32),))


def classifier(*blocks: nn.Module, width: int) -> nn.Module:
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5))


def conv(before: int, after: int, kernel: int = 3, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, kernel, padding=kernel // 2, groups=groups), nn.BatchNorm2d(after), nn.ReLU()
    )


def names(module: nn.Module, example: Example) -> list[str]:
    return [group.name for group in prunable_groups(module, example).groups]


def width_of(module: nn.Module, layer: str) -> int:
    return int(module.get_submodule(layer).weight.shape[0])


@pytest.fixture(scope="module")
def cifar_resnet() -> nn.Module:
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "networks.py"
    spec = importlib.util.spec_from_file_location("networks", path)
    assert spec is not None
    assert spec.loader is not None
    networks: ModuleType = importlib.util.module_from_spec(spec)
    sys.modules["networks"] = networks
    spec.loader.exec_module(networks)
    torch.manual_seed(0)
    module: nn.Module = networks.CifarResNet(3)
    return module.eval()


class TestWhatCanBeCut:
    def test_inner_widths_of_a_cifar_resnet_can_and_its_padded_stream_cannot(self, cifar_resnet: nn.Module) -> None:
        found = prunable_groups(cifar_resnet, images(size=32))
        assert [group.name for group in found.groups] == [f"layer{i}.{j}.conv1" for i in (1, 2, 3) for j in range(3)]
        assert found.left_alone == {
            "conv1": "a zero-padded shortcut counts on its width.",
            "linear": "its channels are the model's output.",
        }
        # one kind a stage, its strided first block included
        assert len({group.kind for group in found.groups}) == 3

    def test_without_time_what_was_not_tried_is_left_alone_by_that_name(self, cifar_resnet: nn.Module) -> None:
        example = images(size=32)
        everything = {group.name for group in prunable_groups(cifar_resnet, example).groups}
        found = prunable_groups(cifar_resnet, example, out_of_time=lambda: True)
        assert {group.name for group in found.groups} <= everything
        untried = {name for name, reason in found.left_alone.items() if reason == f"{UNTRIED}."}
        assert untried
        assert untried.isdisjoint(group.name for group in found.groups)

    def test_an_outline_has_the_shapes_of_the_cut(self, cifar_resnet: nn.Module) -> None:
        example = images(size=32)
        selection = Selection(0.25, groups=("layer1.0.conv1", "layer3.2.conv1"), multiple=4)
        real, outline = cut(cifar_resnet, example, selection), outlined(cifar_resnet, example, selection)
        shapes = [[tuple(weight.shape) for weight in module.parameters()] for module in (cifar_resnet, real, outline)]
        assert shapes[1] == shapes[2] != shapes[0]

    def test_copies_do_not_wait_for_the_garbage_collector(
        self, cifar_resnet: nn.Module, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        copies: list[weakref.ref[nn.Module]] = []
        own_copy = channel_groups.own_copy

        def noted(module: nn.Module) -> nn.Module:
            copy = own_copy(module)
            copies.append(weakref.ref(copy))
            return copy

        monkeypatch.setattr(channel_groups, "own_copy", noted)
        example = images(size=32)
        gc.disable()
        try:
            for _ in range(3):
                outlined(cifar_resnet, example, Selection(0.25, groups=("layer1.0.conv1",), multiple=4))
            assert [copy() for copy in copies] == [None] * 3
        finally:
            gc.enable()

    def test_also_after_blocks_were_dropped(self, cifar_resnet: nn.Module) -> None:
        module = with_shared_weights(cifar_resnet)
        drop_blocks(module, ["layer1.0", "layer2.1"], droppable_blocks(module, images(size=32)))
        kept = [(1, 1), (1, 2), (2, 0), (2, 2), (3, 0), (3, 1), (3, 2)]
        assert names(module, images(size=32)) == [f"layer{i}.{j}.conv1" for i, j in kept]

    def test_a_residual_stream_is_one_group_of_all_its_layers(self) -> None:
        module = classifier(conv(3, 8), Add(conv(8, 8)), Add(conv(8, 8)), width=8)
        (group,) = prunable_groups(module, images()).groups
        assert group.name == "0.0"
        assert group.channels == 8
        assert set(group.layers) == {"0.0", "1.body.0", "2.body.0"}

    def test_a_depthwise_layer_goes_with_the_layer_before_it(self) -> None:
        module = classifier(conv(3, 8), conv(8, 8, groups=8), conv(8, 16, 1), width=16)
        groups = prunable_groups(module, images()).groups
        assert {group.name: group.layers for group in groups} == {"0.0": ("0.0", "1.0"), "2.0": ("2.0",)}

    def test_a_depthwise_layer_on_the_images_is_no_group(self) -> None:
        module = classifier(conv(3, 3, groups=3), conv(3, 8, 1), width=8)
        assert names(module, images()) == ["1.0"]

    def test_both_sides_of_a_concatenation_and_what_reads_it(self) -> None:
        module = classifier(conv(3, 8), Beside([conv(8, 8), conv(8, 4)], keeps=True), conv(20, 8), width=8)
        assert names(module, images()) == ["0.0", "1.bodies.0.0", "1.bodies.1.0", "2.0"]
        smaller = cut(module, images(), HALF)
        assert smaller.get_submodule("2.0").in_channels == 10

    def test_a_concatenation_behind_a_split(self) -> None:
        gates = [Gated(8, 8, splits=False), Gated(8, 4, splits=True)]
        found = prunable_groups(classifier(conv(3, 8), Beside(gates, keeps=True), conv(20, 8), width=8), images())
        assert [group.name for group in found.groups] == ["0.0", "2.0"]
        assert "1.bodies.0.conv" in found.left_alone

    def test_a_densenet(self) -> None:
        models = import_torchvision().models
        torch.manual_seed(0)
        dense = models.DenseNet(8, (2, 2), 8, num_classes=5)
        found = prunable_groups(dense, images(size=32))
        assert set(found.left_alone) == {"classifier"}
        assert len(found.groups) == 10
        assert cut(dense, images(size=32), HALF).get_submodule("classifier").in_features == 14

    def test_what_squeezes_and_excites_goes_along(self) -> None:
        module = classifier(conv(3, 8), Squeeze(8, 4), conv(8, 8), width=8)
        groups = {group.name: group.layers for group in prunable_groups(module, images()).groups}
        assert groups == {"0.0": ("0.0", "1.up"), "1.down": ("1.down",), "2.0": ("2.0",)}

    def test_grouped_convolutions_keep_their_groups_alike(self) -> None:
        module = classifier(conv(3, 8), conv(8, 16, groups=4), width=16)
        smaller = cut(module, images(), Selection(0.3))
        assert smaller.get_submodule("1.0").groups == 4
        assert (width_of(smaller, "0.0"), width_of(smaller, "1.0")) == (4, 12)

    def test_shuffled_channels_are_left_alone_though_the_shapes_would_fit(self) -> None:
        module = classifier(conv(3, 8), Shuffled(8, 2), conv(8, 8), width=8)
        found = prunable_groups(module, images())
        assert "2.0" in [group.name for group in found.groups]
        assert "1.conv" in found.left_alone

    def test_a_shuffle_that_hardly_shows_in_the_outputs_is_found_among_others(self) -> None:
        body = nn.Sequential(Shuffled(16, 2), nn.Conv2d(16, 16, 1))
        with torch.no_grad():
            body[1].weight *= 1e-6
        found = prunable_groups(classifier(conv(3, 16), Add(body), conv(16, 8), width=8), images())
        assert [group.name for group in found.groups] == ["0.0", "2.0"]
        assert "1.body.0.conv" in found.left_alone

    def test_halves_that_gate_each_other_are_left_alone(self) -> None:
        found = prunable_groups(classifier(conv(3, 8), Gated(8, 8, splits=False), conv(8, 8), width=8), images())
        assert [group.name for group in found.groups] == ["0.0", "2.0"]
        assert "1.conv" in found.left_alone

    def test_neurons_of_an_mlp(self) -> None:
        found = prunable_groups(small_model("mlp"), Example(labelled("mlp", 4)[0]))
        assert [(group.name, group.channels) for group in found.groups] == [("layers.0", 64), ("layers.2", 64)]
        assert len({group.kind for group in found.groups}) == 1

    def test_a_flattened_image_loses_the_places_of_its_channels(self) -> None:
        module = nn.Sequential(conv(3, 8), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 6), nn.ReLU(),
                               nn.Linear(6, 5))  # fmt: skip
        assert names(module, images()) == ["0.0", "3"]
        assert cut(module, images(), HALF).get_submodule("3").in_features == 16

    def test_feed_forward_widths_of_encoders_can_and_attention_cannot(self) -> None:
        module = small_model("transformer")
        found = prunable_groups(module, Example(labelled("transformer", 4)[0]))
        assert [group.name for group in found.groups] == ["encoder.linear1"]
        assert "attention" in " ".join(found.left_alone.values())
        assert torch.backends.mha.get_fastpath_enabled()

    @pytest.mark.parametrize("choice", [0, 1])
    def test_a_class_token_and_places_as_bare_parameters(self, choice: int) -> None:
        torch.manual_seed(0)
        module = TextNetwork(lambda options: list(options)[min(choice, len(options) - 1)])
        found = prunable_groups(module, Example({"input_ids": np.ones((2, 6), np.int64)}))
        suffix = "linear1" if choice == 0 else "up"
        assert [group.name for group in found.groups] == [f"layers.{i}.{suffix}" for i in range(choice + 1)]
        # by torch's layer, or by what linear layers do together
        assert "it is the width of an attention layer." in found.left_alone.values()

    def test_layers_that_share_their_weights_are_left_alone(self) -> None:
        module = nn.Sequential(*(nn.Linear(12, 12) for _ in range(3)), nn.Linear(12, 5))
        module[1].weight = module[0].weight
        found = prunable_groups(module, vectors())
        assert [group.name for group in found.groups] == ["2"]
        assert "shares its weights" in found.left_alone["0"]

    def test_layers_whose_weights_are_computed_are_left_alone(self) -> None:
        module = classifier(conv(3, 8), conv(8, 8), width=8)
        nn.utils.parametrizations.weight_norm(module[0][0])
        found = prunable_groups(module, images())
        assert [group.name for group in found.groups] == ["1.0"]
        assert found.left_alone["0.0"] == "the weights of layer 0.0 are computed."

    def test_recurrent_layers_are_left_alone(self) -> None:
        found = prunable_groups(small_model("lstm"), Example(labelled("lstm", 4)[0]))
        assert found.groups == ()
        assert found.left_alone

    def test_frozen_layers_and_train_mode_change_nothing_and_stay(self) -> None:
        module = classifier(conv(3, 8), conv(8, 8), width=8).train()
        module.requires_grad_(requires_grad=False)
        module[0].eval()
        state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        assert names(module, images()) == ["0.0", "1.0"]
        smaller = cut(module, images(), HALF)
        assert not any(p.requires_grad for p in (*module.parameters(), *smaller.parameters()))
        assert [part.training for part in smaller] == [part.training for part in module]
        assert all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())

    def test_a_batch_norm_without_weights(self) -> None:
        module = classifier(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, affine=False), nn.ReLU(), width=8)
        assert width_of(cut(module, images(), HALF), "0") == 4

    def test_norms_over_channels_go_along(self) -> None:
        for norm in (nn.GroupNorm(2, 8), nn.GroupNorm(1, 8), nn.InstanceNorm2d(8, affine=True)):
            module = classifier(nn.Conv2d(3, 8, 3), norm, nn.ReLU(), width=8)
            assert width_of(cut(module, images(), HALF), "0") == 4

    def test_what_is_not_traced_is_refused(self) -> None:
        class Detached(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer = nn.Linear(12, 5)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.layer(x).detach()

        with pytest.raises(TechniqueError, match=r"cannot be traced .*no gradient"):
            prunable_groups(Detached(), vectors())

    def test_a_network_in_a_precision_of_its_own(self) -> None:
        class Single(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.scale = torch.ones(8)
                self.first, self.second = nn.Linear(12, 8), nn.Linear(8, 5)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.second(torch.relu(self.first(x)).float())

        assert names(Single(), vectors()) == ["first"]


class TestCutting:
    def test_it_computes_what_the_network_computes_without_these_channels(self) -> None:
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 5))
        smaller = cut(module, vectors(), HALF)
        kept = [
            place for place in range(8) if any(torch.equal(row, module[0].weight[place]) for row in smaller[0].weight)
        ]
        assert len(kept) == 4
        with torch.no_grad():
            module[2].weight[:, [place for place in range(8) if place not in kept]] = 0
        (wanted,), (found,) = call(module, vectors()).values(), call(smaller, vectors()).values()
        assert torch.allclose(found, wanted, atol=1e-6)

    def test_only_the_named_groups_become_narrower(self) -> None:
        smaller = cut(small_model("mlp"), Example(labelled("mlp", 4)[0]), Selection(0.25, groups=("layers.2",)))
        assert (width_of(smaller, "layers.0"), width_of(smaller, "layers.2")) == (64, 48)

    def test_a_layer_that_is_ignored_keeps_its_channels_and_is_named(self) -> None:
        module, example = small_model("mlp"), Example(labelled("mlp", 4)[0])
        found = prunable_groups(module, example, ["layers.2"])
        assert [group.name for group in found.groups] == ["layers.0"]
        assert found.left_alone["layers.2"] == "it is declared to be ignored."
        smaller = cut(module, example, HALF, ignore=["layers.2"])
        assert (width_of(smaller, "layers.0"), width_of(smaller, "layers.2")) == (32, 64)
        with pytest.raises(TechniqueError, match=r"'layers\.2' is left alone: it is declared to be ignored"):
            cut(module, example, Selection(0.5, groups=("layers.2",)), ignore=["layers.2"])

    def test_an_unknown_group_and_one_that_cannot_be_cut_are_named(self) -> None:
        module, example = small_model("mlp"), Example(labelled("mlp", 4)[0])
        with pytest.raises(TechniqueError, match=r"no group named 'layer\.2'.*Did you mean 'layers\.2'"):
            cut(module, example, Selection(0.5, groups=("layer.2",)))
        with pytest.raises(TechniqueError, match=r"'layers\.4' is left alone: its channels are the model's output"):
            cut(module, example, Selection(0.5, groups=("layers.4",)))

    def test_where_nothing_can_be_cut_the_reason_is_said(self) -> None:
        with pytest.raises(TechniqueError, match=r"no channels that could be cut .*the model's output"):
            cut(nn.Sequential(nn.Linear(12, 5)), vectors(), HALF)

    def test_a_ratio_that_removes_nothing_is_refused(self) -> None:
        module = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 5))
        with pytest.raises(TechniqueError, match="removes no channel at all"):
            cut(module, vectors(), Selection(0.25, multiple=8))

    @pytest.mark.parametrize("multiple", [1, 4, 8, 16])
    def test_what_is_kept_is_a_multiple(self, multiple: int) -> None:
        module, example = small_model("mlp"), Example(labelled("mlp", 4)[0])
        for scope in ("uniform", "global"):
            smaller = cut(module, example, Selection(0.6, scope=scope, multiple=multiple))
            assert width_of(smaller, "layers.0") % multiple == width_of(smaller, "layers.2") % multiple == 0

    def test_uniform_takes_alike_from_all_and_global_from_the_weakest(self) -> None:
        module, example = small_model("mlp"), Example(labelled("mlp", 4)[0])
        with torch.no_grad():
            # half of one group is as good as nothing
            module.layers[0].weight[:32] *= 1e-3
            module.layers[2].weight[:, :32] *= 1e-3
        uniform = cut(module, example, Selection(0.25))
        assert (width_of(uniform, "layers.0"), width_of(uniform, "layers.2")) == (48, 48)
        anywhere = cut(module, example, Selection(0.25, scope="global"))
        assert (width_of(anywhere, "layers.0"), width_of(anywhere, "layers.2")) == (32, 64)

    def test_a_larger_ratio_never_leaves_more(self) -> None:
        module, example = small_model("mlp"), Example(labelled("mlp", 4)[0])
        ratios = (0.1, 0.3, 0.5, 0.7, 0.9, 0.99)
        smaller = [cut(module, example, Selection(ratio, scope="global")) for ratio in ratios]
        for layer in ("layers.0", "layers.2"):
            widths = [width_of(each, layer) for each in smaller]
            assert widths == sorted(widths, reverse=True)
            assert widths[-1] >= 6


class TestImportance:
    """A network of 8 neurons, of which the first four decide and the others are larger or dead."""

    @pytest.fixture
    def module(self) -> nn.Module:
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 5))
        return module.eval()

    @pytest.fixture
    def data(self) -> Split:
        generator = np.random.default_rng(0)
        inputs = generator.standard_normal((64, 12)).astype(np.float32)
        return whole("train", ArraySource((inputs,), generator.integers(0, 5, 64)))

    @staticmethod
    def kept(module: nn.Module, importance: str, data: Split | None, task: Task | None = None) -> list[int]:
        smaller = cut(module, vectors(), Selection(0.5, importance=importance), data, task)
        rows = smaller[0].weight
        return [place for place in range(8) if any(torch.equal(row, module[0].weight[place]) for row in rows)]

    def test_mean_activation_takes_out_dead_channels(self, module: nn.Module, data: Split) -> None:
        with torch.no_grad():
            module[1].bias[[0, 2, 4, 6]] = -100.0
        assert self.kept(module, "mean_activation", data) == [1, 3, 5, 7]

    def test_taylor_keeps_what_the_loss_depends_on_though_others_are_larger(
        self, module: nn.Module, data: Split
    ) -> None:
        with torch.no_grad():
            module[3].weight[:, 4:] = 1.0  # moves all logits alike, which changes no probability
            module[0].weight[4:] *= 3
        task = Task(test=data.source)
        assert self.kept(module, "taylor", data, task) == [0, 1, 2, 3]
        assert self.kept(module, "group_magnitude", None) == [4, 5, 6, 7]

    def test_taylor_takes_the_tasks_own_loss(self, module: nn.Module, data: Split) -> None:
        called = []

        def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            called.append(len(targets))
            return outputs.square().mean()

        self.kept(module, "taylor", data, Task(test=data.source, loss=loss))
        assert called == [32, 32]

    def test_batch_norm_scales_rank_and_are_missed_where_there_are_none(self, module: nn.Module) -> None:
        with torch.no_grad():
            module[1].weight.copy_(torch.tensor([9.0, 1, 8, 2, 7, 3, 6, 4]))
        assert self.kept(module, "batch_norm_scale", None) == [0, 2, 4, 6]
        with pytest.raises(TechniqueError, match=r"group 'layers\.0' has no batch norm"):
            cut(small_model("mlp"), Example(labelled("mlp", 4)[0]), Selection(0.5, importance="batch_norm_scale"))

    @pytest.mark.parametrize("importance", ["taylor", "mean_activation"])
    def test_what_needs_data_says_so(self, module: nn.Module, importance: str) -> None:
        with pytest.raises(TechniqueError, match="needs calibration data"):
            self.kept(module, importance, None)

    def test_a_loss_that_does_not_fit_is_a_technique_error(self, module: nn.Module) -> None:
        inputs = np.zeros((8, 12), np.float32)
        data = whole("train", ArraySource((inputs,), np.full(8, 77)))
        with pytest.raises(TechniqueError, match="the loss cannot be taken"):
            self.kept(module, "taylor", data, Task(test=data.source))
