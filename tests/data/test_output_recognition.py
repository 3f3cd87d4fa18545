"""Kinds of outputs: recognised from values, targets, loss, score and names, or declared."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from autocompress.core.output_kinds import OutputKind
from autocompress.core.runtime import Example
from autocompress.core.task import Task
from autocompress.data.loss_kinds import kind_of_loss
from autocompress.data.output_recognition import with_kinds
from autocompress.data.task_loss import teachers_of
from autocompress.errors import DataError

X = np.random.default_rng(0).standard_normal((48, 8)).astype(np.float32)
LABELS = np.arange(48) % 3
TAGS = (np.arange(144).reshape(48, 3) % 2).astype(np.float32)
EXAMPLE = Example((X[:2],))
K = OutputKind


def own(outputs: Any, targets: Any) -> Any:
    return np.zeros(len(targets))


def network(*end: nn.Module, width: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, width), *end)


class Unit(nn.Module):
    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return functional.normalize(values, dim=-1)


CRITERION = nn.BCEWithLogitsLoss()


def by_function(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.smooth_l1_loss(outputs, targets) + 0.1 * outputs.square().mean()


def by_module(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return CRITERION(outputs, targets)


@pytest.mark.parametrize(
    ("end", "task", "kind", "axis"),
    [
        ((), Task((X, LABELS)), K.LOGITS, 1),
        ((nn.Softmax(1),), Task((X, LABELS)), K.PROBABILITIES, 1),
        ((nn.LogSoftmax(1),), Task((X, LABELS)), K.LOG_PROBABILITIES, 1),
        ((nn.Sigmoid(),), Task((X, LABELS)), K.SIGMOID, None),
        ((nn.Sigmoid(),), Task((X, TAGS), score=own), K.SIGMOID, None),
        ((), Task((X, TAGS), score=own), K.MULTILABEL_LOGITS, None),
        ((), Task((X, LABELS), score=own), K.LOGITS, 1),
        ((), Task((X, X[:, :3]), score=own), K.VALUES, None),
        ((), Task((X, X[:, :3]), score="negative_error"), K.VALUES, None),
        ((nn.Sigmoid(),), Task((X, np.abs(X[:, :3])), score="negative_error"), K.VALUES, None),
        ((nn.Sigmoid(),), Task((X, LABELS), score=own, loss=nn.BCELoss()), K.SIGMOID, None),
        ((), Task((X, LABELS), score=own, loss=by_module), K.MULTILABEL_LOGITS, None),
        ((), Task((X, X[:, 0]), score=own, loss=functional.cross_entropy), K.LOGITS, 1),
        ((), Task((X, X[:, 0]), score=own, loss=nn.NLLLoss()), K.LOGITS, 1),
        ((Unit(),), Task((X, X[:, 0]), score=own), K.EMBEDDING, 1),
        ((), Task((X, X[:, 0]), score=own, loss=nn.CosineEmbeddingLoss()), K.EMBEDDING, 1),
        ((), Task((X, LABELS), score=own, output_kind="masks"), K.MULTILABEL_LOGITS, None),
        ((nn.Sigmoid(),), Task((X, X[:, 0]), score=own, output_kind="masks"), K.SIGMOID, None),
        ((nn.Sigmoid(),), Task((X, X[:, 0]), score=own), K.VALUES, None),
        ((), Task((X, LABELS), output_kind={"output": "states"}), K.STATES, None),
    ],
)
def test_the_only_output_is_what_values_targets_loss_and_score_say(
    end: tuple[nn.Module, ...], task: Task, kind: OutputKind, axis: int | None
) -> None:
    fact = with_kinds(EXAMPLE, network(*end), task).kinds["output"]
    assert (fact.kind, fact.axis) == (kind, axis), fact


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Linear(8, 12)

    def forward(self, values: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = self.body(values)
        grid = hidden.unflatten(1, (3, 2, 2))
        return {
            "logits": hidden[:, :3],
            "tags": hidden[:, 3:6],
            "pred_boxes": hidden[:, :4].sigmoid(),
            "pred_masks": grid,
            "pixels": grid.softmax(1),
            "tokens_logits": hidden.unflatten(1, (4, 3)),
            "attentions.0": hidden.unflatten(1, (2, 2, 3)).softmax(-1),
            "state.h": hidden,
            "ids": values.long(),
        }


def test_each_head_is_told_by_itself() -> None:
    task = Task((X, {"logits": LABELS, "tags": TAGS}), score=own)
    kinds = with_kinds(EXAMPLE, Heads(), task).kinds
    assert {name: (fact.kind, fact.axis) for name, fact in kinds.items()} == {
        "logits": (K.LOGITS, 1),
        "tags": (K.MULTILABEL_LOGITS, None),
        "pred_boxes": (K.BOXES, None),
        "pred_masks": (K.MULTILABEL_LOGITS, None),
        "pixels": (K.PROBABILITIES, 1),
        "tokens_logits": (K.LOGITS, 2),
        "attentions.0": (K.PROBABILITIES, 3),
        "state.h": (K.STATES, None),
    }
    assert kinds["logits"].told("logits") == "output logits: class logits (a number for each class); divergence: KL"


@pytest.mark.parametrize(
    ("loss", "kind"),
    [
        (functional.mse_loss, K.VALUES),
        (functools.partial(functional.binary_cross_entropy_with_logits, reduction="sum"), K.MULTILABEL_LOGITS),
        (by_function, K.VALUES),
        (by_module, K.MULTILABEL_LOGITS),
        (lambda outputs, targets: functional.cross_entropy(outputs, targets) + CRITERION(outputs, targets), None),
        (lambda outputs, targets: (outputs - targets).abs().mean(), None),
        (None, None),
    ],
)  # fmt: skip
def test_a_loss_tells_its_outputs_by_type_or_code(loss: Any, kind: OutputKind | None) -> None:
    found = kind_of_loss(loss)
    assert (found and found[0]) == kind


@pytest.mark.parametrize(
    ("end", "word", "said"),
    [
        ((), "probabilities", "is declared probabilities, but its values from -.* do not sum to 1"),
        ((), "sigmoid", "is declared sigmoid, but it holds values from -"),
        ((), "log_probabilities", "the exponentials of its values from"),
        ((nn.Softmax(1),), "logits", "is declared logits, but its values are probabilities"),
        ((), "odds", "there is no kind of output named 'odds'. Known: logits, "),
        ((), {"boxes": "boxes"}, "names the output 'boxes', which is not there. The floating outputs are output"),
        ((), ["output=boxes", "output=values"], "is given twice for output"),
    ],
)
def test_what_values_contradict_is_an_error(end: tuple[nn.Module, ...], word: Any, said: str) -> None:
    with pytest.raises(DataError, match=f"output_kind: .*{said}"):
        with_kinds(EXAMPLE, network(*end), Task((X, LABELS)), word)
    with pytest.raises(DataError, match="is one word, and the model has the outputs logits, tags"):
        with_kinds(EXAMPLE, Heads(), None, "boxes")


def test_the_call_comes_before_the_task() -> None:
    task = Task((X, LABELS), output_kind="values")
    assert with_kinds(EXAMPLE, network(), task, ("output=states",)).kinds["output"].kind is K.STATES


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (Task((X, LABELS)), ""),
        (Task((X, LABELS), train=(X, LABELS)), "from the original's outputs and from the targets by cross entropy"),
        (Task((X, X[:, 0]), train=(X, X[:, 0]), score="negative_error"), "from the targets by the squared error"),
        (Task((X, LABELS), train=(X, LABELS), score=own), "from the original alone: no loss is given, and a score"),
        (Task((X, LABELS), train=X), "from the original alone: the training items have no targets"),
        (Task((X, LABELS), train=(X, {"a": LABELS, "b": X}), score=own), "alone: no loss is given for the 2 targets"),
        (Task((X, LABELS), train=(X, LABELS), loss=by_module), "from the original's outputs and from the task's loss"),
    ],
)
def test_what_recovery_learns_from_is_said(task: Task, said: str) -> None:
    assert said in teachers_of(task)
    assert bool(said) == bool(teachers_of(task))
