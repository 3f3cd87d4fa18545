"""The LSTM of dynamic int8 in the simulation, as onnxruntime's DynamicQuantizeLSTM computes it.

The inputs of all steps get one range, the state that enters a step one of its own. Weights are `(directions, inputs,
4 hidden)` whole numbers with a scale for each column, or one; the gates' order is input, output, forget, cell.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from autocompress.errors import TechniqueError
from autocompress.simulation.integer_operators import product_of
from autocompress.simulation.node_call import NodeCall, Operator

Tensor = torch.Tensor
KIND = "DynamicQuantizeLSTM"
ACTIVATIONS = ["Sigmoid", "Tanh", "Tanh"]


def _lstm(call: NodeCall, x: Tensor, weight: Tensor, recurrence: Tensor, *given: Tensor | None) -> tuple[Tensor, ...]:
    bias, lengths, hidden, cell, peepholes, *scales = given
    _require_plain(call, lengths, peepholes)
    size, directions = call.get("hidden_size"), weight.shape[0]
    zeros = x.new_zeros(directions, x.shape[1], size)
    outputs, hiddens, cells = [], [], []
    for place in range(directions):
        turned = place == 1 or call.get("direction", "forward") == "reverse"
        numbers = [None if scale is None else scale[place] for scale in scales]
        weights = (weight[place], *numbers[:2]), (recurrence[place], *numbers[2:])
        state = tuple((zeros if one is None else one)[place] for one in (hidden, cell))
        every, last = _run(x.flip(0) if turned else x, weights, None if bias is None else bias[place], state)
        outputs.append(every.flip(0) if turned else every)
        hiddens.append(last[0])
        cells.append(last[1])
    return torch.stack(outputs, 1), torch.stack(hiddens), torch.stack(cells)


def _run(
    x: Tensor,
    weights: tuple[tuple[Tensor | None, ...], tuple[Tensor | None, ...]],
    bias: Tensor | None,
    state: tuple[Tensor, ...],
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """The states after each step, and the last two."""
    given, recurrent = weights
    hidden, cell = state
    entering = product_of(x, *given)
    if bias is not None:
        half = bias.shape[0] // 2
        entering = entering + bias[:half] + bias[half:]
    every = []
    for step in entering:
        gates = step + product_of(hidden, *recurrent)
        write, read, keep, new = gates.chunk(4, -1)
        cell = keep.sigmoid() * cell + write.sigmoid() * new.tanh()
        hidden = read.sigmoid() * cell.tanh()
        every.append(hidden)
    return torch.stack(every), (hidden, cell)


def _require_plain(call: NodeCall, lengths: Tensor | None, peepholes: Tensor | None) -> None:
    plain = ACTIVATIONS * (2 if call.get("direction") == "bidirectional" else 1)
    activations = [name.decode() if isinstance(name, bytes) else name for name in call.get("activations", plain)]
    unusual = {
        "sequence lengths": lengths is not None,
        "peepholes": peepholes is not None,
        "other activations": activations != plain,
        "a clip": bool(call.get("clip")),
        "coupled gates": bool(call.get("input_forget", 0)),
    }
    found = ", ".join(name for name, holds in unusual.items() if holds)
    if found:
        raise TechniqueError(f"{KIND} with {found} is not covered by the simulation.")


# of onnxruntime's own domain
INTEGER_RECURRENT: Mapping[str, Operator] = {KIND: _lstm}
