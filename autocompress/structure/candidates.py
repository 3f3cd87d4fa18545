"""Structures worth a trial: pruning paths, the structures on them that fit, and the cost of training."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from autocompress.analysis.channel_multiple import MULTIPLES
from autocompress.analysis.divergence import Divergence
from autocompress.analysis.inspection import inspect_module
from autocompress.core.moves import Moves, MoveSpace, Network
from autocompress.core.plan import Plan, Step
from autocompress.core.probes import SMALLEST, Parts, Probes, PruningPath
from autocompress.core.profitable_settings import time_matters
from autocompress.core.search_space import SearchSpace
from autocompress.core.technique import StructureTechnique
from autocompress.core.training_probe import TrainingProbe
from autocompress.core.trial import Trial
from autocompress.core.verdict import Verdict
from autocompress.errors import ENDS_THE_RUN, AutocompressError, TechniqueError, raised_as
from autocompress.planner.target import target_of
from autocompress.strategies import fits_with_room
from autocompress.structure.latency_model import LatencyModel, work_of
from autocompress.structure.measuring import (
    MEASURE_SECONDS,
    MeasuredStructure,
    StructureMeasurer,
    best_of_smallest,
    measure_samples,
    measure_smallest,
    multiple_of,
)
from autocompress.structure.path import GreedySearch, options_of, path_of
from autocompress.structure.size_model import SizeModel
from autocompress.structure.space import NoMoves, PruningSpace
from autocompress.system.time_limit import TimeLimit
from autocompress.training.cost import measure_training, with_bracket
from autocompress.training.schedule import PLAIN

# most measurements that the latency model is fitted to, those that correct it included
MOST_MEASURED = 10
# measured latency may exceed the prediction by this share without a correction of the model
CLOSE = 0.03
# where nothing fitted but a structure exceeded its budgets by at most this factor, the space is searched once more, for
# limits that are multiplied by FURTHER
WORTH_ANOTHER = 1.3
FURTHER = 0.85
# largest share of latency or size that the next structure may keep where smaller ones are wanted
LESS = 0.9


def find_paths(measurer: StructureMeasurer, probes: Probes, verdict: Verdict, seconds: float | None) -> Probes:
    """Find the pruning paths: what can be removed from the network, and the structures worth measuring.

    Returns the probes with them. `verdict` judges the unchanged model. Where not even the smallest structure keeps the
    budgets, it is the only one, and nothing is ordered. A second attempt aims for smaller structures, since nothing
    that the first one proposed fitted when it was measured. After so many `seconds` nothing more is measured, and the
    remaining moves are ordered by what they are predicted to save.
    """
    run = measurer.run
    asked = target_of(verdict, run.objective.shrinks)
    limit = TimeLimit(seconds, run.builder.export_seconds + MEASURE_SECONDS)
    space, probes = _space(measurer, probes, limit)
    smallest: list[MeasuredStructure] = []
    if not limit.is_too_short():
        smallest = measure_smallest(measurer, space, asked, limit)
        probes = replace(probes, smallest=best_of_smallest(smallest))
    if probes.smallest is not None and asked.missed(probes.smallest.latency, probes.smallest.size):
        only = PruningPath(SMALLEST, (probes.smallest,))
        return replace(probes, paths=(only,) if probes.smallest.steps else ())
    measured = measure_samples(measurer, space, limit)
    if not measured:
        return probes
    target = asked.tighter(FURTHER ** (measurer.attempt - 1))
    # the original's outputs are computed only where there is time to measure divergences
    divergence = functools.cache(lambda: Divergence(run.builder.module, run.example, measurer.split))
    # cached: paths share their first moves, and a corrected path repeats most of its moves
    diverges = functools.cache(lambda moves: space.look(moves, divergence().of))

    def path_by(*techniques: StructureTechnique) -> PruningPath:
        """The path by the moves of these techniques.

        The latency model is corrected by measurements where its predictions were too optimistic.
        """
        name = " and ".join(technique.reduces for technique in techniques)
        while True:
            greedy = GreedySearch(
                _predictor(measurer, space, measured, smallest),
                diverges,
                target,
                run.objective.shrinks is not None,
                lambda sentence: measurer.tell(f"{name}: {sentence}"),
                limit.is_over,
            )
            points = greedy.path(options_of(space, [technique.name for technique in techniques]))
            expected = greedy.expected(points)
            if expected is None or len(measured) >= MOST_MEASURED or limit.is_too_short():
                return path_of(name, points, space)
            steps = space.steps(expected.moves)
            both = measurer.measured(steps)
            known = any(one.moves == expected.moves for one in measured)
            if both is None or both[0] <= expected.latency * (1 + CLOSE) or known:
                return path_of(name, points, space)
            # the prediction was too optimistic: the new measurement corrects the model
            measured.append(MeasuredStructure(expected.moves, steps, *both))

    techniques = _structure_techniques(measurer)
    paths = {technique: path_by(technique) for technique in techniques}
    leading = [technique for technique in techniques if paths[technique].structures]
    found = [paths[technique] for technique in leading]
    if len(leading) > 1:
        found.append(path_by(*leading))
    return replace(probes, paths=tuple(path for path in found if path.structures))


def _structure_techniques(measurer: StructureMeasurer) -> list[StructureTechnique]:
    return [one for one in measurer.run.tools.techniques if isinstance(one, StructureTechnique)]


def _space(measurer: StructureMeasurer, probes: Probes, limit: TimeLimit) -> tuple[PruningSpace, Probes]:
    """The space of all structure techniques' moves in this network, and the probes with its parts."""
    run = measurer.run
    measurer.tell("looking for parts of the network that can go")
    # where only bytes count, the smallest multiple pays
    multiple = multiple_of(measurer, limit) if time_matters(run.profile) else MULTIPLES[0]
    module, example = run.builder.module, run.example
    network = Network(
        module,
        example,
        measurer.facts,
        lambda other: inspect_module(other, example),
        # where it was not measured, the largest multiple is safe
        multiple or MULTIPLES[-1],
        run.profile.ignore,
        limit.is_over,
    )
    techniques = _structure_techniques(measurer)
    space = PruningSpace(network, {technique.name: _moves(measurer, technique, network) for technique in techniques})
    parts = {
        technique.name: Parts(technique.parts, tuple(moves.names), dict(moves.left_alone))
        for technique, moves in zip(techniques, space.spaces.values(), strict=True)
    }
    return space, replace(probes, parts=parts, channel_multiple=multiple)


def _moves(measurer: StructureMeasurer, technique: StructureTechnique, network: Network) -> MoveSpace:
    """The technique's moves in the network; none where it fails, with the reason."""
    try:
        with raised_as(TechniqueError, technique.name):
            return technique.moves(network)
    except ENDS_THE_RUN:
        raise
    except AutocompressError as error:
        return NoMoves(measurer.run.failed(f"looking for moves of {technique.name}", error))


def _predictor(
    measurer: StructureMeasurer,
    space: PruningSpace,
    measured: Sequence[MeasuredStructure],
    smallest: Sequence[MeasuredStructure],
) -> Callable[[Moves], tuple[float, float]]:
    works = [(work_of(space.layers(one.moves)), one.latency) for one in (*measured, *smallest)]
    latencies = LatencyModel.fit(measurer.facts, works, measurer.layer_share)
    # the smallest structures also narrow layers without moves of their own; these do little work but may hold many
    # weights, so the size model leaves the smallest structures out
    known = [(space.layers(one.moves), one.size) for one in measured]
    value_bytes = measurer.value_bytes
    sizes = SizeModel.fit(known, measurer.run.baseline.size_bytes, lambda layer: value_bytes[layer.name])

    def predict(moves: Moves) -> tuple[float, float]:
        layers = space.layers(moves)
        return latencies.predict(work_of(layers)), sizes.predict(layers)

    return predict


def fitting_structures(search_space: SearchSpace, history: Iterable[Trial]) -> list[tuple[Step, ...]]:
    """For every pruning path the largest structure that fits, in order of their untrained scores.

    The best score comes first.
    """
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
    """True when no structure fitted its size and time budgets but one came close.

    With the measurements at hand a second search may then find one that fits.
    """
    trials = list(history)
    if fitting_structures(search_space, trials):
        return False
    close = [t for t in trials if t.plan.structure and t.verdict.findings]
    return any(trial.verdict.structural.overshoot <= WORTH_ANOTHER for trial in close)


def smaller_structure(
    measurer: StructureMeasurer, probes: Probes, reached: tuple[Step, ...]
) -> tuple[Step, ...] | None:
    """The next structure on the same path as `reached`, at least a tenth smaller or faster than it.

    The objective says which of the two. It is measured, without training, before it is accepted. None where the path
    ends.
    """
    axis = 1 if measurer.run.objective.shrinks == "size" else 0
    for path in probes.paths:
        place = next((place for place, one in enumerate(path.structures) if one.steps == reached), None)
        here = measurer.measured(reached) if place is not None else None
        if place is None or here is None:
            continue
        predicted = (path.structures[place].latency, path.structures[place].size)
        for one in path.structures[place + 1 :]:
            if (one.latency, one.size)[axis] > LESS * predicted[axis]:
                continue
            measurer.tell(f"measuring a structure beyond the budgets, {path.name}")
            there = measurer.measured(one.steps)
            if there is not None and there[axis] <= LESS * here[axis]:
                return one.steps
    return None


def time_training(
    measurer: StructureMeasurer,
    structures: Sequence[tuple[Step, ...]],
    most_items: int | None = None,
    seconds_left: float | None = None,
) -> TrainingProbe | None:
    """Time training on the most promising structure that fits, and open a first bracket of all structures.

    Steps are timed with at most `most_items` items where that is given. It takes a small share of the `seconds_left`.
    None where none of them can be trained.
    """
    run = measurer.run
    if not structures or run.task is None:
        return None
    measurer.tell("timing a few steps of training")
    for place, structure in enumerate(structures):
        try:
            with raised_as(TechniqueError, "training"):
                student = run.builder.untrained(structure)
                training = measure_training(
                    student,
                    run.builder.module,
                    run.task,
                    run.example,
                    most_items,
                    run.builder.recipe or PLAIN,
                    seconds_left,
                )
        except ENDS_THE_RUN:
            raise
        except AutocompressError as error:
            # a structure that cannot be made or trained is not: the next one may be
            run.failed(f"timing training of {Plan((structure,))}", error)
            continue
        return training and with_bracket(training, structures[place:])
    return None
