"""Outputs of a module: which tensors they hold, and their names."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from autocompress.core.runtime import Example
from autocompress.data.named_outputs import named_outputs
from autocompress.errors import ModelError
from autocompress.testing.several_outputs import Cache, ModelOutput

A, B, C = (torch.full((2, 3), float(i)) for i in range(3))
Pair = namedtuple("Pair", "boxes scores")
EXAMPLE = Example({"values": np.zeros((2, 3), np.float32)})


@dataclass
class Heads:
    boxes: torch.Tensor
    extra: Any = None


@pytest.mark.parametrize(
    ("outputs", "names"),
    [
        (A, ["output"]),
        ((A,), ["output"]),
        ([[A]], ["output"]),
        ((A, B), ["output", "output_1"]),
        ((A, None, "text", B), ["output", "output_1"]),
        ({"b": A, "a": B, "note": "text", "count": 3}, ["b", "a"]),
        ({"logits": A, "pred_boxes": B, "loss": None}, ["logits", "pred_boxes"]),
        ((A, (B, C)), ["0", "1.0", "1.1"]),
        ((A, None, [B, [C]]), ["0", "2.0", "2.1.0"]),
        ([[A, B], [C]], ["0.0", "0.1", "1.0"]),
        ((A, {"h": B, "c": C}), ["0", "1.h", "1.c"]),
        ({"logits": A, "state": {"h": B, "c": (C,)}}, ["logits", "state.h", "state.c.0"]),
        (Pair(A, B), ["boxes", "scores"]),
        (Heads(A, Heads(B)), ["boxes", "extra.boxes"]),
        (ModelOutput(logits=A, past_key_values=Cache(B), hidden_states=(B, C)), [
            "logits", "hidden_states.0", "hidden_states.1",
        ]),
        (SimpleNamespace(loss=None, hidden=B, logits=A), ["hidden", "logits"]),
        ({"values": A, "logits": B}, ["values_out", "logits"]),
    ],
)  # fmt: skip
def test_every_tensor_is_named_by_its_path(outputs: Any, names: list[str]) -> None:
    assert list(named_outputs(outputs, EXAMPLE)) == names


def test_of_an_object_that_is_no_tree_the_logits_count() -> None:
    thing = Cache(A)
    thing.logits = B  # type: ignore[attr-defined]
    assert list(named_outputs(thing, EXAMPLE)) == ["logits"]


@pytest.mark.parametrize("outputs", ["text", [], {"cache": Cache(A)}, (None, 3)])
def test_outputs_without_a_tensor_are_an_error(outputs: Any) -> None:
    with pytest.raises(ModelError, match="without tensors"):
        named_outputs(outputs, EXAMPLE)


def test_two_outputs_of_one_name_are_an_error() -> None:
    with pytest.raises(ModelError, match=r"two outputs named 'a\.b'"):
        named_outputs({"a.b": A, "a": {"b": B}}, EXAMPLE)
