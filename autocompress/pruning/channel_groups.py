"""Groups of coupled channels that can be cut out of a network, each verified by cutting a copy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from autocompress.core.layer_patterns import matches_pattern
from autocompress.core.runtime import Example
from autocompress.core.source import Split
from autocompress.core.task import Task
from autocompress.data.module import call, first_line
from autocompress.errors import ModelError, TechniqueError, nearest
from autocompress.pruning.dependency_graph import CannotCutError, what
from autocompress.pruning.importance import channel_scores
from autocompress.pruning.pruning_graph import WHERE, Coupling, PruningGraph, is_root, own_copy
from autocompress.pruning.selection import Selection, select

IGNORED = "it is declared to be ignored"
UNTRIED = "there was no time to try whether it can be cut"
# most parameters for copies in double precision: those of larger networks would take too much memory
DOUBLED = 10_000_000
# items in a trial's batch; more would only take longer
TRIAL_BATCH = 2


@dataclass(frozen=True)
class Group:
    """A group of coupled channels, which can only be cut together.

    `name` is its first layer, `layers` all those whose output channels are cut, `names` those of them that can name the
    group, in the order of the network: where the first ones are removed, the group takes the name of the next. `kind`
    is equal for groups that are alike: type of the first layer, channels, kernel, places in an image, number of layers.
    Strides are no part of it, so that the inner widths of a stage's blocks are one kind, that of the first block
    included.
    """

    name: str
    channels: int
    kind: str
    layers: tuple[str, ...]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Prunable:
    """The groups that can be cut, and for every other group its first layer with the reason."""

    groups: tuple[Group, ...]
    left_alone: Mapping[str, str]


def prunable_groups(
    module: nn.Module,
    example: Example,
    ignore: Sequence[str] = (),
    out_of_time: Callable[[], bool] = lambda: False,
) -> Prunable:
    """Find every group of coupled channels that can be cut; the module is left as it was.

    A group counts when a copy without half of its channels computes what the whole network computes with these channels
    silenced; all groups are tried at once, and only where that fails halves of them. A group with a layer that `ignore`
    names is left alone. Once `out_of_time` returns True, groups that were not tried yet are left alone; the doubtful
    ones are tried last.

    Raises:
        TechniqueError: when the network cannot be copied, run or traced.
    """
    trials = _Trials(module, example)
    couplings, left_alone = _without_ignored(*trials.graph.couplings(), ignore)
    refused = trials.refused(couplings, out_of_time)
    groups = tuple(_group(trials.graph, coupling) for coupling in couplings if coupling.name not in refused)
    return Prunable(groups, {name: f"{reason}." for name, reason in {**left_alone, **refused}.items()})


def cut(
    module: nn.Module,
    example: Example,
    selection: Selection,
    calibration: Split | None = None,
    task: Task | None = None,
    ignore: Sequence[str] = (),
) -> nn.Module:
    """A copy of the module with weights of its own, without its least important channels.

    The same module, selection and data give the same weights. See `Selection` for what is cut and
    `autocompress.pruning.importance` for the importance of channels. Groups with a layer that `ignore` names are left
    alone.

    Raises:
        TechniqueError: when a group is unknown or cannot be cut, when importance needs data or layers that are not
            there, or when nothing would be cut.
    """
    trials = _Trials(module, example)
    couplings = _chosen(trials, selection.groups, ignore)
    smaller = own_copy(module)
    frozen = {name for name, parameter in smaller.named_parameters() if not parameter.requires_grad}
    training = [part for part in smaller.modules() if part.training]
    graph = PruningGraph(smaller, trials.plain_example)
    scores = channel_scores(graph, couplings, selection.importance, example, calibration, task)
    cuts = select(couplings, scores, selection)
    # try exactly these channels; other weights will do, since whether a cut is right does not depend on their values
    reason = trials.trial(cuts)
    if reason is not None:
        raise TechniqueError(f"these channels cannot be cut together: {reason}.", where=WHERE)
    graph.cut(cuts)
    for name, parameter in smaller.named_parameters():
        parameter.grad = None
        parameter.requires_grad_(parameter.is_floating_point() and name not in frozen)
    for part in training:
        part.training = True
    _require_same_shapes(module, smaller, example)
    return smaller


def outlined(module: nn.Module, example: Example, selection: Selection) -> nn.Module:
    """A copy with the shapes that `cut` would give, for groups that are known to be prunable.

    Nothing is tried, and the choice of channels is arbitrary.

    Raises:
        TechniqueError: when the network cannot be copied or traced, or nothing would be cut.
    """
    smaller = own_copy(module)
    graph = PruningGraph(smaller, example.with_batch(min(TRIAL_BATCH, example.batch)))
    couplings = [coupling for coupling in graph.couplings()[0] if coupling.name in selection.groups]
    # equal scores will do: the number of channels cut depends on the ratio alone
    scores = {coupling.name: torch.zeros(coupling.channels) for coupling in couplings}
    try:
        graph.cut(select(couplings, scores, selection))
    except CannotCutError as reason:
        raise TechniqueError(f"these channels cannot be cut together: {reason}.", where=WHERE) from reason
    return smaller


class _Trials:
    """Tries cuts on copies and compares their outputs with those of the silenced original.

    Copies compute in double precision where the network can, so that different values mean that the cut is wrong;
    weights that are zero are made small, since behind a zero any cut looks right.
    """

    def __init__(self, module: nn.Module, example: Example) -> None:
        self.plain_example = example.with_batch(min(TRIAL_BATCH, example.batch))
        reference = _without_zeros(own_copy(module).eval())
        parameters = sum(weight.numel() for weight in module.parameters())
        doubled = None if parameters > DOUBLED else _doubled(reference, self.plain_example)
        if doubled is None:
            self.example, self.precise = self.plain_example, False
            self.wanted = _call(reference, self.example)
        else:
            reference, self.example, self.wanted = doubled
            self.precise = True
        self.graph = PruningGraph(reference, self.example)

    def trial(self, cuts: Mapping[str, Sequence[int]]) -> str | None:
        """The reason why these channels cannot be cut, None when they can."""
        graph = PruningGraph(own_copy(self.graph.module), self.example)
        try:
            silenced = call(self.graph.silenced(cuts), self.example)
            graph.cut(cuts)
        except CannotCutError as reason:
            return str(reason)
        except Exception as error:  # noqa: BLE001 - whatever torch-pruning raises is the answer
            return f"torch-pruning cannot cut it ({what(error)})"
        try:
            found = call(graph.module, self.example)
        except ModelError as error:
            return f"the network does not run without all of it ({what(error.__cause__ or error)})"
        return self._difference(found, silenced)

    def _difference(self, found: Mapping[str, torch.Tensor], silenced: Mapping[str, torch.Tensor]) -> str | None:
        # small tolerances, since one wrong group among many right ones may hardly change the outputs
        share, floor = (1e-8, 1e-12) if self.precise else (1e-2, 1e-5)
        for name, wanted in silenced.items():
            if found[name].shape != wanted.shape:
                return "the shape of the outputs depends on it"
            if not wanted.is_floating_point():
                continue
            change = _largest(wanted - self.wanted[name])
            error = _largest(found[name] - wanted)
            if error > share * change + floor * _largest(wanted):
                return "not all on the way to the layers that read it works channel by channel"
        return None

    def refused(self, couplings: Sequence[Coupling], out_of_time: Callable[[], bool] = lambda: False) -> dict[str, str]:
        """Groups that cannot be cut, with reasons; see `prunable_groups` for `out_of_time`."""
        halves = {coupling.name: _half(coupling) for coupling in couplings}

        def tried(group: Sequence[Coupling]) -> str | None:
            return self.trial({coupling.name: halves[coupling.name] for coupling in group}) if group else None

        def search(group: Sequence[Coupling]) -> dict[str, str]:
            reason = tried(group)
            if reason is None:
                return {}
            if len(group) == 1:
                return {group[0].name: _explained(group[0], reason)}
            # groups that reorder channels or are cut in many layers most likely fail, so they come last
            by_doubt = sorted(group, key=lambda coupling: (coupling.moves, len(coupling.layers) > 1))
            doubtful = sum(coupling.moves or len(coupling.layers) > 1 for coupling in group)
            middle = len(group) - doubtful if 0 < doubtful < len(group) else len(group) // 2
            first, last = by_doubt[:middle], by_doubt[middle:]
            if out_of_time():
                # the groups without doubt still get one trial
                return {coupling.name: UNTRIED for coupling in (last if tried(first) is None else group)}
            return {**search(first), **search(last)}

        found = search(couplings)
        left = [coupling for coupling in couplings if coupling.name not in found]
        if found and tried(left) is not None:
            found.update(self._refused_together(left, halves))
        return found

    def _refused_together(self, couplings: Sequence[Coupling], halves: Mapping[str, list[int]]) -> dict[str, str]:
        taken: dict[str, list[int]] = {}
        found: dict[str, str] = {}
        for coupling in couplings:
            reason = self.trial({**taken, coupling.name: halves[coupling.name]})
            if reason is None:
                taken[coupling.name] = halves[coupling.name]
            else:
                found[coupling.name] = _explained(coupling, reason)
        return found


def _doubled(module: nn.Module, example: Example) -> tuple[nn.Module, Example, dict[str, torch.Tensor]] | None:
    """A copy in double precision with its example and outputs, None where the network does not run so."""
    wide = _in_double(example)
    try:
        doubled = own_copy(module).double()
        return doubled, wide, call(doubled, wide)
    except Exception:  # noqa: BLE001 - a network with a precision of its own may fail in any way
        return None


def _chosen(trials: _Trials, names: Sequence[str], ignore: Sequence[str]) -> list[Coupling]:
    """The groups of these names, or all that can be cut where no names are given."""
    couplings, left_alone = _without_ignored(*trials.graph.couplings(), ignore)
    known = {coupling.name: coupling for coupling in couplings}
    for name in names:
        if name in left_alone:
            raise TechniqueError(f"group {name!r} is left alone: {left_alone[name]}.", where=WHERE)
        if name not in known:
            raise TechniqueError(f"there is no group named {name!r}.", where=WHERE, hint=nearest(name, known))
    chosen = [coupling for coupling in couplings if not names or coupling.name in names]
    refused = trials.refused(chosen)
    if names and refused:
        name, reason = next(iter(refused.items()))
        raise TechniqueError(f"group {name!r} is left alone: {reason}.", where=WHERE)
    chosen = [coupling for coupling in chosen if coupling.name not in refused]
    if not chosen:
        reasons = sorted({*left_alone.values(), *refused.values()})
        because = f" ({'; '.join(reasons)})" if reasons else ""
        raise TechniqueError(f"there are no channels that could be cut{because}.", where=WHERE)
    return chosen


def _without_ignored(
    couplings: Sequence[Coupling], left_alone: Mapping[str, str], ignore: Sequence[str]
) -> tuple[list[Coupling], dict[str, str]]:
    ignored = {one.name: IGNORED for one in couplings if any(matches_pattern(layer, ignore) for layer in one.layers)}
    return [one for one in couplings if one.name not in ignored], {**left_alone, **ignored}


def _group(graph: PruningGraph, coupling: Coupling) -> Group:
    root = graph.module.get_submodule(coupling.name)
    kernel = root.kernel_size if isinstance(root, nn.modules.conv._ConvNd) else ()
    spatial = graph.graph.spatial.get(root, ())
    parts = [type(root).__name__, str(coupling.channels)]
    parts += ["kernel " + "x".join(map(str, kernel))] if kernel else []
    parts += ["on " + "x".join(map(str, spatial))] if spatial else []
    parts += [f"{len(coupling.layers)} layers"] if len(coupling.layers) > 1 else []
    members = set(coupling.layers)
    names = tuple(name for name, part in graph.module.named_modules() if name in members and is_root(part))
    return Group(coupling.name, coupling.channels, ", ".join(parts), coupling.layers, names)


def _explained(coupling: Coupling, reason: str) -> str:
    # the cause says more than what the trial shows
    if coupling.attends:
        return "it is the width of an attention layer"
    return "a zero-padded shortcut counts on its width" if coupling.padded else reason


def _half(coupling: Coupling) -> list[int]:
    """Half of the group's channels at random places, the same in every block.

    A regular pattern would hide a shift of the channels.
    """
    size = coupling.channels // coupling.blocks
    generator = torch.Generator().manual_seed(coupling.channels)
    inside = sorted(torch.randperm(size, generator=generator)[: size // 2].tolist())
    return [block * size + place for block in range(coupling.blocks) for place in inside]


def _without_zeros(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.is_floating_point():
                noise = 0.1 * torch.randn(parameter.shape, generator=generator).to(parameter)
                parameter.copy_(torch.where(parameter == 0, noise, parameter))
    return module


def _in_double(example: Example) -> Example:
    def widen(array: np.ndarray) -> np.ndarray:
        return array.astype(np.float64) if array.dtype.kind == "f" else array

    if isinstance(example.inputs, dict):
        return replace(example, inputs={name: widen(array) for name, array in example.inputs.items()})
    return replace(example, inputs=tuple(widen(array) for array in example.inputs))


def _largest(values: torch.Tensor) -> float:
    return float(values.abs().max()) if values.numel() else 0.0


def _call(module: nn.Module, example: Example) -> dict[str, torch.Tensor]:
    try:
        return call(module, example)
    except Exception as error:
        raise TechniqueError(f"the model cannot be run on the example ({first_line(error)}).", where=WHERE) from error


def _require_same_shapes(module: nn.Module, smaller: nn.Module, example: Example) -> None:
    before, after = _call(module, example), _call(smaller, example)
    if {name: tensor.shape for name, tensor in before.items()} != {name: t.shape for name, t in after.items()}:
        raise TechniqueError("the outputs have other shapes than before.", where=WHERE)
