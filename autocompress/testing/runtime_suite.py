"""Contract suite for runtimes: inherit `RuntimeSuite` in a class named `Test...` and set `runtime`."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from autocompress.core.artifact import Artifact
from autocompress.core.profile import Profile, RuntimeProfile
from autocompress.core.runtime import Example, Runtime, align
from autocompress.core.source import Array
from autocompress.data.module import call
from autocompress.devices.meter import program
from autocompress.devices.meter.program import backend_in
from autocompress.errors import ArtifactError, ExportError, ModelError, RuntimeFailureError
from autocompress.runtimes import runtime_of
from autocompress.testing.networks import SMALL_MODELS, Exported, Exports, labelled, small_model
from autocompress.testing.python_processes import python_process, run_elsewhere, run_python
from autocompress.testing.several_outputs import (
    IMAGE,
    SIGNALS,
    STEPS,
    Detector,
    NestedLists,
    StatefulLstm,
    WithModelOutput,
)

EXPORT_ELSEWHERE = """
import sys
from importlib import import_module
from pathlib import Path
from autocompress.testing.networks import labelled, small_model
from autocompress.core.runtime import Example

module, name, model, destination = sys.argv[1:]
runtime = getattr(import_module(module), name)()
artifact = runtime.export(small_model(model), Example(labelled(model, 4)[0]), Path(destination))
print(artifact.hash)
"""

EXPORT_ALOUD = """
import sys
from importlib import import_module
from pathlib import Path
from autocompress.testing.runtime_suite import BranchesOnValues, numbers
from autocompress.testing.networks import labelled, small_model
from autocompress.errors import ExportError
from autocompress.core.runtime import Example

_, module, name, destination = sys.argv
runtime = getattr(import_module(module), name)()
runtime.export(small_model("mlp"), Example(labelled("mlp", 4)[0]), Path(destination))
try:
    runtime.export(BranchesOnValues(), Example((numbers(4, 6),)), Path(destination))
except ExportError:
    print("exported and refused")
"""

LOAD_IN_THE_METER = """
import importlib.util, sys

_, program, backend, artifact = sys.argv
spec = importlib.util.spec_from_file_location("program", program)
meter = importlib.util.module_from_spec(spec)
spec.loader.exec_module(meter)
meter.backend_in(backend)(1, {}).load(artifact)
print(sorted({name.partition(".")[0] for name in sys.modules} & {"torch", "onnx", "scipy", "pandas", "autocompress"}))
"""

WIDTH = 6


class Calling(nn.Module):
    """A module that calls a function with itself and the inputs.

    Keyword arguments of the constructor are its layers.
    """

    def __init__(self, function: Callable[..., Any], **layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(self, *inputs)


class ByName(nn.Module):
    """A module with two inputs that only their names tell apart."""

    def __init__(self) -> None:
        super().__init__()
        self.left_layer, self.right_layer = nn.Linear(WIDTH, 3), nn.Linear(WIDTH, 3)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return self.left_layer(left) - 2.0 * self.right_layer(right)


class BranchesOnValues(nn.Module):
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features if features.sum() > 0 else -features


class HasNoTranslation(nn.Module):
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        squares = features[:, :4].reshape(-1, 2, 2)
        return torch.linalg.eigvals(squares).real


class AddsNoise(nn.Module):
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features + torch.rand_like(features)


def linear() -> nn.Linear:
    """A linear layer, the same every time."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Linear(WIDTH, 3)


def numbers(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def eager(module: nn.Module, example: Example) -> tuple[Array, ...]:
    """Outputs of the module itself, without any runtime."""
    with torch.no_grad():
        inputs = example.inputs
        if isinstance(inputs, dict):
            result = module(**{name: torch.from_numpy(array) for name, array in inputs.items()})
        else:
            result = module(*(torch.from_numpy(array) for array in inputs))
    if isinstance(result, torch.Tensor):
        result = (result,)
    values = result.values() if isinstance(result, Mapping) else result
    return tuple(value.numpy() for value in values)


def assert_same_numbers(found: tuple[Array, ...], wanted: tuple[Array, ...]) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


def state_of(module: nn.Module) -> dict[str, Any]:
    """Everything in a module that an export could disturb."""
    return {
        "training": [part.training for part in module.modules()],
        "hooks": [
            (len(part._forward_hooks), len(part._forward_pre_hooks), len(part._backward_hooks))
            for part in module.modules()
        ],
        "values": {name: value.clone() for name, value in module.state_dict().items()},
        "identities": {name: id(value) for name, value in module.named_parameters()},
        "gradients": {name: (p.requires_grad, p.grad) for name, p in module.named_parameters()},
        "attributes": [sorted(vars(part)) for part in module.modules()],
    }


class RuntimeSuite:
    """Tests of the contract of `Runtime` and `Session`."""

    runtime: ClassVar[type[Runtime]]

    @pytest.fixture(params=SMALL_MODELS)
    def exported(self, request: pytest.FixtureRequest, exports: Exports) -> Exported:
        return exports(self.runtime(), request.param)

    @pytest.fixture
    def mlp(self, exports: Exports) -> Exported:
        return exports(self.runtime(), "mlp")

    def export(self, module: nn.Module, inputs: Any, folder: Path) -> Artifact:
        return self.runtime().export(module.eval(), Example(inputs), folder / f"made{self.runtime.suffix}")

    def run(self, artifact: Artifact, example: Example, threads: int = 1) -> tuple[Array, ...]:
        session = self.runtime().load(artifact, threads, {})
        return session.run(align(example.inputs, artifact.inputs))

    # export

    def test_an_export_is_one_file(self, exported: Exported) -> None:
        artifact = exported.artifact
        assert artifact.files == (artifact.entry,)
        assert [path.name for path in artifact.root.iterdir()] == [artifact.entry]
        assert artifact.format == self.runtime.format

    def test_layers_to_keep_in_float_change_nothing_but_some_bytes(self, mlp: Exported, tmp_path: Path) -> None:
        marked = self.runtime().export(mlp.module, mlp.example, tmp_path / "made", ["layers.2"])
        assert 0 <= marked.size_bytes - mlp.artifact.size_bytes < 100
        pairs = zip(self.run(marked, mlp.example), self.run(mlp.artifact, mlp.example), strict=True)
        assert all(np.array_equal(found, wanted) for found, wanted in pairs)

    def test_inputs_keep_the_names_and_shapes_of_the_example(self, exported: Exported) -> None:
        arrays = exported.example.arrays
        assert {spec.name: spec.dtype for spec in exported.artifact.inputs} == {
            name: str(array.dtype) for name, array in arrays.items()
        }
        for spec in exported.artifact.inputs:
            sizes = zip(spec.shape[1:], arrays[spec.name].shape[1:], strict=True)
            assert spec.shape[0] is None
            assert all(found in (None, wanted) for found, wanted in sizes)

    @pytest.mark.parametrize("batch", [1, 3, 7])
    def test_any_batch_gives_what_the_module_gives(self, exported: Exported, batch: int) -> None:
        assert exported.artifact.fixed_batch is None
        example = Example(labelled(_name_of(exported), batch, seed=batch)[0])
        assert_same_numbers(self.run(exported.artifact, example), eager(exported.module, example))

    def test_threads_leave_the_numbers_alone(self, exported: Exported) -> None:
        one = self.run(exported.artifact, exported.example, threads=1)
        assert_same_numbers(self.run(exported.artifact, exported.example, threads=2), one)

    @pytest.mark.parametrize("training", [True, False])
    def test_the_module_is_left_as_it_was(self, tmp_path: Path, *, training: bool) -> None:
        module = small_model("cnn").train(training)
        module.block.eval()  # as a network with frozen statistics is trained
        module.stem.register_forward_hook(lambda _module, _inputs, _outputs: None)
        module.head.weight.requires_grad_(requires_grad=False)
        before = state_of(module)
        self.runtime().export(module, Example(labelled("cnn", 2)[0]), tmp_path / "made")
        after = state_of(module)
        values_before, values_after = before.pop("values"), after.pop("values")
        assert after == before
        assert list(values_after) == list(values_before)
        assert all(torch.equal(values_after[name], value) for name, value in values_before.items())

    def test_the_module_is_left_as_it_was_when_the_export_fails(self, tmp_path: Path) -> None:
        module = Calling(lambda self, x: self.body(self.layer(x)), layer=linear(), body=BranchesOnValues())
        module.train()
        before = state_of(module)
        with pytest.raises(ExportError):
            self.runtime().export(module, Example((numbers(4, WIDTH),)), tmp_path / "made")
        after = state_of(module)
        assert (after["training"], after["hooks"]) == (before["training"], before["hooks"])

    def test_a_module_in_training_mode_is_exported_for_inference(self, tmp_path: Path, mlp: Exported) -> None:
        dropping = nn.Sequential(small_model("mlp"), nn.Dropout(0.5)).train()
        artifact = self.runtime().export(dropping, mlp.example, tmp_path / "made")
        assert_same_numbers(self.run(artifact, mlp.example), eager(mlp.module, mlp.example))

    def test_the_same_module_gives_the_same_bytes(self, exported: Exported, tmp_path: Path) -> None:
        fresh = small_model(_name_of(exported))
        again = self.runtime().export(fresh, exported.example, tmp_path / "another name")
        assert again.path.read_bytes() == exported.artifact.path.read_bytes()
        assert again.hash == exported.artifact.hash

    @pytest.mark.parametrize("name", ["cnn", "transformer"])
    def test_another_process_gives_the_same_bytes(self, exports: Exports, tmp_path: Path, name: str) -> None:
        runtime = self.runtime
        found = run_elsewhere(
            EXPORT_ELSEWHERE,
            runtime.__module__,
            runtime.__name__,
            name,
            tmp_path / "made",
        )
        assert found == exports(runtime(), name).artifact.hash

    def test_other_weights_give_another_hash(self, mlp: Exported, tmp_path: Path) -> None:
        changed = copy.deepcopy(mlp.module)
        with torch.no_grad():
            next(changed.parameters())[0, 0] += 1.0
        assert self.runtime().export(changed, mlp.example, tmp_path / "made").hash != mlp.artifact.hash

    def test_the_batch_of_the_example_does_not_matter(self, mlp: Exported, tmp_path: Path) -> None:
        single = self.runtime().export(mlp.module, mlp.example.with_batch(1), tmp_path / "made")
        assert single.hash == mlp.artifact.hash

    def test_a_module_that_takes_one_batch_size_is_bound_to_it(self, tmp_path: Path) -> None:
        module = Calling(lambda self, x: self.layer(x.reshape(4, WIDTH)), layer=linear())
        artifact = self.export(module, (numbers(4, WIDTH),), tmp_path)
        assert artifact.fixed_batch == 4
        example = Example((numbers(4, WIDTH, seed=1),))
        assert_same_numbers(self.run(artifact, example), eager(module, example))

    def test_a_module_that_takes_single_items_only_is_bound_to_a_batch_of_one(self, tmp_path: Path) -> None:
        module = Calling(lambda self, x: self.layer(x.reshape(1, WIDTH)), layer=linear())
        assert self.export(module, (numbers(1, WIDTH),), tmp_path).fixed_batch == 1

    def test_a_free_batch_is_refused_where_the_module_does_something_else_at_another_size(self, tmp_path: Path) -> None:
        module = Calling(lambda self, x: self.layer(x) * (2.0 if len(x) > 2 else 1.0), layer=linear())
        example = Example((numbers(1, WIDTH),))
        with suppress(ExportError):
            artifact = self.export(module, (numbers(4, WIDTH),), tmp_path)
            if artifact.fixed_batch is None:
                assert_same_numbers(self.run(artifact, example), eager(module, example))

    # kinds of inputs and outputs

    def test_several_inputs_keep_their_order(self, tmp_path: Path) -> None:
        module = Calling(lambda self, x, y: self.layer(x) - 2.0 * y[:, :3], layer=linear())
        example = Example((numbers(4, WIDTH), numbers(4, WIDTH + 2, seed=1)))
        artifact = self.export(module, example.inputs, tmp_path)
        # the module takes any number of columns in the second one
        assert [spec.shape[1] for spec in artifact.inputs] in ([WIDTH, WIDTH + 2], [WIDTH, None])
        assert_same_numbers(self.run(artifact, example.with_batch(3)), eager(module, example.with_batch(3)))

    def test_dict_inputs_go_by_name_whatever_their_order(self, tmp_path: Path) -> None:
        module = ByName()
        example = Example({"right": numbers(4, WIDTH), "left": numbers(4, WIDTH, seed=1)})
        artifact = self.export(module, example.inputs, tmp_path)
        swapped = Example({"left": example.arrays["left"], "right": example.arrays["right"]})
        wanted = eager(module, example)
        assert_same_numbers(self.run(artifact, example), wanted)
        assert_same_numbers(self.run(artifact, swapped), wanted)

    @pytest.mark.parametrize("name", ["mean", "relu", "linear"])
    def test_an_output_may_have_the_name_of_what_the_exporter_calls_a_step_inside(
        self, tmp_path: Path, name: str
    ) -> None:
        def forward(self: Any, features: torch.Tensor) -> Any:
            return {name: torch.relu(self.layer(features)).mean(1) + 1.0, "other": features + 2.0}

        artifact = self.export(Calling(forward, layer=linear()), (numbers(2, WIDTH),), tmp_path)
        assert [spec.name for spec in artifact.outputs] == [name, "other"]

    def test_dict_outputs_keep_their_names_and_order(self, tmp_path: Path) -> None:
        module = Calling(lambda self, x: {"b": self.layer(x), "a": x.mean(1), "note": "text"}, layer=linear())
        artifact = self.export(module, (numbers(4, WIDTH),), tmp_path)
        assert [spec.name for spec in artifact.outputs] == ["b", "a"]
        example = Example((numbers(3, WIDTH, seed=1),))
        with torch.no_grad():
            result = module(torch.from_numpy(numbers(3, WIDTH, seed=1)))
        assert_same_numbers(self.run(artifact, example), (result["b"].numpy(), result["a"].numpy()))

    @pytest.mark.parametrize(
        ("make", "shape", "names"),
        [
            (Detector, IMAGE, ["logits", "pred_boxes"]),
            (StatefulLstm, (STEPS, SIGNALS), ["0", "1.0", "1.1"]),
            (NestedLists, IMAGE, ["0.0", "0.1", "1.0", "1.1"]),
            (WithModelOutput, (6,), ["logits", "hidden_states.0", "hidden_states.1"]),
        ],
    )
    def test_all_outputs_ship_with_a_free_batch(
        self, tmp_path: Path, make: type[nn.Module], shape: tuple[int, ...], names: list[str]
    ) -> None:
        torch.manual_seed(0)
        module = make().eval()
        artifact = self.export(module, (numbers(2, *shape),), tmp_path)
        assert [spec.name for spec in artifact.outputs] == names
        assert artifact.fixed_batch is None
        other = Example((numbers(5, *shape, seed=1),))
        assert_same_numbers(self.run(artifact, other), tuple(v.detach().numpy() for v in call(module, other).values()))

    def test_scalars_and_outputs_without_a_batch_leave_the_batch_free(self, tmp_path: Path) -> None:
        def forward(self: Any, x: torch.Tensor) -> Any:
            return {"logits": self.layer(x), "aux_loss": x.mean(), "anchors": self.layer.weight[:2], "count": 3}

        module = Calling(forward, layer=linear())
        artifact = self.export(module, (numbers(2, WIDTH),), tmp_path)
        assert artifact.fixed_batch is None
        assert [len(spec.shape) for spec in artifact.outputs] == [2, 0, 2]
        other = Example((numbers(5, WIDTH, seed=1),))
        assert_same_numbers(self.run(artifact, other), tuple(v.detach().numpy() for v in call(module, other).values()))

    def test_an_output_may_be_an_input_or_another_output(self, tmp_path: Path) -> None:
        def forward(self: Any, x: torch.Tensor) -> Any:
            hidden = self.layer(x)
            return {"hidden": (x, hidden), "last": hidden, "whole": (x * 2).long(), "right": x > 0}

        module = Calling(forward, layer=linear())
        artifact = self.export(module, (numbers(4, WIDTH),), tmp_path)
        assert [spec.name for spec in artifact.outputs] == ["hidden.0", "hidden.1", "last", "whole", "right"]
        other = Example((numbers(3, WIDTH, seed=1),))
        assert_same_numbers(self.run(artifact, other), tuple(v.detach().numpy() for v in call(module, other).values()))

    def test_an_output_with_the_name_of_an_input_gets_another(self, tmp_path: Path) -> None:
        class Passing(nn.Module):
            def forward(self, values: torch.Tensor) -> Any:
                return {"values": values * 2.0, "logits": values + 1.0}

        artifact = self.export(Passing(), {"values": numbers(4, WIDTH)}, tmp_path)
        assert [spec.name for spec in artifact.outputs] == ["values_out", "logits"]

    def test_the_output_that_differs_is_named(self, tmp_path: Path) -> None:
        def forward(self: Any, x: torch.Tensor) -> Any:
            return {"logits": 1000.0 * self.layer(x), "boxes": 1e-3 * nn.functional.dropout(x, 0.5, training=True)}

        with pytest.raises(ExportError, match="output 'boxes' differs by"):
            self.export(Calling(forward, layer=linear()), (numbers(4, WIDTH),), tmp_path)

    def test_tuple_outputs_keep_their_order(self, tmp_path: Path) -> None:
        module = Calling(lambda self, x: (self.layer(x), x * 2.0, None), layer=linear())
        artifact = self.export(module, (numbers(4, WIDTH),), tmp_path)
        example = Example((numbers(3, WIDTH, seed=1),))
        wanted = (*eager(module.layer, example), 2.0 * numbers(3, WIDTH, seed=1))
        assert_same_numbers(self.run(artifact, example), wanted)

    def test_a_module_without_tensors_among_its_outputs_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="returns a str without tensors"):
            self.export(Calling(lambda _self, _x: "text"), (numbers(2, WIDTH),), tmp_path)

    # modules that cannot be exported

    def test_the_layer_with_a_branch_on_values_is_named(self, tmp_path: Path) -> None:
        body = nn.Sequential(nn.Tanh(), nn.Sequential(nn.Tanh(), BranchesOnValues()), nn.ReLU())
        module = Calling(lambda self, x: self.body(self.layer(x)), layer=linear(), body=body)
        with pytest.raises(ExportError, match="cannot be exported") as caught:
            self.export(module, (numbers(4, WIDTH),), tmp_path)
        assert "'body.1.1' (BranchesOnValues)" in caught.value.where
        assert caught.value.hint

    def test_the_layer_with_an_operator_that_has_no_translation_is_named(self, tmp_path: Path) -> None:
        body = nn.Sequential(nn.ReLU(), nn.Sequential(nn.ReLU(), HasNoTranslation()), nn.ReLU())
        module = Calling(lambda self, x: self.body(x * 2.0), body=body)
        with pytest.raises(ExportError, match="cannot be exported") as caught:
            self.export(module, (numbers(4, WIDTH),), tmp_path)
        assert "'body.1.1' (HasNoTranslation)" in caught.value.where
        assert "linalg_eig" in caught.value.message

    def test_without_a_layer_inside_the_model_itself_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ExportError, match="cannot be exported") as caught:
            self.export(BranchesOnValues(), (numbers(4, WIDTH),), tmp_path)
        assert caught.value.where == "model (BranchesOnValues)"

    def test_nothing_is_printed(self, tmp_path: Path) -> None:
        runtime = self.runtime
        done = python_process(EXPORT_ALOUD, runtime.__module__, runtime.__name__, tmp_path / "made")
        assert done.returncode == 0
        assert done.stdout == "exported and refused\n"
        assert done.stderr == ""

    @pytest.mark.parametrize(
        "module",
        [
            Calling(lambda self, x: self.noise(x), noise=AddsNoise()),
            Calling(lambda _self, x: nn.functional.dropout(x, 0.5, training=True)),
        ],
        ids=["noise", "dropout that stays on"],
    )
    def test_randomness_in_forward_is_refused(self, tmp_path: Path, module: nn.Module) -> None:
        with pytest.raises(ExportError, match="differs by") as caught:
            self.export(module, (numbers(4, WIDTH),), tmp_path)
        assert "randomness" in caught.value.hint

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_outputs_that_are_not_finite_are_refused(self, tmp_path: Path, value: float) -> None:
        module = Calling(lambda self, x: {"scores": self.layer(x)}, layer=linear())
        module.layer.weight.data[1, 2] = value
        with pytest.raises(ModelError, match="'scores' that is not finite") as caught:
            self.export(module, (numbers(4, WIDTH),), tmp_path)
        assert "weights" in caught.value.hint

    def test_weights_that_are_not_finite_are_named(self, tmp_path: Path) -> None:
        module = Calling(lambda self, x: self.body(x), body=nn.Sequential(nn.ReLU(), linear()))
        module.body[1].weight.data[1, 2] = float("nan")
        with pytest.raises(ModelError) as caught:
            self.export(module, (numbers(4, WIDTH),), tmp_path)
        assert "body.1.weight" in str(caught.value)

    def test_inputs_that_do_not_fit_the_module_are_refused_with_their_shapes(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"fails on the inputs \(input \(4, 7\)"):
            self.export(linear(), (numbers(4, WIDTH + 1),), tmp_path)

    # read

    def test_what_was_exported_is_read_back(self, exported: Exported) -> None:
        found = self.runtime().read(exported.artifact.path)
        assert found == exported.artifact
        assert found.hash == exported.artifact.hash
        assert found.size_bytes == exported.artifact.path.stat().st_size

    @pytest.fixture(
        params=[
            "missing",
            "empty",
            "half",
            "last byte missing",
            "text",
            pytest.param("json"),
            "zeros",
            "directory",
        ]
    )
    def no_artifact(self, request: pytest.FixtureRequest, mlp: Exported, tmp_path: Path) -> Path:
        whole = mlp.artifact.path.read_bytes()
        contents: dict[str, bytes] = {
            "empty": b"",
            "half": whole[: len(whole) // 2],
            "last byte missing": whole[:-1],
            "text": b"This is no model.\n" * 20,
            "json": b'{"model": "none"}',
            "zeros": bytes(1000),
        }
        suffix = f".{request.param}" if request.param in ("text", "json") else self.runtime.suffix
        path = tmp_path / f"model{suffix}"
        if request.param == "directory":
            path.mkdir()
        elif request.param in contents:
            path.write_bytes(contents[request.param])
        return path

    def test_what_is_no_artifact_is_refused_with_its_path(self, no_artifact: Path) -> None:
        with pytest.raises(ArtifactError) as caught:
            self.runtime().read(no_artifact)
        assert caught.value.where == str(no_artifact)
        assert "\n" not in str(caught.value)

    # sessions

    def bad_inputs(self) -> Iterator[tuple[str, dict[str, Array]]]:
        yield "no input", {}
        yield "another name", {"other": numbers(2, 24)}
        yield "another shape", {"input": numbers(2, 25)}
        yield "another dtype", {"input": numbers(2, 24).astype(np.int64)}

    def test_inputs_that_do_not_fit_are_a_runtime_failure(self, mlp: Exported) -> None:
        session = self.runtime().load(mlp.artifact, 1, {})
        for what, inputs in self.bad_inputs():
            with pytest.raises(RuntimeFailureError) as caught:
                session.run(inputs)
            assert caught.value.exit_code == 4, what
            assert caught.value.where == str(mlp.artifact.path), what

    def test_a_session_survives_inputs_that_do_not_fit(self, mlp: Exported) -> None:
        session = self.runtime().load(mlp.artifact, 1, {})
        with pytest.raises(RuntimeFailureError):
            session.run({})
        found = session.run(align(mlp.example.inputs, mlp.artifact.inputs))
        assert_same_numbers(found, eager(mlp.module, mlp.example))

    def test_a_damaged_artifact_is_refused_at_load(self, mlp: Exported, tmp_path: Path) -> None:
        (tmp_path / mlp.artifact.entry).write_bytes(mlp.artifact.path.read_bytes()[:-100])
        with pytest.raises(RuntimeFailureError, match="is refused by"):
            self.runtime().load(replace(mlp.artifact, root=tmp_path), 1, {})

    def test_the_same_inputs_give_the_same_bits_again(self, exported: Exported) -> None:
        first = self.run(exported.artifact, exported.example)
        second = self.run(exported.artifact, exported.example)
        assert [array.tobytes() for array in first] == [array.tobytes() for array in second]

    # measuring

    def test_the_backend_of_the_meter_gives_what_a_session_gives(self, mlp: Exported) -> None:
        backend = backend_in(str(self.runtime.meter_backend))(1, {})
        feed = align(mlp.example.inputs, mlp.artifact.inputs)
        session = self.runtime().load(mlp.artifact, 1, {})
        call = backend.load(str(mlp.artifact.path))
        # the same call again and again, as it is timed
        for _ in range(2):
            assert_same_numbers(tuple(call(feed)), session.run(feed))
        assert backend.version in self.runtime().versions.values()

    def test_the_backend_of_the_meter_needs_nothing_of_this_package_or_of_torch(self, mlp: Exported) -> None:
        heavy = run_python(
            LOAD_IN_THE_METER, program.__file__, self.runtime.meter_backend, mlp.artifact.path, PYTHONPATH=""
        )
        assert heavy == "[]"

    @pytest.mark.parametrize("threads", [1, 2])
    def test_the_backend_of_the_meter_takes_threads(self, mlp: Exported, threads: int) -> None:
        backend = backend_in(str(self.runtime.meter_backend))(threads, {})
        feed = align(mlp.example.inputs, mlp.artifact.inputs)
        assert_same_numbers(tuple(backend.load(str(mlp.artifact.path))(feed)), eager(mlp.module, mlp.example))

    def test_the_slowest_operators_come_with_their_shares_of_the_time(self, exported: Exported) -> None:
        feed = align(exported.example.inputs, exported.artifact.inputs)
        found = self.runtime().slowest_operators(exported.artifact, feed, 1, {})
        shares = [share for _, _, share in found]
        assert found
        assert shares == sorted(shares, reverse=True)
        assert sum(shares) == pytest.approx(1.0)
        assert all(name and kind and share >= 0 for name, kind, share in found)

    # its identity and its description of artifacts

    def test_it_tells_what_it_is(self) -> None:
        runtime = self.runtime
        assert runtime.name
        assert runtime.format
        assert runtime.suffix.startswith(".")
        assert runtime.meter_backend.is_file()

    def test_a_profile_names_it(self) -> None:
        profile = Profile("there", runtime=RuntimeProfile(name=self.runtime.name))
        assert type(runtime_of(profile)) is self.runtime

    def test_files_with_its_suffix_are_read(self, mlp: Exported, tmp_path: Path) -> None:
        path = tmp_path / f"model{self.runtime.suffix}"
        artifact = self.runtime().export(mlp.module, mlp.example, path)
        assert artifact.path == path
        assert self.runtime().read(path) == artifact

    def test_the_largest_tensors_come_first_with_their_bytes(self, mlp: Exported) -> None:
        found = self.runtime().largest_tensors(mlp.artifact)
        sizes = [size for _, size in found]
        assert sizes == sorted(sizes, reverse=True)
        # the widest layer's weights in float
        assert sizes[0] == 4 * 64 * 64
        assert all(name for name, _ in found)
        assert sum(sizes) <= mlp.artifact.size_bytes

    def test_contents_count_the_weights_that_ship(self, mlp: Exported) -> None:
        contents = self.runtime().contents(mlp.artifact)
        weights = [parameter.detach().numpy() for parameter in mlp.module.parameters()]
        assert contents.parameters == sum(array.size for array in weights)
        assert contents.nonzero == sum(np.count_nonzero(array) for array in weights)
        assert sum(contents.operators.values()) >= 3

    def test_contents_tell_zeros_from_other_weights(self, mlp: Exported, tmp_path: Path) -> None:
        sparse = copy.deepcopy(mlp.module)
        with torch.no_grad():
            sparse.layers[2].weight[:32] = 0.0
        artifact = self.runtime().export(sparse, mlp.example, tmp_path / "made")
        before, after = self.runtime().contents(mlp.artifact), self.runtime().contents(artifact)
        assert after.parameters == before.parameters
        assert after.nonzero == before.nonzero - 32 * 64

    def test_versions_are_told(self) -> None:
        versions = self.runtime().versions
        assert versions
        assert all(name and text[0].isdigit() for name, text in versions.items())

    def test_the_hash_is_that_of_the_content(self, mlp: Exported, tmp_path: Path) -> None:
        copied = mlp.artifact.copy_to(tmp_path / "elsewhere")
        assert copied.hash == mlp.artifact.hash
        content = hashlib.sha256(mlp.artifact.path.read_bytes()).digest()
        assert hashlib.sha256(copied.path.read_bytes()).digest() == content


def _name_of(exported: Exported) -> str:
    return next(name for name, (kind, _) in SMALL_MODELS.items() if isinstance(exported.module, kind))
