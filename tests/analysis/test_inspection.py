import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import nn

from autocompress.analysis.inspection import inspect_module
from autocompress.analysis.patterns import repeats_of
from autocompress.analysis.weights import with_weights
from autocompress.core.facts import Facts, Family, Kind, WeightFact
from autocompress.core.runtime import Example
from autocompress.errors import ModelError
from autocompress.testing.networks import CLASSES, labelled, small_model


def example(*shapes: tuple[int, ...]) -> Example:
    generator = np.random.default_rng(0)
    return Example(tuple(generator.standard_normal(shape).astype(np.float32) for shape in shapes))


def facts_of(name: str) -> Facts:
    return inspect_module(small_model(name), Example(labelled(name, 2)[0]))


def macs(facts: Facts) -> dict[str, int]:
    return {layer.name: layer.macs for layer in facts.layers if layer.macs}


def test_parameters_that_layers_share_count_once() -> None:
    module = nn.Sequential(nn.Embedding(50, 8), nn.Linear(8, 8), nn.Linear(8, 50, bias=False))
    module[2].weight = module[0].weight
    facts = inspect_module(module, Example((np.ones((2, 4), np.int64),)))
    assert {layer.name: layer.parameters for layer in facts.layers} == {"0": 400, "1": 72, "2": 0}
    assert sum(layer.parameters for layer in facts.layers) == facts.parameters


class Attends(nn.Module):
    """One head block written with torch's own function, as timm and Hugging Face do; takes (n, 10, 32)."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.outside = nn.Linear(32, 96), nn.Linear(32, 32)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        parts = self.inside(tokens).reshape(-1, 10, 3, 4, 8).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*parts)
        return self.outside(mixed.transpose(1, 2).reshape(-1, 10, 32))


class AttendsByHand(Attends):
    """The same with matrix products."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        query, key, value = self.inside(tokens).reshape(-1, 10, 3, 4, 8).permute(2, 0, 3, 1, 4)
        mixed = (query @ key.transpose(-1, -2) / 8**0.5).softmax(-1) @ value
        return self.outside(mixed.transpose(1, 2).reshape(-1, 10, 32))


class Recurs(nn.Module):
    """A recurrent layer whose sequence axis comes first, inside a module that takes (n, steps, 6)."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, sequence: torch.Tensor) -> torch.Tensor:
        if not self.layer.batch_first:
            sequence = sequence.transpose(0, 1)
        return self.layer(sequence)[0]


class MixesTokens(nn.Module):
    """A linear layer over the tokens and not over the channels, as in MLP mixers; takes (n, 16, 32)."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.channels = nn.Linear(16, 16), nn.Linear(32, 32)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.channels(self.tokens(values.transpose(1, 2)).transpose(1, 2))


# multiply-accumulates against numbers made by hand


def test_facts_that_were_noted_are_read_back_as_they_were() -> None:
    facts = facts_of("transformer")
    assert Facts.from_json(json.loads(json.dumps(facts.to_json()))) == facts


def test_a_small_cnn() -> None:
    facts = facts_of("cnn")
    places = 16 * 16
    assert macs(facts) == {
        "stem.0": places * 3 * 16 * 9,
        "block.0": places * 16 * 16 * 9,
        "block.3": places * 16 * 16 * 9,
        "head": 16 * CLASSES,
    }
    assert facts.macs == 1_290_320
    assert facts.attention_macs == 0
    assert facts.family is Family.CNN
    assert facts.parameters == 432 + 2 * 2304 + 3 * 32 + 16 * CLASSES + CLASSES


def test_a_small_mlp() -> None:
    facts = facts_of("mlp")
    assert facts.macs == 24 * 64 + 64 * 64 + 64 * CLASSES
    assert facts.family is Family.MLP
    assert facts.shares[Kind.LINEAR] == 1.0


def test_a_small_lstm() -> None:
    facts = facts_of("lstm")
    # four gates over input and state at each of 12 steps
    assert macs(facts) == {"recurrent": 12 * 4 * 96 * (16 + 96), "head": 96 * CLASSES}
    assert facts.family is Family.RNN
    assert facts.shares[Kind.RECURRENT] == pytest.approx(516_096 / 516_576)


def test_the_layers_of_a_transformer_encoder() -> None:
    module = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 2).eval()
    facts = inspect_module(module, example((2, 10, 32)))
    # three projections in and one out, then there and back through 64
    layer = {"self_attn": 10 * 4 * 32 * 32, "linear1": 10 * 32 * 64, "linear2": 10 * 64 * 32}
    assert macs(facts) == {f"layers.{i}.{name}": count for i in range(2) for name, count in layer.items()}
    assert facts.family is Family.TRANSFORMER


def test_the_products_of_a_transformer_encoder() -> None:
    module = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 2).eval()
    facts = inspect_module(module, example((2, 10, 32)))
    # of each layer: scores of 10 x 10 over 32 channels, and their sums over the values
    assert facts.attention_macs == 2 * (2 * 10 * 10 * 32)
    assert facts.macs == 2 * (40_960 + 2 * 20_480) + 12_800


def test_attention_by_hand() -> None:
    facts = inspect_module(AttendsByHand().eval(), example((2, 10, 32)))
    assert macs(facts) == {"inside": 10 * 32 * 96, "outside": 10 * 32 * 32}
    assert facts.attention_macs == 2 * 10 * 10 * 32
    assert facts.macs == 30_720 + 10_240 + 6_400
    assert facts.shares[Kind.ATTENTION] == pytest.approx(6_400 / 47_360)
    assert facts.family is Family.TRANSFORMER


def test_fused_attention_is_the_same_work_as_attention_by_hand() -> None:
    facts = inspect_module(Attends().eval(), example((2, 10, 32)))
    by_hand = inspect_module(AttendsByHand().eval(), example((2, 10, 32)))
    assert facts.attention_macs == by_hand.attention_macs
    assert facts.shares == by_hand.shares


def test_a_network_with_fused_attention_is_a_transformer() -> None:
    assert inspect_module(Attends().eval(), example((2, 10, 32))).family is Family.TRANSFORMER


def test_a_transformer_called_by_name() -> None:
    facts = facts_of("transformer")
    layer = {"encoder.self_attn": 8 * 4 * 32 * 32, "encoder.linear1": 8 * 32 * 64, "encoder.linear2": 8 * 64 * 32}
    assert macs(facts) == {**layer, "head": 32 * CLASSES}
    assert facts.family is Family.TRANSFORMER
    assert [layer.name for layer in facts.layers if layer.kind is Kind.EMBEDDING] == ["tokens"]


def test_a_depthwise_convolution() -> None:
    module = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 16, 1)).eval()
    facts = inspect_module(module, example((2, 8, 10, 10)))
    assert macs(facts) == {"0": 10 * 10 * 8 * 9, "1": 10 * 10 * 8 * 16}
    assert facts.layers[0].detail == {"in": 8, "out": 8, "kernel": 3, "stride": 1, "groups": 8}
    assert facts.family is Family.CNN


def test_a_strided_convolution_counts_the_places_of_its_output() -> None:
    facts = inspect_module(nn.Conv2d(4, 6, 3, stride=2).eval(), example((2, 4, 11, 9)))
    assert facts.macs == 5 * 4 * 4 * 6 * 9
    assert facts.layers[0].output_shape == (6, 5, 4)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_transposed_convolution_counts_the_places_of_its_input(groups: int) -> None:
    module = nn.ConvTranspose2d(4, 8, 4, stride=2, padding=1, groups=groups).eval()
    facts = inspect_module(module, example((2, 4, 6, 6)))
    # each input value is spread over 4 x 4 places of 8 / groups channels
    assert facts.macs == 6 * 6 * 4 * (8 // groups) * 16
    assert facts.family is Family.CNN


def test_a_one_dimensional_convolution() -> None:
    facts = inspect_module(nn.Conv1d(4, 6, 5, padding=2).eval(), example((2, 4, 20)))
    assert facts.macs == 20 * 4 * 6 * 5


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize(("layer", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_recurrent_layers_of_two_directions_and_two_depths(
    layer: Callable[..., nn.RNNBase], gates: int, batch_first: bool
) -> None:
    module = Recurs(layer(6, 8, num_layers=2, bidirectional=True, batch_first=batch_first)).eval()
    facts = inspect_module(module, example((2, 7, 6)))
    # both directions: the first layer reads 6 values, the second the 16 of the first
    assert facts.macs == 7 * 2 * gates * 8 * ((6 + 8) + (16 + 8))
    assert facts.shares[Kind.RECURRENT] == 1.0


def test_a_layer_that_runs_twice_works_twice_and_has_its_parameters_once() -> None:
    shared = nn.Linear(6, 6)
    facts = inspect_module(nn.Sequential(shared, nn.ReLU(), shared).eval(), example((2, 6)))
    assert facts.macs == 2 * 36
    assert facts.parameters == 42


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_work_is_counted_per_item(batch: int) -> None:
    module = small_model("cnn")
    assert inspect_module(module, Example(labelled("cnn", batch)[0])).macs == 1_290_320


@pytest.mark.parametrize(
    "trains",
    [
        True,
        False,
    ],
)
def test_a_linear_layer_over_tokens_is_no_attention(trains: bool) -> None:
    # torch multiplies the weights of a frozen layer with a transposed input item by item
    module = MixesTokens().eval().requires_grad_(trains)
    facts = inspect_module(module, example((2, 16, 32)))
    assert facts.macs == 32 * 16 * 16 + 16 * 32 * 32
    assert facts.attention_macs == 0
    assert facts.family is Family.MLP


class UsesItsLayer(nn.Module):
    """A linear layer whose weights are used without calling it, as Swin's attention does; takes (n, 4, 6)."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(6, 12)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return F.linear(F.linear(values, self.qkv.weight, self.qkv.bias), self.qkv.weight.T)


def test_a_layer_whose_weights_are_used_without_calling_it_is_a_layer() -> None:
    facts = inspect_module(UsesItsLayer().eval(), example((2, 4, 6)))
    (layer,) = facts.layers
    assert (layer.name, layer.type, layer.macs, layer.parameters) == ("qkv", "Linear", 4 * 6 * 12, 84)
    assert (layer.input_shape, layer.output_shape) == ((4, 6), (4, 12))


class Conv1D(nn.Module):
    """As in transformers: a linear layer that holds its weight the other way round."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf = nf
        self.weight, self.bias = nn.Parameter(torch.ones(nx, nf)), nn.Parameter(torch.zeros(nf))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        flat = torch.addmm(self.bias, values.reshape(-1, values.shape[-1]), self.weight)
        return flat.reshape(*values.shape[:-1], self.nf)


def test_the_linear_layers_of_the_gpt_2_family_are_linear() -> None:
    facts = inspect_module(Conv1D(9, 5).eval(), example((2, 3, 5)))
    (layer,) = facts.layers
    assert (layer.kind, layer.macs, layer.detail) == (Kind.LINEAR, 3 * 5 * 9, {"in": 5, "out": 9})
    assert facts.attention_macs == 0


# parts


def test_parts_that_attend_are_named_with_how_they_do_it() -> None:
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 2).eval()
    assert inspect_module(encoder, example((2, 10, 32))).attention == {
        "layers.0.self_attn": "nn.MultiheadAttention",
        "layers.1.self_attn": "nn.MultiheadAttention",
    }
    facts = inspect_module(nn.Sequential(Attends(), Attends()).eval(), example((2, 10, 32)))
    assert facts.attention == dict.fromkeys(("0", "1"), "scaled_dot_product_attention")
    assert "2 x scaled_dot_product_attention" in facts.evidence


def test_projections_multiplied_by_hand_are_attention_and_their_names_alone_are_not() -> None:
    class Projected(nn.Module):
        def __init__(self, *, mixes: bool) -> None:
            super().__init__()
            self.mixes, self.query, self.key = mixes, nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            query, key = self.query(tokens), self.key(tokens)
            return (query @ key.transpose(-1, -2)) @ tokens if self.mixes else query + key

    mixed = inspect_module(nn.Sequential(Projected(mixes=True)).eval(), example((2, 5, 8)))
    assert mixed.attention == {"0": "products of key, query"}
    assert inspect_module(nn.Sequential(Projected(mixes=False)).eval(), example((2, 5, 8))).attention == {}


def test_convolutions_are_split_by_their_groups() -> None:
    layers = [nn.Conv2d(8, 8, 3, padding=1, groups=groups) for groups in (1, 2, 8)]
    facts = inspect_module(nn.Sequential(*layers).eval(), example((2, 8, 5, 5)))
    assert facts.convolution == {
        "dense": pytest.approx(8 / 13),
        "grouped": pytest.approx(4 / 13),
        "depthwise": pytest.approx(1 / 13),
    }


def test_blocks_that_follow_each_other_are_repeats_the_outermost_of_nested_ones() -> None:
    def stage(width: int, count: int) -> nn.Sequential:
        return nn.Sequential(*(nn.Sequential(nn.Linear(width, width), nn.ReLU()) for _ in range(count)))

    module = nn.Sequential(stage(8, 3), nn.Linear(8, 4), stage(4, 2), nn.Linear(4, 4), nn.Linear(4, 4))
    repeats = repeats_of(module)
    assert [(repeat.names, repeat.parameters) for repeat in repeats] == [
        (("0.0", "0.1", "0.2"), 72),
        (("2.0", "2.1"), 20),
    ]


def test_linear_layers_on_feature_maps_are_convolutions() -> None:
    # as in ConvNeXt: channels last, and 1x1 convolutions written as linear layers
    layers = (nn.Linear(6, 24), nn.GELU(), nn.Linear(24, 6))
    facts = inspect_module(nn.Sequential(*layers).eval(), example((2, 7, 7, 6)))
    assert facts.family is Family.CNN
    assert "1x1" in facts.evidence
    assert inspect_module(nn.Sequential(*layers).eval(), example((2, 7, 6))).family is Family.MLP


def test_what_has_int8_kernels_and_the_largest_activation() -> None:
    facts = inspect_module(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)).eval(), example((2, 1, 10, 10)))
    assert facts.quantizable == 40 / 48
    assert facts.largest_activation == 4 * 8 * 8


# weights


def weights_of(layer: nn.Linear | nn.Conv2d, weight: torch.Tensor, shape: tuple[int, ...]) -> WeightFact:
    with torch.no_grad():
        layer.weight.copy_(weight)
    module = nn.Sequential(layer).eval()
    return with_weights(inspect_module(module, example(shape)), module).weights["0"]


def test_a_product_of_thin_factors_has_a_low_rank() -> None:
    generator = torch.Generator().manual_seed(0)
    thin = torch.randn(40, 2, generator=generator) @ torch.randn(2, 60, generator=generator)
    assert weights_of(nn.Linear(60, 40), thin, (2, 60)).rank == pytest.approx(2 / 40)
    full = weights_of(nn.Linear(60, 40), torch.eye(40, 60), (2, 60))
    assert full.rank == pytest.approx(36 / 40)


def test_the_distribution_of_weights_made_by_hand() -> None:
    weight = torch.full((4, 100), 1.0)
    weight[0] = 8.0
    weight[1, :50] = 0.001
    fact = weights_of(nn.Linear(100, 4), weight, (2, 100))
    assert fact.mean == pytest.approx(float(weight.mean()))
    assert fact.std == pytest.approx(float(weight.std(correction=0)), rel=1e-5)
    assert fact.near_zero == 50 / 400
    assert fact.channel_spread == 8.0
    assert fact.outliers == 0.0
    weight[2, 0] = 100.0
    assert weights_of(nn.Linear(100, 4), weight, (2, 100)).outliers == 1 / 4


def test_layers_of_zeros_are_described_too() -> None:
    fact = weights_of(nn.Conv2d(3, 4, 3), torch.zeros(4, 3, 3, 3), (2, 3, 5, 5))
    assert (fact.near_zero, fact.outliers, fact.channel_spread, fact.rank) == (1.0, 0.0, 1.0, None)


def test_facts_with_weights_are_read_back_as_they_were() -> None:
    module = small_model("transformer")
    facts = with_weights(inspect_module(module, Example(labelled("transformer", 2)[0])), module)
    assert set(facts.weights) == {layer.name for layer in facts.layers if layer.macs}
    assert Facts.from_json(json.loads(json.dumps(facts.to_json()))) == facts


# shares and families


@pytest.mark.parametrize("name", ["cnn", "mlp", "lstm", "transformer"])
def test_shares_sum_to_one_and_are_those_of_the_layers(name: str) -> None:
    facts = facts_of(name)
    assert sum(facts.shares.values()) == pytest.approx(1.0)
    assert set(facts.shares) == {Kind.CONVOLUTION, Kind.LINEAR, Kind.ATTENTION, Kind.RECURRENT}
    for kind, share in facts.shares.items():
        work = sum(layer.macs for layer in facts.layers if layer.kind is kind)
        work += facts.attention_macs if kind is Kind.ATTENTION else 0
        assert share == pytest.approx(work / facts.macs)
        if share >= 0.005:
            assert f"{share:.0%} {kind}" in facts.evidence


def test_a_module_without_work_has_no_shares() -> None:
    facts = inspect_module(nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()).eval(), example((2, 3, 4, 4)))
    assert facts.macs == 0
    assert set(facts.shares.values()) == {0.0}
    assert facts.family is Family.MIXED
    assert facts.dominant() == ()


def test_a_network_of_two_kinds_is_mixed() -> None:
    module = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 64, 10)).eval()
    facts = inspect_module(module, example((2, 1, 8, 8)))
    assert 0.4 < facts.shares[Kind.CONVOLUTION] < 0.6
    assert facts.family is Family.MIXED


def test_pruned_weights_are_not_counted_as_weights() -> None:
    module = nn.Linear(10, 10, bias=False)
    with torch.no_grad():
        module.weight.fill_(1.0)
        module.weight[:3] = 0.0
    facts = inspect_module(module.eval(), example((2, 10)))
    assert (facts.parameters, facts.nonzero) == (100, 70)


def test_the_dominant_layers_are_those_that_do_most_of_the_work_one_of_each_shape() -> None:
    names = [layer.name for layer in facts_of("cnn").dominant()]
    # the two of the block are alike and do nine tenths of the work
    assert names == ["block.0"]
    assert [layer.name for layer in facts_of("cnn").dominant(share=1.0)] == ["block.0", "stem.0", "head"]
    assert len(facts_of("cnn").dominant(share=1.0, most=2)) == 2


# the module afterwards


@pytest.mark.parametrize("name", ["cnn", "mlp", "lstm", "transformer"])
def test_the_module_is_left_as_it_was(name: str) -> None:
    module = small_model(name).train()
    first = next(iter(module.children()))
    first.eval()
    modes = {part: part.training for part in module.modules()}
    weights = {key: value.clone() for key, value in module.state_dict().items()}
    state = torch.random.get_rng_state()
    inspect_module(module, Example(labelled(name, 3)[0]))
    assert {part: part.training for part in module.modules()} == modes
    assert set(modes.values()) == {True, False}
    assert all(torch.equal(value, weights[key]) for key, value in module.state_dict().items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in module.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_module_that_fails_is_an_error_and_left_as_it_was_too() -> None:
    module = small_model("mlp").train()
    with pytest.raises(ModelError, match="fails on the inputs"):
        inspect_module(module, example((2, 23)))
    assert module.training
    assert not any(part._forward_hooks for part in module.modules())


@pytest.mark.parametrize("fused", [True, False])
def test_the_fused_layers_of_torch_are_left_on_or_off_as_they_were(fused: bool) -> None:
    before = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(fused)
        facts_of("mlp")
        with pytest.raises(ModelError):
            inspect_module(small_model("mlp"), example((2, 23)))
        assert torch.backends.mha.get_fastpath_enabled() is fused
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
