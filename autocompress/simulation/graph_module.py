"""A torch module that computes what onnxruntime computes with a file, quantized in QDQ format or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from autocompress.core.source import Array
from autocompress.errors import TechniqueError, said_by
from autocompress.runtimes.float_nodes import DEQUANTIZE, QUANTIZE
from autocompress.simulation.dynamic_weights import LookedUp, weight_inputs
from autocompress.simulation.fake_quantization import (
    ActivationQuantizer,
    BiasQuantizer,
    FakeQuantizer,
    StoredQuantizer,
)
from autocompress.simulation.graph_nodes import GraphNodes
from autocompress.simulation.integer_operators import DYNAMIC_QUANTIZE, PRODUCT
from autocompress.simulation.integer_recurrent import KIND as LSTM
from autocompress.simulation.learned_tensors import learned_tensors
from autocompress.simulation.quantizer_building import quantizer_behind, quantizers_of
from autocompress.simulation.tied_scales import tie_scales
from autocompress.simulation.write_back import written

Tensor = torch.Tensor
WITH_WEIGHT = ("Conv", "ConvTranspose", "Gemm", "MatMul", PRODUCT)


@dataclass(frozen=True)
class QuantizedLayer:
    """A node that computes with a quantized weight; `input` and `output` are names of tensors.

    `place` is the index of the node. `bias` is None where it has none, or one that is not quantized.
    """

    place: int
    operator: str
    weight: StoredQuantizer
    bias: StoredQuantizer | None
    input: str
    output: str


class GraphModule(nn.Module):
    """The graph of an ONNX file as a differentiable module.

    Floating weights and biases are parameters. A quantized weight behind DequantizeLinear is a float parameter that is
    rounded to the file's scale on the way (see `StoredQuantizer`), one of dynamic int8 is too (`DynamicWeight`); pairs
    of QuantizeLinear and DequantizeLinear round activations (`ActivationQuantizer`). Whole numbers, such as shapes, are
    computed exactly.

    Called with the file's inputs by name, it gives the outputs by name.

    Raises:
        TechniqueError: when the graph has an operator, or a kind of quantization, that is not covered.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__()
        self.graph = GraphNodes(model)
        arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        self._by_place = quantizers_of(self.graph, arrays)
        self._weight_inputs = weight_inputs(self.graph, arrays)
        dynamic = (given.weight for given in self._weight_inputs.values())
        self.quantizers = nn.ModuleList(dict.fromkeys((*self._by_place.values(), *dynamic)))
        self._stored: dict[str, str] = {}
        learned = learned_tensors(model.graph)
        read = {*self._read_as_stored(), *self.graph.outputs}
        for number, (name, array) in enumerate(arrays.items()):
            if name not in read:
                continue
            tensor = torch.from_numpy(np.array(array))
            self._stored[name] = f"stored{number}"
            # masks that hold minus infinity are added like biases
            if name in learned and bool(torch.isfinite(tensor).all()):
                self.register_parameter(self._stored[name], nn.Parameter(tensor))
            else:
                self.register_buffer(self._stored[name], tensor)

    def _read_as_stored(self) -> Iterator[str]:
        """The names that nodes read which neither quantize nor get a weight from a quantizer."""
        for place, operator in enumerate(self.graph.operators):
            for number, name in enumerate(self.graph.nodes[place].input):
                if operator is not None and (place, number) not in self._weight_inputs:
                    yield name

    @property
    def has_dynamic_ranges(self) -> bool:
        """True where activations get their ranges from the values of each call."""
        return any(node.op_type in (DYNAMIC_QUANTIZE, LSTM) for node in self.graph.nodes)

    # computing

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        """The file's outputs, by name."""
        return self.compute(inputs, self.graph.outputs)

    def compute(self, known: Mapping[str, Tensor], wanted: Sequence[str]) -> dict[str, Tensor]:
        """The wanted tensors of the graph from others that are known, by the nodes between them alone.

        Raises:
            TechniqueError: when they need an input of the graph that is not given, or a node fails.
        """
        values = dict(known)
        for place, done in self.graph.plan(frozenset(known), tuple(wanted)):
            made = self._run(place, values)
            values |= {name: value for name, value in zip(self.graph.nodes[place].output, made, strict=False) if name}
            for name in done:
                values.pop(name, None)
        return {name: self._value(name, values) for name in wanted}

    def _value(self, name: str, values: Mapping[str, Tensor]) -> Tensor:
        if name in values:
            return values[name]
        if name not in self._stored:
            raise TechniqueError(f"the input {name!r} of the graph is not given.", where="simulation")
        found = getattr(self, self._stored[name])
        assert isinstance(found, Tensor)
        return found

    def _input(self, place: int, number: int, values: Mapping[str, Tensor]) -> Tensor | None:
        """An input of a node; None where it is left out."""
        weight, name = self._weight_inputs.get((place, number)), self.graph.nodes[place].input[number]
        if weight is not None:
            return weight.value()
        return self._value(name, values) if name else None

    def _run(self, place: int, values: Mapping[str, Tensor]) -> Sequence[Tensor]:
        """The outputs of a node."""
        graph, node = self.graph, self.graph.nodes[place]
        operator = graph.operators[place]
        if operator is None:
            return (self._quantized(place, values),)
        given = [self._input(place, number, values) for number in range(len(node.input))]
        try:
            made = operator(graph.calls[place], *given)
        except TechniqueError as error:
            raise graph.error(place, error.message) from error
        except (RuntimeError, ValueError, TypeError, IndexError, KeyError) as error:
            raise graph.error(place, f"the simulation of {node.op_type} in torch fails: {said_by(error)}") from error
        return made if isinstance(made, tuple) else (made,)

    def _quantized(self, place: int, values: Mapping[str, Tensor]) -> Tensor:
        node, quantizer = self.graph.nodes[place], self._by_place[place]
        if isinstance(quantizer, StoredQuantizer):
            found = quantizer()
            assert isinstance(found, Tensor)
            return found
        given = self._value(node.input[0], values)
        if isinstance(quantizer, LookedUp):
            return quantizer.dequantize(given)
        assert isinstance(quantizer, ActivationQuantizer)
        return quantizer.quantize(given) if node.op_type == QUANTIZE else quantizer.dequantize(given)

    # what can be learned and written

    def layers(self) -> list[QuantizedLayer]:
        """The nodes that compute with a quantized weight, in the order of the graph."""
        found = []
        for place, node in enumerate(self.graph.nodes):
            dynamic = [self._weight_inputs.get((place, number)) for number in range(len(node.input))]
            weights = [given.weight for given in dynamic if given is not None and not given.is_scale]
            found += [
                QuantizedLayer(place, node.op_type, weight, None, node.input[0], node.output[0]) for weight in weights
            ]
            if weights or node.op_type not in WITH_WEIGHT:
                continue
            given = [self.quantizer_behind(name) for name in node.input]
            bias = given[2] if len(given) > 2 and isinstance(given[2], StoredQuantizer) else None
            if isinstance(given[1], StoredQuantizer):
                found.append(QuantizedLayer(place, node.op_type, given[1], bias, node.input[0], node.output[0]))
        return found

    def quantizer_behind(self, name: str) -> FakeQuantizer | None:
        """The quantizer of the DequantizeLinear node that gives a tensor; None where another node gives it."""
        return quantizer_behind(self.graph, self._by_place, name)

    def stored_quantizers(self) -> list[StoredQuantizer]:
        """The quantized weights and biases, in the order of the graph."""
        return [module for module in self.quantizers if isinstance(module, StoredQuantizer)]

    def stored_weights(self) -> dict[str, StoredQuantizer]:
        """The quantized weights of the layers by the names of their stored tensors."""
        found: dict[str, StoredQuantizer] = {}
        weights = {layer.weight for layer in self.layers()}
        for place, node in enumerate(self.graph.nodes):
            behind = self._by_place.get(place)
            if isinstance(behind, StoredQuantizer) and behind in weights:
                found[node.input[0]] = behind
            for number, name in enumerate(node.input):
                given = self._weight_inputs.get((place, number))
                if given is not None and not given.is_scale:
                    found[name] = given.weight
        return found

    def activation_quantizers(self) -> list[ActivationQuantizer]:
        """The quantizers of activations, in the order of the graph."""
        return [module for module in self.quantizers if isinstance(module, ActivationQuantizer)]

    def enable_quantization(self, *, weights: bool = True, activations: bool = True) -> None:
        """Round weights and activations, or compute with their float values instead."""
        for stored in self.stored_quantizers():
            stored.enabled = weights
        for activation in self.activation_quantizers():
            activation.enabled = activations

    def learn_scales(self, *, weights: bool = True, activations: bool = True) -> None:
        """Give the scales a gradient, as in Esser et al.; those of biases follow from the others.

        Scales of activations that are equal around an operator which computes nothing stay equal.
        """
        if activations:
            tie_scales(self.graph, self._by_place)
        for stored in self.stored_quantizers():
            stored.scale.requires_grad_(weights and not isinstance(stored, BiasQuantizer))
        for activation in self.activation_quantizers():
            activation.scale.requires_grad_(activations)

    def write_to(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """A copy of the model that this was made from, with the numbers as they are now.

        Where nothing was learned it is the model, byte for byte.
        """
        changes: dict[tuple[int, int], Array] = {}
        for place, node in enumerate(self.graph.nodes):
            if node.op_type in (QUANTIZE, DEQUANTIZE):
                quantizer = self._by_place[place]
                changes[place, 1] = quantizer.current_scale().cpu().numpy()
                if isinstance(quantizer, StoredQuantizer):
                    changes[place, 0] = quantizer.whole_numbers()
                continue
            for number, name in enumerate(node.input):
                if (place, number) in self._weight_inputs:
                    changes[place, number] = self._weight_inputs[place, number].stored()
                    continue
                value = getattr(self, self._stored[name]) if name in self._stored else None
                if isinstance(value, nn.Parameter):
                    changes[place, number] = value.detach().cpu().numpy()
        return written(model, changes)
