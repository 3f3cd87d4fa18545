"""Before anything is trained: what can go, what it saves here, and in which order; then what training costs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from autocompress.analysis.channel_multiple import MULTIPLES
from autocompress.analysis.divergence import Divergence
from autocompress.core.plan import Step
from autocompress.core.probes import SMALLEST, Probes, PruningPath, TrainingProbe
from autocompress.core.profitable_settings import time_matters
from autocompress.core.search_space import SearchSpace
from autocompress.core.trial import Trial
from autocompress.core.verdict import Verdict
from autocompress.planner.target import target_of
from autocompress.strategies import fits_with_room
from autocompress.structure.latency_model import LatencyModel, work_of
from autocompress.structure.measuring import (
    MEASURE_SECONDS,
    Measured,
    StructureMeasurer,
    measure_ends,
    measure_samples,
    multiple_of,
    smallest_of,
)
from autocompress.structure.network import PrunableNetwork
from autocompress.structure.path import GreedySearch, Moves, path_of
from autocompress.structure.size_model import SizeModel
from autocompress.structure.space import Cut, PruningSpace
from autocompress.system.time_limit import TimeLimit
from autocompress.training.cost import measure_training, with_bracket

# measurements that the latency model is fitted to, those that correct it among them
MOST_MEASURED = 10
# predictions that are this close need no correction
CLOSE = 0.03
# where nothing fitted but something came this close, the ways are looked for anew, and further down
WORTH_ANOTHER = 1.3
FURTHER = 0.85
# objectives under which smaller structures than the budgets ask for are worth their training, and the least part of
# latency or size that the next one leaves out
SHRINKING = ("latency", "size", "serving_cost")
LESS = 0.9


def find_paths(
    structure_measurer: StructureMeasurer, probes: Probes, verdict: Verdict, seconds: float | None
) -> Probes:
    """The probes with what can go and the structures worth measuring. `verdict` judges the model as it is.

    Where not even the smallest structure keeps the budgets, it is the only one, and nothing is ordered. A second
    attempt goes further down: nothing that the first one proposed fitted when it was measured. After so many `seconds`
    nothing more is measured, and what is left to order is ordered by what it is predicted to save.
    """
    bench = structure_measurer.bench
    asked = target_of(verdict, bench.profile.objective)
    target = asked.tighter(FURTHER ** (structure_measurer.attempt - 1))
    limit = TimeLimit(seconds, bench.export_seconds + MEASURE_SECONDS)
    structure_measurer.said("looking for blocks and channels that can go")
    # where only bytes count, every step of widths pays
    multiple = multiple_of(structure_measurer, limit) if time_matters(bench.profile) else MULTIPLES[0]
    # where it was not measured, the widest is safe
    step = multiple or MULTIPLES[-1]
    network = PrunableNetwork(
        bench.module, bench.example, structure_measurer.facts, step, bench.profile.ignore, limit.is_over
    )
    pruning_space = network.pruning_space
    names = tuple(name for kind in pruning_space.groups.values() for name in kind)
    probes = replace(
        probes,
        blocks=tuple(pruning_space.blocks),
        groups=names,
        left_alone=network.left_alone,
        channel_multiple=multiple,
    )
    ends: list[Measured] = []
    if not limit.is_too_short():
        ends = measure_ends(structure_measurer, pruning_space, asked, limit)
        probes = replace(probes, smallest=smallest_of(ends))
    if probes.smallest is not None and asked.missed(probes.smallest.latency, probes.smallest.size):
        only = PruningPath(SMALLEST, (probes.smallest,))
        return replace(probes, paths=(only,) if probes.smallest.steps else ())
    measured = measure_samples(structure_measurer, pruning_space, limit)
    if not measured:
        return probes
    # what the original gives is asked for only where there is time to order by it
    divergence = functools.cache(lambda: Divergence(bench.module, bench.example, structure_measurer.split))
    # paths share their beginnings, and a corrected one most of itself
    diverges = functools.cache(lambda cut: network.with_cut(cut, divergence().of))

    def path_by(name: str, *moves: Moves) -> PruningPath:
        while True:
            descent = GreedySearch(
                _predictor(structure_measurer, pruning_space, measured, ends),
                diverges,
                target,
                bench.profile.objective in SHRINKING,
                lambda sentence: structure_measurer.said(f"{name}: {sentence}"),
                limit.is_over,
            )
            points = descent.path(*moves)
            expected = descent.expected(points)
            if expected is None or len(measured) >= MOST_MEASURED or limit.is_too_short():
                return path_of(name, points, pruning_space)
            steps = pruning_space.steps(expected.cut)
            both = structure_measurer.measured(steps)
            if both is None or both[0] <= expected.latency * (1 + CLOSE) or _knows(measured, expected.cut):
                return path_of(name, points, pruning_space)
            # the model was too hopeful here: what was just measured corrects it
            measured.append(Measured(expected.cut, steps, *both))

    paths = [path_by("depth", pruning_space.block_moves), path_by("width", pruning_space.width_moves)]
    if all(found.structures for found in paths):
        paths.append(path_by("depth and width", pruning_space.block_moves, pruning_space.width_moves))
    return replace(probes, paths=tuple(found for found in paths if found.structures))


def _knows(measured: Sequence[Measured], cut: Cut) -> bool:
    return any(one.cut == cut for one in measured)


def _predictor(
    structure_measurer: StructureMeasurer,
    pruning_space: PruningSpace,
    measured: Sequence[Measured],
    ends: Sequence[Measured],
) -> Callable[[Cut], tuple[float, float]]:
    works = [(work_of(pruning_space.layers(one.cut)), one.latency) for one in (*measured, *ends)]
    latencies = LatencyModel.fit(pruning_space.facts, works, structure_measurer.layer_share)
    # what the smallest structures narrow beyond their cuts does little work but may hold many weights
    known = [(pruning_space.layers(one.cut), one.size) for one in measured]
    value_bytes = structure_measurer.value_bytes
    sizes = SizeModel.fit(known, structure_measurer.bench.baseline.size_bytes, lambda layer: value_bytes[layer.name])

    def predict(cut: Cut) -> tuple[float, float]:
        layers = pruning_space.layers(cut)
        return latencies.predict(work_of(layers)), sizes.predict(layers)

    return predict


def fitting_structures(search_space: SearchSpace, history: Iterable[Trial]) -> list[tuple[Step, ...]]:
    """Of every pruning path, the structure that leaves most of the network and fits; the best untrained score first."""
    trials = list(history)
    found: dict[tuple[Step, ...], float] = {}
    for recipe in (recipe for recipe in search_space.recipes if recipe.nested):
        places = {
            recipe.place(trial.plan): trial for trial in trials if recipe.holds(trial.plan) and fits_with_room(trial)
        }
        if places:
            trial = places[min(place for place in places if place is not None)]
            score = trial.measurement.readings.get("score")
            found[recipe.structure_of(trial.plan)] = score.value if score else 0.0
    return sorted(found, key=lambda structure: -found[structure])


def nearly_fitted(search_space: SearchSpace, history: Iterable[Trial]) -> bool:
    """True when no structure fitted its size and time budgets but one came close: a better prediction may find one."""
    trials = list(history)
    if fitting_structures(search_space, trials):
        return False
    close = [t for t in trials if t.plan.structure and t.verdict.findings]
    return any(trial.verdict.structural.overshoot <= WORTH_ANOTHER for trial in close)


def smaller_structure(
    structure_measurer: StructureMeasurer, probes: Probes, reached: tuple[Step, ...]
) -> tuple[Step, ...] | None:
    """The next structure on the way of one that was recovered, by at least a tenth smaller or faster than that.

    Which of the two is the objective's. It is measured, not trained, before it is believed. None where the way ends.
    """
    axis = 1 if structure_measurer.bench.profile.objective == "size" else 0
    for path_by in probes.paths:
        place = next((place for place, one in enumerate(path_by.structures) if one.steps == reached), None)
        here = structure_measurer.measured(reached) if place is not None else None
        if place is None or here is None:
            continue
        predicted = (path_by.structures[place].latency, path_by.structures[place].size)
        for one in path_by.structures[place + 1 :]:
            if (one.latency, one.size)[axis] > LESS * predicted[axis]:
                continue
            structure_measurer.said(f"measuring a structure beyond the budgets, {path_by.name}")
            there = structure_measurer.measured(one.steps)
            if there is not None and there[axis] <= LESS * here[axis]:
                return one.steps
    return None


def time_training(
    structure_measurer: StructureMeasurer, structures: Sequence[tuple[Step, ...]], most_items: int | None = None
) -> TrainingProbe | None:
    """What training costs, taken from the most promising structure that fits, with a first bracket of all of them.

    Steps are timed with at most so many items where that is given.
    """
    task = structure_measurer.bench.task
    if not structures or task is None:
        return None
    structure_measurer.said("timing a few steps of training")
    student = structure_measurer.bench.shaped(structures[0])
    training = measure_training(
        student, structure_measurer.bench.module, task, structure_measurer.bench.example, most_items
    )
    return training and with_bracket(training, structures)
