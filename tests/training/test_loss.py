"""The loss of distillation over one and several outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from autocompress.core.task import Task
from autocompress.errors import TechniqueError
from autocompress.training.loss import loss_of

torch.manual_seed(0)
LOGITS, OTHERS, BOXES, MOVED = torch.randn(6, 3), torch.randn(6, 3), torch.randn(6, 5, 4), torch.randn(6, 5, 4)
LABELS = torch.arange(6) % 3


def loss(task: Task, outputs: Any, teaching: Any, targets: Any = LABELS, soft_weight: float = 0.9) -> float:
    return float(loss_of(task, outputs, teaching, targets, soft_weight=soft_weight, temperature=4.0))


def classes(outputs: torch.Tensor, teaching: torch.Tensor) -> float:
    logs = functional.log_softmax(outputs / 4, 1), functional.log_softmax(teaching / 4, 1)
    return float(16 * functional.kl_div(*logs, log_target=True, reduction="batchmean"))


def test_a_single_output_of_classes_has_the_kl_term_and_cross_entropy() -> None:
    wanted = 0.9 * classes(LOGITS, OTHERS) + 0.1 * float(functional.cross_entropy(LOGITS, LABELS))
    assert loss(Task(), {"output": LOGITS}, {"output": OTHERS}) == pytest.approx(wanted)


def test_a_single_output_of_another_task_has_the_squared_error() -> None:
    wanted = 0.9 * float((BOXES - MOVED).square().mean()) + 0.1 * float(BOXES.square().mean())
    task = Task(score="negative_error")
    assert loss(task, {"output": BOXES}, {"output": MOVED}, torch.zeros(6, 20)) == pytest.approx(wanted)


@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_further_outputs_count_relative_to_the_teachers_spread(scale: float) -> None:
    outputs = {"ids": LABELS, "logits": LOGITS, "boxes": scale * BOXES, "count": torch.tensor(3.0)}
    teaching = {"ids": LABELS, "logits": OTHERS, "boxes": scale * MOVED, "count": torch.tensor(2.0)}
    relative = float((BOXES - MOVED).square().mean() / MOVED.var())
    assert loss(Task(), outputs, teaching, soft_weight=1.0) == pytest.approx((classes(LOGITS, OTHERS) + relative) / 2)
    # without classes all are relative
    task = Task(score="negative_error", loss=lambda outputs, _: outputs["boxes"].sum() * 0)
    both = {name: {"a": values["boxes"], "boxes": values["boxes"]} for name, values in
            {"mine": outputs, "taught": teaching}.items()}  # fmt: skip
    assert loss(task, both["mine"], both["taught"], soft_weight=1.0) == pytest.approx(relative)


def test_a_loss_gets_outputs_and_targets_of_all_heads() -> None:
    given: list[Any] = []

    def noted(outputs: Any, targets: Any) -> torch.Tensor:
        given.append((outputs, targets))
        return torch.zeros(())

    targets = {"kinds": LABELS, "boxes": BOXES}
    outputs = {"logits": LOGITS, "boxes": BOXES}
    loss(Task(loss=noted), outputs, outputs, targets)
    loss(Task(loss=noted), {"output": LOGITS, "output_1": BOXES}, {"output": LOGITS, "output_1": BOXES}, targets)
    loss(Task(loss=noted), {"logits": LOGITS}, {"logits": LOGITS})
    assert given[0] == (outputs, targets)
    assert given[1][0] == (LOGITS, BOXES)
    assert given[2][0] is LOGITS


def test_several_targets_without_a_loss_leave_the_teacher_alone() -> None:
    wanted = 0.9 * classes(LOGITS, OTHERS)
    assert loss(Task(), {"output": LOGITS}, {"output": OTHERS}, {"kinds": LABELS}) == pytest.approx(wanted)


def test_more_outputs_in_training_mode_are_left_out() -> None:
    # googlenet gives auxiliary logits in training mode, and calls its output by another name
    found = loss(Task(), {"logits": LOGITS, "aux_logits": OTHERS}, {"output": OTHERS})
    assert found == loss(Task(), {"output": LOGITS}, {"output": OTHERS})
    with pytest.raises(TechniqueError, match="does not give output 'boxes' in training mode"):
        loss(Task(), {"logits": LOGITS}, {"logits": OTHERS, "boxes": BOXES})


IGNORED = torch.tensor([[0, -100, 2], [-100, -100, -100], [1, -1, -100]])


@pytest.mark.parametrize(
    ("outputs", "labels", "score"),
    [
        (torch.randn(9, 4), IGNORED.reshape(9), "top1"),
        (torch.randn(9, 4), IGNORED.reshape(9), "macro_f1"),
        (torch.randn(3, 3, 4), IGNORED, "token_accuracy"),
        (torch.randn(3, 3, 3), IGNORED, "negative_perplexity"),
        (torch.randn(3, 3, 4), IGNORED, lambda outputs, targets: outputs[:, 0, 0]),
        (torch.randn(3, 4, 3, 1), IGNORED[..., None], lambda outputs, targets: outputs[:, 0, 0, 0]),
    ],
    ids=["classes", "f1", "tokens", "tokens as many as classes", "own score", "pixels"],
)
def test_labels_below_0_count_for_nothing(outputs: torch.Tensor, labels: torch.Tensor, score: Any) -> None:
    task, teaching = Task(score=score), {"output": torch.randn(outputs.shape)}
    counted = labels >= 0
    logits = (outputs if score in ("top1", "macro_f1") or outputs.ndim == 3 else outputs.movedim(1, -1))[counted]
    wanted = float(functional.cross_entropy(logits, labels[counted]))
    assert loss(task, {"output": outputs}, teaching, labels, soft_weight=0.0) == pytest.approx(wanted, rel=1e-6)
    nothing = torch.full_like(labels, -100)
    student = outputs.clone().requires_grad_()
    found = loss_of(task, {"output": student}, teaching, nothing, soft_weight=0.0, temperature=4.0)
    found.backward()
    assert float(found.detach()) == 0.0
    assert student.grad is not None
    assert not student.grad.any()


def test_the_teacher_does_not_pull_at_places_whose_label_counts_for_nothing() -> None:
    student, teacher = torch.randn(3, 3, 4, requires_grad=True), torch.randn(3, 3, 4)
    task = Task(score="token_accuracy")
    found = loss_of(task, {"output": student}, {"output": teacher}, IGNORED, soft_weight=1.0, temperature=4.0)
    found.backward()
    assert float(found.detach()) == pytest.approx(float((student.detach() - teacher)[IGNORED >= 0].square().mean()))
    assert student.grad is not None
    assert student.grad.any(-1).equal(IGNORED >= 0)
    nothing = torch.full_like(IGNORED, -100)
    student = student.detach()
    several = {"logits": student, "other": torch.randn(3, 2)}
    teaching = {"logits": teacher, "other": torch.randn(3, 2)}
    for outputs, taught in (({"output": student}, {"output": teacher}), (several, teaching)):
        assert np.isfinite(loss(task, outputs, taught, nothing))


def test_a_regression_on_whole_numbers_stays_one() -> None:
    task = Task(score="negative_error")
    counts = {"output": torch.randn(6, 1)}
    wanted = float(functional.mse_loss(counts["output"][:, 0], LABELS.float()))
    assert loss(task, counts, counts, LABELS, soft_weight=0.0) == pytest.approx(wanted)
