"""Blocks of a quantized graph: parts between two tensors through which everything passes.

Li et al., "BRECQ: Pushing the Limit of Post-Training Quantization by Block Reconstruction", ICLR 2021: a block that
ends at a residual join keeps the dependence between its layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from autocompress.runtimes.float_nodes import DEQUANTIZE, QUANTIZE
from autocompress.simulation.fake_quantization import ActivationQuantizer, StoredQuantizer
from autocompress.simulation.graph_module import GraphModule, QuantizedLayer

# a block with more layers is taken layer by layer
MOST_LAYERS = 4


@dataclass(frozen=True, eq=False)
class Block:
    """Layers that are learned together, with the tensors that they are computed from and give.

    `end` is the quantizer of the output, None where it is not quantized.
    """

    layers: tuple[QuantizedLayer, ...]
    inputs: tuple[str, ...]
    output: str
    end: ActivationQuantizer | None

    @property
    def weights(self) -> list[StoredQuantizer]:
        """The weights of its layers."""
        return [layer.weight for layer in self.layers]


def blocks_of(module: GraphModule) -> list[Block]:
    """The blocks in the order of the graph; each quantized layer is in one of them."""
    blocks, waiting = [], module.layers()
    start: str | None = None
    for place, end in _cuts(module):
        inside = [layer for layer in waiting if layer.place < place]
        waiting = waiting[len(inside) :]
        if start is not None and 1 < len(inside) <= MOST_LAYERS:
            blocks.append(Block(tuple(inside), (start,), end, _end(module, end)))
        else:
            blocks += [_alone(module, layer) for layer in inside]
        start = end
    return blocks + [_alone(module, layer) for layer in waiting]


def _alone(module: GraphModule, layer: QuantizedLayer) -> Block:
    """A block of one layer, up to where its output has been quantized if nothing stands between."""
    nodes, output = module.graph.nodes, layer.output
    for kind in (QUANTIZE, DEQUANTIZE):
        readers = [node for node in nodes[layer.place + 1 :] if output in node.input]
        if len(readers) != 1 or readers[0].op_type != kind:
            return Block((layer,), (layer.input,), layer.output, None)
        output = readers[0].output[0]
    return Block((layer,), (layer.input,), output, _end(module, output))


def _end(module: GraphModule, output: str) -> ActivationQuantizer | None:
    found = module.quantizer_behind(output)
    return found if isinstance(found, ActivationQuantizer) else None


def _cuts(module: GraphModule) -> Iterator[tuple[int, str]]:
    """Dequantized tensors that are alone in being needed later, with the indices of their nodes."""
    nodes = module.graph.nodes
    last = {name: place for place, node in enumerate(nodes) for name in node.input}
    last |= dict.fromkeys(module.graph.outputs, len(nodes))
    # what follows from the graph's inputs; the rest is stored
    live = set(module.graph.inputs)
    for place, node in enumerate(nodes):
        if live.intersection(node.input):
            live |= {name for name in node.output if name in last}
        live = {name for name in live if last[name] > place}
        if len(live) == 1 and node.op_type == DEQUANTIZE and node.output[0] in live:
            yield place, node.output[0]
    if len(module.graph.outputs) == 1:
        yield len(nodes), module.graph.outputs[0]
