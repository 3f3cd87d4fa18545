"""The nodes of an ONNX graph as the simulation goes through them."""

from __future__ import annotations

from collections import Counter

import onnx

from autocompress.errors import TechniqueError
from autocompress.runtimes.float_nodes import DEQUANTIZE, QUANTIZE
from autocompress.runtimes.node_names import layer_of
from autocompress.runtimes.onnx_normalization import opset_of
from autocompress.simulation.node_call import NodeCall, Operator
from autocompress.simulation.operators import OF_RUNTIME, OPERATORS

DOMAINS, MICROSOFT = ("", "ai.onnx"), "com.microsoft"
# a node's index with the tensors that no later node reads
Plan = list[tuple[int, list[str]]]


class GraphNodes:
    """Nodes with their calls, operators and labels; `operators` has None for those of quantization.

    A label is what a node is called in an error: its layer where the file names it, else its operator and number.

    Raises:
        TechniqueError: when an operator is not covered.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.nodes = list(model.graph.node)
        stored = {tensor.name for tensor in model.graph.initializer}
        self.inputs = tuple(value.name for value in model.graph.input if value.name not in stored)
        self.outputs = tuple(value.name for value in model.graph.output)
        opset = opset_of(model)
        seen: Counter[str] = Counter()
        self.labels: list[str] = []
        for node in self.nodes:
            seen[node.op_type] += 1
            self.labels.append(layer_of(node) or f"{node.op_type} {seen[node.op_type]}")
        self.calls = [NodeCall.of(node, opset) for node in self.nodes]
        self.operators = [self._operator(place) for place in range(len(self.nodes))]
        self._producers = {name: place for place, node in enumerate(self.nodes) for name in node.output if name}
        self._plans: dict[tuple[frozenset[str], tuple[str, ...]], Plan] = {}

    def _operator(self, place: int) -> Operator | None:
        node = self.nodes[place]
        if node.op_type in (QUANTIZE, DEQUANTIZE):
            return None
        table = OPERATORS if node.domain in DOMAINS else OF_RUNTIME if node.domain == MICROSOFT else {}
        found = table.get(node.op_type)
        if found is None:
            name = f"{node.domain}.{node.op_type}" if node.domain not in DOMAINS else node.op_type
            raise self.error(place, f"the operator {name} is not covered by the simulation in torch.")
        return found

    def error(self, place: int, sentence: str) -> TechniqueError:
        """An error about a node."""
        return TechniqueError(sentence, where=self.labels[place])

    def producer(self, name: str) -> int | None:
        """The index of the node that gives a tensor; None for inputs of the graph and stored tensors."""
        return self._producers.get(name)

    def plan(self, known: frozenset[str], wanted: tuple[str, ...]) -> Plan:
        """The nodes that compute the wanted tensors from the known ones, in their order."""
        if (known, wanted) in self._plans:
            return self._plans[known, wanted]
        needed, places = set(wanted) - known, []
        for place in reversed(range(len(self.nodes))):
            if needed.intersection(self.nodes[place].output):
                places.append(place)
                needed |= set(self.nodes[place].input) - known
        plan, last = [], set(wanted)
        for place in places:
            done = [name for name in dict.fromkeys(self.nodes[place].input) if name not in last]
            last |= set(done)
            plan.append((place, done))
        self._plans[known, wanted] = plan[::-1]
        return self._plans[known, wanted]
