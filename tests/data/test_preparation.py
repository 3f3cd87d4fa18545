"""Modules as they come: wrapped, compiled, parametrized, scripted, quantized, without weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from autocompress.core.runtime import Example
from autocompress.data.copies import as_compressed
from autocompress.data.module import call
from autocompress.data.preparation import prepared
from autocompress.errors import ModelError
from autocompress.testing.networks import labelled, small_model

EXAMPLE = Example(labelled("cnn", 2)[0])
FEATURES = Example(labelled("mlp", 2)[0])


def names_of(module: nn.Module) -> list[str]:
    return [name for name, _ in module.named_modules()]


def alone(module: nn.Module, folder: Path) -> nn.Module:
    """The module in DistributedDataParallel, in a group of this process alone."""
    store = torch.distributed.FileStore(str(folder / "group"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    return nn.parallel.DistributedDataParallel(module)


@pytest.mark.parametrize("kind", ["torch.compile", "DataParallel", "AveragedModel", "DistributedDataParallel"])
def test_a_wrapped_module_is_taken_out(kind: str, tmp_path: Path) -> None:
    inner = small_model("cnn")
    wraps: dict[str, Callable[[nn.Module], nn.Module]] = {
        "torch.compile": torch.compile,
        "DataParallel": nn.DataParallel,
        "AveragedModel": torch.optim.swa_utils.AveragedModel,
        "DistributedDataParallel": lambda module: alone(module, tmp_path),
    }
    try:
        module, said = prepared(wraps[kind](inner))
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    assert names_of(module) == names_of(inner)
    assert module is inner or kind == "AveragedModel"
    assert said == (f"the model is taken out of {kind}: layers are named as inside it",)


def test_wrappers_around_each_other_are_all_taken_off() -> None:
    module, said = prepared(torch.compile(nn.DataParallel(small_model("mlp"))))
    assert names_of(module) == names_of(small_model("mlp"))
    assert said == ("the model is taken out of torch.compile and DataParallel: layers are named as inside it",)


def test_compiled_layers_are_those_that_were_compiled() -> None:
    model = small_model("cnn")
    plain = call(model, EXAMPLE)["output"]
    names = names_of(model)
    model.block[0] = torch.compile(model.block[0])
    model.block = torch.compile(model.block)
    model.head.compile()
    module, said = prepared(model)
    assert names_of(module) == names
    assert torch.equal(call(module, EXAMPLE)["output"], plain)
    assert said[0].startswith("layers compiled by torch.compile (block, block.0, head)")
    assert "_orig_mod" in dict(model.block.named_children())
    assert prepared(module) == (module, ())


def parametrized(kind: str) -> nn.Module:
    model = small_model("cnn")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        match kind:
            case "weight_norm":
                parametrizations.weight_norm(model.block[0])
                parametrizations.weight_norm(model.head)
            case "old weight_norm":
                nn.utils.weight_norm(model.block[0])
                nn.utils.weight_norm(model.head)
            case "spectral_norm":
                parametrizations.spectral_norm(model.head)
            case "old spectral_norm":
                nn.utils.spectral_norm(model.head)
            case "orthogonal":
                parametrizations.orthogonal(model.head)
            case "two on one":
                parametrizations.weight_norm(model.head)
                parametrize.register_parametrization(model.head, "bias", nn.Tanh())
            case "pruned":
                prune.l1_unstructured(model.block[0], "weight", 0.5)
                prune.l1_unstructured(model.block[0], "weight", 0.5)
    # power iterations have run
    model.train()(torch.from_numpy(EXAMPLE.arrays["input"]))
    return model


@pytest.mark.parametrize(
    ("kind", "said_of"),
    [
        ("weight_norm", "WeightNorm (block.0, head)"),
        ("old weight_norm", "WeightNorm (block.0, head)"),
        ("spectral_norm", "SpectralNorm (head)"),
        ("old spectral_norm", "SpectralNorm (head)"),
        ("orthogonal", "Orthogonal (head)"),
        ("two on one", "WeightNorm, Tanh (head)"),
        ("pruned", "pruning masks (block.0)"),
    ],
)
def test_computed_weights_are_baked_into_a_copy(kind: str, said_of: str) -> None:
    model = parametrized(kind)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    wanted = call(model, EXAMPLE)["output"]
    module, said = prepared(model)
    assert said == (f"weights computed by {said_of} are baked into plain weights of a copy, which computes the same",)
    plain = small_model("cnn")
    assert {name: tensor.shape for name, tensor in module.state_dict().items()} == {
        name: tensor.shape for name, tensor in plain.state_dict().items()
    }
    assert {type(part) for part in module.modules()} == {type(part) for part in plain.modules()}
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in module.parameters())
    assert torch.equal(call(module, EXAMPLE)["output"], wanted)
    module.load_state_dict(module.state_dict())
    # the given model still computes its weights, from the same tensors
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert model.state_dict().keys() == state.keys()
    assert all(part.training for part in model.modules())
    assert torch.equal(call(model, EXAMPLE)["output"], wanted)
    # and all other weights are shared
    assert module.stem[0].weight is model.stem[0].weight


def test_computed_weights_of_recurrent_layers_are_baked() -> None:
    model = small_model("lstm")
    example = Example(labelled("lstm", 2)[0])
    parametrizations.weight_norm(model.recurrent, "weight_hh_l0")
    module, _ = prepared(model)
    assert torch.equal(call(module, example)["output"], call(model, example)["output"])
    with torch.no_grad():
        module.recurrent.weight_hh_l0.zero_()
    assert not torch.equal(call(module, example)["output"], call(model, example)["output"])


class Counting(nn.Module):
    """Counts its calls, and subtracts a mean that every call moves."""

    def __init__(self) -> None:
        super().__init__()
        self.net = small_model("mlp")
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(24))
        self.register_buffer("undefined", torch.full((2,), torch.nan))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        self.mean = 0.9 * self.mean + 0.1 * features.mean(0)
        return self.net(features - self.mean)


def test_buffers_that_change_are_named_and_kept() -> None:
    model = Counting().train()
    buffers = dict(model.named_buffers())
    module, said = as_compressed(model, FEATURES)
    assert module is model
    assert said == (
        "forward() changes calls, mean in evaluation mode too: the file computes each call from their present values",
    )
    assert torch.equal(call(model, FEATURES)["output"], call(model, FEATURES)["output"])
    assert all(buffer is buffers[name] for name, buffer in model.named_buffers())
    assert int(model.calls) == 0
    assert not model.mean.any()


def scripted_inside() -> nn.Module:
    return nn.Sequential(nn.Linear(24, 8), torch.jit.script(nn.Sequential(nn.Linear(8, 8))))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("make", "where"),
    [
        (lambda: torch.jit.script(small_model("mlp")), "model"),
        (lambda: torch.jit.trace(small_model("mlp"), FEATURES.tensors()["input"]), "model"),
        (scripted_inside, "model, layer '1' (RecursiveScriptModule)"),
    ],
)
def test_torchscript_is_refused(make: Callable[[], nn.Module], where: str) -> None:
    with pytest.raises(ModelError, match="is a TorchScript module, whose layers cannot be changed") as caught:
        prepared(make())
    assert caught.value.where == where
    assert caught.value.hint == "Give the nn.Module that it was made from."


def dynamically_quantized() -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(small_model("mlp"), {nn.Linear}, dtype=torch.qint8)


def quantization_aware() -> nn.Module:
    model = nn.Sequential(torch.ao.quantization.QuantStub(), nn.Linear(24, 8)).train()
    model.qconfig = torch.ao.quantization.get_default_qat_qconfig("x86")
    return torch.ao.quantization.prepare_qat(model)


class OwnInt8(nn.Module):
    """Weights in int8 with a scale, as parameter or buffer."""

    def __init__(self, *, as_parameter: bool) -> None:
        super().__init__()
        weight = torch.ones(8, 24, dtype=torch.int8)
        if as_parameter:
            self.weight = nn.Parameter(weight, requires_grad=False)
        else:
            self.register_buffer("weight", weight)
        self.scale = nn.Parameter(torch.ones(8, 1))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize(
    ("make", "layer", "kind"),
    [
        (dynamically_quantized, "layers.0", "Linear of torch"),
        (quantization_aware, "0.activation_post_process", "FusedMovingAvgObsFakeQuantize of torch"),
        (lambda: nn.Sequential(OwnInt8(as_parameter=True)), "0", "'weight' is int8"),
        (lambda: nn.Sequential(OwnInt8(as_parameter=False)), "0", "'weight' is int8"),
        (lambda: small_model("mlp").to(torch.float8_e4m3fn), "layers.0", "'weight' is float8_e4m3fn"),
    ],
)
def test_quantized_models_are_refused(make: Callable[[], nn.Module], layer: str, kind: str) -> None:
    with pytest.raises(ModelError, match="is already quantized") as caught:
        prepared(make())
    assert f"layer {layer!r}" in caught.value.where
    assert caught.value.message == f"is already quantized ({kind})."
    assert caught.value.hint == "Give the float model."


def test_tables_of_bytes_and_stubs_are_no_quantization() -> None:
    model = nn.Sequential(torch.ao.quantization.QuantStub(), small_model("mlp"))
    model.register_buffer("mask", torch.ones(8, 8, dtype=torch.uint8))
    assert prepared(model) == (model, ())


@pytest.mark.parametrize(
    ("model", "what"),
    [
        (small_model("mlp").to("meta"), "has no weights: 'layers.0.weight' is on the meta device."),
        (nn.Sequential(nn.LazyLinear(8)), "has no weights yet: '0.weight' gets its shape in the first call."),
        (nn.functional.relu, "is a function, not a torch.nn.Module."),
    ],
)
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_what_has_no_weights_is_refused(model: nn.Module, what: str) -> None:
    with pytest.raises(ModelError) as caught:
        prepared(model)
    assert caught.value.message == what
