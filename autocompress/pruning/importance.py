"""Importance of the channels in a group, by one of four criteria.

- `group_magnitude`: L2 norm of all weights that go with the channel (Fang et al., "DepGraph", CVPR 2023).
- `taylor`: change of the loss to first order when the channel is gated off, |sum of weight x gradient| per layer,
  averaged over the group's layers and over batches (Molchanov et al., "Importance Estimation for Neural Network
  Pruning", CVPR 2019, with the gates of section 3.2: what moves all logits alike has no effect, whatever its size).
- `batch_norm_scale`: scale of the channel's batch norm (Liu et al., "Learning Efficient Convolutional Networks
  through Network Slimming", ICCV 2017).
- `mean_activation`: mean absolute value at the layers that read the channel, after the non-linearity (Molchanov et
  al., "Pruning Convolutional Neural Networks for Resource Efficient Inference", ICLR 2017; channels that are mostly
  zero matter least: Hu et al., "Network Trimming", 2016).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch_pruning as tp
from torch import nn

from autocompress.core.output_kinds import OutputFact
from autocompress.core.outputs import main_output
from autocompress.core.runtime import Example
from autocompress.core.source import Split
from autocompress.core.targets import mapped
from autocompress.core.task import Task
from autocompress.data.augmentation_bank import AugmentationBank
from autocompress.data.module import call_by, first_line, inference_mode_of, place_of, returned, unfused_encoder_layers
from autocompress.data.named_outputs import floating
from autocompress.data.output_recognition import kinds_of
from autocompress.data.task_loss import task_loss
from autocompress.errors import TechniqueError
from autocompress.pruning.dependency_graph import group_item
from autocompress.pruning.pruning_graph import READERS, WHERE, Coupling, PruningGraph

IMPORTANCES = ("group_magnitude", "taylor", "batch_norm_scale", "mean_activation")
ITEMS = 256
BATCH = 32


class MeanActivation(tp.importance.Importance):  # type: ignore[misc]  # torch-pruning has no types
    """Importance as the mean absolute value of a channel at the layers that read it."""

    def __init__(self, means: Mapping[nn.Module, torch.Tensor]) -> None:
        self.means = means

    def __call__(self, group: Any) -> torch.Tensor | None:
        """Scores of a group's channels, None where no layer reads them."""
        total = torch.zeros(len(group[0].idxs))
        known = False
        for item in group:
            means = self.means.get(item.dep.target.module)
            if means is not None and item.dep.handler in READERS:
                total.scatter_add_(0, torch.tensor(item.root_idxs), means[item.idxs].cpu())
                known = True
        return total if known else None


def channel_scores(
    graph: PruningGraph,
    couplings: Sequence[Coupling],
    importance: str,
    example: Example,
    calibration: Split | None,
    task: Task | None,
) -> dict[str, torch.Tensor]:
    """Scores of all channels, by group; higher is more important. Leaves gradients in the graph's module.

    Raises:
        TechniqueError: when data are needed and missing, or a group has no layers to take its scores from.
    """
    groups = {c.name: _in_order(graph.graph.group_of(graph.module.get_submodule(c.name), range(c.channels)))
              for c in couplings}  # fmt: skip
    if importance == "group_magnitude":
        measure = tp.importance.GroupMagnitudeImportance(p=2, normalizer=None)
        return {name: _score(measure, group, importance) for name, group in groups.items()}
    if importance == "batch_norm_scale":
        measure = tp.importance.BNScaleImportance(normalizer=None)
        return {name: _score(measure, group, importance) for name, group in groups.items()}
    if calibration is None:
        raise TechniqueError(f"{importance} needs calibration data, and there are none.", where=WHERE)
    if importance == "mean_activation":
        measure = MeanActivation(_mean_activations(graph.module, groups.values(), example, calibration))
        return {name: _score(measure, group, importance) for name, group in groups.items()}
    measure = tp.importance.GroupTaylorImportance(normalizer=None, multivariable=True)
    totals = {name: torch.zeros(len(group[0].idxs)) for name, group in groups.items()}
    for _ in _gradients(graph.module, example, calibration, task):
        for name, group in groups.items():
            totals[name] += _score(measure, group, importance)
    return totals


def _score(measure: Callable[[Any], torch.Tensor | None], group: Any, importance: str) -> torch.Tensor:
    channels = len(group[0].idxs)
    try:
        scores = measure(group)
    except (IndexError, RuntimeError):
        # torch-pruning expects the first layer that it takes scores from to have all channels
        scores = None
    if scores is None or len(scores) < channels:
        name = group[0].dep.target.name.split(" ")[0]
        lacks = "batch norm with scales over all its channels" if importance == "batch_norm_scale" else "layer for it"
        raise TechniqueError(
            f"group {name!r} has no {lacks}.", where=WHERE, hint=f"Another importance than {importance} may do."
        )
    # a layer after a flattening has more channels than the group, whose scores come first
    scores = scores[:channels].detach().float().cpu()
    if not bool(torch.isfinite(scores).all()):
        raise TechniqueError(f"scores by {importance} are not finite.", where=WHERE)
    return scores


def _in_order(group: Any) -> Any:
    """The group with the indices of each layer in order.

    torch-pruning sorts some of them without their indices in the first layer.
    """
    for number, item in enumerate(group.items):
        roots = dict(zip(item.idxs, item.root_idxs, strict=True))
        group[number] = group_item(item.dep, {index: roots[index] for index in sorted(roots)})
    return group


def _batches(
    example: Example, calibration: Split, place: torch.device
) -> Iterator[tuple[dict[str, torch.Tensor], Any]]:
    views = AugmentationBank(calibration.first(ITEMS), example, batch=BATCH, seed=0)
    known = example.tensors()
    for step in range(views.per_epoch):
        batch = views.at(step)
        inputs = {name: tensor.to(place, known[name].dtype) for name, tensor in batch.inputs.items()}
        yield inputs, mapped(lambda tensor: tensor.to(place), batch.targets)


def _mean_activations(
    module: nn.Module, groups: Any, example: Example, calibration: Split
) -> dict[nn.Module, torch.Tensor]:
    """For each layer that reads a group, the mean absolute value of each of its input channels."""
    readers = {item.dep.target.module for group in groups for item in group if item.dep.handler in READERS}
    sums: dict[nn.Module, torch.Tensor] = {}

    def record(part: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        dim = inputs[0].ndim - 1 if isinstance(part, nn.Linear) else 1
        means = inputs[0].abs().mean([axis for axis in range(inputs[0].ndim) if axis != dim])
        sums[part] = sums[part] + means if part in sums else means

    handles = [reader.register_forward_pre_hook(record) for reader in readers]
    try:
        with inference_mode_of(module), unfused_encoder_layers():
            for inputs, _ in _batches(example, calibration, place_of(module)):
                returned(module, inputs, example)
    finally:
        for handle in handles:
            handle.remove()
    return sums


def _gradients(module: nn.Module, example: Example, calibration: Split, task: Task | None) -> Iterator[None]:
    """Compute the gradients of the loss into the module's parameters, one batch after the other."""
    module.eval()
    kinds = kinds_of(example, module, task)
    for inputs, targets in _batches(example, calibration, place_of(module)):
        module.zero_grad(set_to_none=False)
        with torch.enable_grad(), unfused_encoder_layers():
            outputs = call_by(module, inputs, example)
            try:
                loss = _loss(task, outputs, targets, kinds)
            except Exception as error:
                raise TechniqueError(
                    f"the loss cannot be taken on calibration data ({first_line(error)}).",
                    where=WHERE,
                    hint="Give the task a loss that fits the model.",
                ) from error
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
        for parameter in module.parameters():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        yield


def _loss(
    task: Task | None, outputs: dict[str, torch.Tensor], targets: Any, kinds: Mapping[str, OutputFact]
) -> torch.Tensor:
    """The loss that gradients are taken of: the task's own, without a teacher.

    Recovery adds the distance to a teacher; the network's distance to itself would be zero. In its place stand the mean
    squares of the outputs that the loss does not look at, relative to themselves where there are several.
    """
    own = None if task is None else task_loss(task, outputs, targets, kinds)
    terms = [] if own is None else [own]
    if task is None or task.loss is None:
        looked_at = () if own is None else (main_output(outputs),)
        squares = [values.square().mean() for name, values in floating(outputs).items() if name not in looked_at]
        if not terms and len(squares) == 1:
            return squares[0]
        terms += [square / square.detach().clamp_min(1e-12) for square in squares]
    return terms[0] if len(terms) == 1 else torch.stack(terms).sum()
