"""The loss of distillation over one and several outputs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from autocompress.core.output_kinds import OutputFact, OutputKind
from autocompress.core.task import Task
from autocompress.data.named_outputs import floating
from autocompress.data.output_recognition import recognised
from autocompress.data.output_traits import Traits
from autocompress.data.task_loss import teachers_of
from autocompress.errors import TechniqueError
from autocompress.training.loss import Softness, loss_of

torch.manual_seed(0)
LOGITS, OTHERS, BOXES, MOVED = torch.randn(6, 3), torch.randn(6, 3), torch.randn(6, 5, 4), torch.randn(6, 5, 4)
LABELS = torch.arange(6) % 3


def kinds_by_values(task: Task, teaching: dict[str, torch.Tensor], targets: Any) -> dict[str, OutputFact]:
    return recognised({name: Traits.of(values) for name, values in floating(teaching).items()}, task, [targets])


def tensor_of(
    task: Task, outputs: Any, teaching: Any, targets: Any = LABELS, soft_weight: float = 0.9, inputs: Any = None
) -> torch.Tensor:
    kinds, softness = kinds_by_values(task, teaching, targets), Softness(soft_weight, 4.0)
    return loss_of(task, outputs, teaching, targets, kinds=kinds, inputs=inputs or {}, softness=softness)


def loss(task: Task, outputs: Any, teaching: Any, targets: Any = LABELS, soft_weight: float = 0.9) -> float:
    return float(tensor_of(task, outputs, teaching, targets, soft_weight).detach())


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
    # the spread of classes is the divergence to the teacher's mean answer
    chances = (OTHERS / 4).softmax(1)
    of_classes = classes(chances.mean(0, keepdim=True).log().expand(6, 3) * 4, OTHERS)
    both = (classes(LOGITS, OTHERS) / of_classes + relative) / 2
    assert loss(Task(), outputs, teaching, soft_weight=1.0) == pytest.approx(both, rel=1e-5)
    # without classes all are relative
    task = Task(score="negative_error", loss=lambda outputs, _: outputs["boxes"].sum() * 0)
    pairs = {name: {"a": values["boxes"], "boxes": values["boxes"]} for name, values in
             {"mine": outputs, "taught": teaching}.items()}  # fmt: skip
    assert loss(task, pairs["mine"], pairs["taught"], soft_weight=1.0) == pytest.approx(relative)


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
    ],
    ids=["classes", "f1", "tokens", "tokens as many as classes"],
)
def test_labels_below_0_count_for_nothing(outputs: torch.Tensor, labels: torch.Tensor, score: Any) -> None:
    task, teaching = Task(score=score), {"output": torch.randn(outputs.shape)}
    counted = labels >= 0
    wanted = float(functional.cross_entropy(outputs[counted], labels[counted]))
    assert loss(task, {"output": outputs}, teaching, labels, soft_weight=0.0) == pytest.approx(wanted, rel=1e-6)
    nothing = torch.full_like(labels, -100)
    student = outputs.clone().requires_grad_()
    found = tensor_of(task, {"output": student}, teaching, nothing, soft_weight=0.0)
    found.backward()
    assert float(found.detach()) == 0.0
    assert student.grad is not None
    assert not student.grad.any()


@pytest.mark.parametrize(
    ("shape", "labels", "score"),
    [((3, 3, 4), IGNORED, "token_accuracy"), ((3, 4, 3, 1), IGNORED[..., None], lambda outputs, targets: targets)],
    ids=["tokens", "pixels"],
)
def test_the_teacher_does_not_pull_at_places_whose_label_counts_for_nothing(
    shape: tuple[int, ...], labels: torch.Tensor, score: Any
) -> None:
    student, teacher = torch.randn(shape, requires_grad=True), torch.randn(shape)
    task = Task(score=score)
    found = tensor_of(task, {"output": student}, {"output": teacher}, labels, soft_weight=1.0)
    found.backward()
    counted, axis = labels >= 0, 1 if len(shape) == 4 else 2
    alone = [values.detach().movedim(axis, -1)[counted] for values in (student, teacher)]
    assert float(found.detach()) == pytest.approx(classes(*alone), rel=1e-5)
    assert student.grad is not None
    assert student.grad.any(axis).equal(counted)
    nothing = torch.full_like(labels, -100)
    student = student.detach()
    several = {"logits": student, "other": torch.randn(3, 2)}
    teaching = {"logits": teacher, "other": torch.randn(3, 2)}
    for outputs, taught in (({"output": student}, {"output": teacher}), (several, teaching)):
        assert np.isfinite(loss(task, outputs, taught, nothing))


def test_a_score_of_ones_own_without_a_loss_leaves_the_teacher_alone() -> None:
    task = Task(score=lambda outputs, targets: (outputs.argmax(1) == targets).astype(float))
    assert loss(task, {"output": LOGITS}, {"output": OTHERS}) == pytest.approx(0.9 * classes(LOGITS, OTHERS))
    assert teachers_of(replace(task, train=(LOGITS, LABELS))).startswith("recovery learns from the original alone")


@pytest.mark.parametrize(
    "of_logits",
    [lambda z: z.softmax(1), lambda z: z.log_softmax(1)],
    ids=["probabilities", "log-probabilities"],
)
def test_probabilities_teach_and_are_taught_as_the_logits_they_were_made_of(of_logits: Any) -> None:
    task = Task()
    wanted = loss(task, {"output": LOGITS}, {"output": OTHERS})
    assert loss(task, {"output": of_logits(LOGITS)}, {"output": of_logits(OTHERS)}) == pytest.approx(wanted, rel=1e-4)


def test_a_yes_or_no_for_each_has_the_bernoulli_divergence() -> None:
    targets = (torch.arange(18).reshape(6, 3) % 2).float()
    task = Task(score=lambda outputs, targets: targets[:, 0], loss=lambda outputs, targets: outputs.sum() * 0)
    p, q = (OTHERS / 4).sigmoid(), (LOGITS / 4).sigmoid()
    wanted = 16 * float((p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean())
    for of_logits in (lambda z: z, torch.sigmoid):
        found = loss(task, {"output": of_logits(LOGITS)}, {"output": of_logits(OTHERS)}, targets, soft_weight=1.0)
        assert found == pytest.approx(wanted, rel=1e-4)


def test_embeddings_have_the_cosine_distance_over_their_spread() -> None:
    student, teacher = (functional.normalize(values, dim=1) for values in (LOGITS, OTHERS))
    task = Task(score=lambda outputs, targets: targets)
    cosine = float((1 - (student * teacher).sum(1)).mean() / (1 - teacher.mean(0).norm()))
    assert loss(task, {"output": student}, {"output": teacher}, soft_weight=1.0) == pytest.approx(cosine, rel=1e-5)


def test_no_head_drowns_another() -> None:
    # what always gives the teacher's mean is at 1, whatever the kind
    labels = torch.arange(400) % 3
    teacher = {
        "logits": 5 * torch.randn(400, 3),
        "tags": (3 * torch.randn(400, 50)).sigmoid(),
        "place": functional.normalize(torch.randn(400, 2) + 3, dim=1),
        "boxes": 1e3 * torch.rand(400, 4),
    }
    mean = {
        "logits": (teacher["logits"] / 4).softmax(1).mean(0).log() * 4,
        "tags": torch.sigmoid(4 * torch.special.logit((torch.special.logit(teacher["tags"]) / 4).sigmoid().mean(0))),
        "place": teacher["place"].mean(0),
        "boxes": teacher["boxes"].mean(),
    }
    task = Task(output_kind={"tags": "sigmoid"})
    kinds = kinds_by_values(task, teacher, labels) | {"tags": OutputFact(OutputKind.SIGMOID)}
    for name, values in mean.items():
        student = teacher | {name: values.expand_as(teacher[name])}
        found = loss_of(
            replace(task, loss=lambda outputs, _: outputs["logits"].sum() * 0), student, teacher, labels,
            kinds=kinds, inputs={}, softness=Softness(1.0, 4.0),
        )  # fmt: skip
        assert 4 * float(found) == pytest.approx(1.0, rel=0.02), name


def test_padded_tokens_count_for_nothing() -> None:
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    task = Task(score=lambda outputs, targets: targets)
    teacher = {"logits": torch.randn(2, 3, 4), "hidden": torch.randn(2, 3, 5), "start_logits": torch.randn(2, 3)}
    student = {name: torch.randn(values.shape) for name, values in teacher.items()}
    moved = {
        name: torch.where(mask.bool().reshape(2, 3, *[1] * (values.ndim - 2)), values, 9.0)
        for name, values in student.items()
    }
    labels = torch.tensor([0, 1])
    found = [
        float(tensor_of(task, outputs, teacher, labels, 1.0, {"attention_mask": mask})) for outputs in (student, moved)
    ]
    assert found[0] == pytest.approx(found[1])
    assert float(tensor_of(task, student, teacher, labels, 1.0)) != pytest.approx(found[0])
    # a decoder's outputs are padded by its own mask
    decoded = {"attention_mask": mask, "decoder_input_ids": mask}
    assert float(tensor_of(task, student, teacher, labels, 1.0, decoded)) == float(
        tensor_of(task, student, teacher, labels, 1.0)
    )


def test_wrong_answers_of_probabilities_cost_their_logarithm() -> None:
    chances = LOGITS.softmax(1)
    wanted = float(functional.cross_entropy(LOGITS, LABELS))
    assert loss(Task(), {"output": chances}, {"output": chances}, soft_weight=0.0) == pytest.approx(wanted, rel=1e-5)
    # fewer values between 0 and 1 would not be taken for probabilities
    each, labels = LOGITS.sigmoid().repeat(2, 1), LABELS.repeat(2)
    wanted = float(functional.binary_cross_entropy(each, functional.one_hot(labels, 3).float()))
    assert loss(Task(), {"output": each}, {"output": each}, labels, soft_weight=0.0) == pytest.approx(wanted, rel=1e-5)


def test_a_regression_on_whole_numbers_stays_one() -> None:
    task = Task(score="negative_error")
    counts = {"output": torch.randn(6, 1)}
    wanted = float(functional.mse_loss(counts["output"][:, 0], LABELS.float()))
    assert loss(task, counts, counts, LABELS, soft_weight=0.0) == pytest.approx(wanted)
