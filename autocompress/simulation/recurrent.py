"""Recurrent operators of the simulation: LSTM, GRU and RNN by torch's own, gates in its order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from autocompress.errors import TechniqueError
from autocompress.simulation.node_call import NodeCall, Operator

Tensor = torch.Tensor
# where torch's gates are among those of ONNX: input, forget, cell, output; reset, update, new
GATES = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}
ACTIVATIONS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}


def _recurrent(kind: str) -> Operator:
    def apply(
        call: NodeCall,
        x: Tensor,
        weight: Tensor,
        recurrence: Tensor,
        bias: Tensor | None = None,
        lengths: Tensor | None = None,
        *states: Tensor | None,
    ) -> tuple[Tensor, ...]:
        _require_plain(kind, call, lengths, states)
        hidden, directions = call.get("hidden_size", recurrence.shape[-1]), weight.shape[0]
        given = [*states, None, None][:2]
        zeros = x.new_zeros(directions, x.shape[1], hidden)
        start = [zeros if state is None else state for state in given]
        every, last = [], []
        for place in range(directions):
            turned = place == 1 or call.get("direction", "forward") == "reverse"
            parameters = _parameters(kind, weight[place], recurrence[place], None if bias is None else bias[place])
            found = _run(kind, x.flip(0) if turned else x, [state[place : place + 1] for state in start], parameters)
            every.append(found[0].flip(0) if turned else found[0])
            last.append(found[1:])
        ends = tuple(torch.cat(parts) for parts in zip(*last, strict=True))
        return (torch.stack(every, 1), *ends)

    return apply


def _require_plain(kind: str, call: NodeCall, lengths: Tensor | None, states: Sequence[Tensor | None]) -> None:
    plain = ACTIVATIONS[kind] * (2 if call.get("direction") == "bidirectional" else 1)
    activations = [name.decode() if isinstance(name, bytes) else name for name in call.get("activations", plain)]
    unusual = {
        "sequence lengths": lengths is not None,
        "peepholes": len(states) > 2 and states[2] is not None,
        "other activations": activations != plain,
        "a clip": bool(call.get("clip")),
        "a batch in front": bool(call.get("layout", 0)),
        "the reset gate before the product": kind == "GRU" and not call.get("linear_before_reset", 0),
    }
    found = ", ".join(name for name, holds in unusual.items() if holds)
    if found:
        raise TechniqueError(f"{kind} with {found} is not covered by the simulation.")


def _parameters(kind: str, weight: Tensor, recurrence: Tensor, bias: Tensor | None) -> list[Tensor]:
    size = recurrence.shape[-1]
    rows = torch.cat([torch.arange(gate * size, (gate + 1) * size, device=weight.device) for gate in GATES[kind]])
    biases = weight.new_zeros(2 * len(rows)) if bias is None else bias
    return [weight[rows], recurrence[rows], biases[: len(rows)][rows], biases[len(rows) :][rows]]


def _run(kind: str, x: Tensor, start: Sequence[Tensor], parameters: list[Tensor]) -> tuple[Tensor, ...]:
    settings: tuple[Any, ...] = (parameters, True, 1, 0.0, False, False, False)
    if kind == "LSTM":
        return tuple(torch.lstm(x, tuple(start), *settings))
    function = torch.gru if kind == "GRU" else torch.rnn_tanh
    return tuple(function(x, start[0], *settings))


RECURRENT: Mapping[str, Operator] = {kind: _recurrent(kind) for kind in GATES}
