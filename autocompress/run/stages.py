"""What is known before anything is tried: baseline, facts, probes and the search space that follows; and what is
added to it while nothing meets the budgets: structure, then one round of training after the other."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from autocompress.analysis.inspection import inspect_module
from autocompress.analysis.layer_probes import run_probes
from autocompress.analysis.model_probes import probe_model
from autocompress.analysis.prediction import BaselineFigures
from autocompress.analysis.probe_measuring import ProbeBench
from autocompress.analysis.weights import with_weights
from autocompress.core.facts import Facts
from autocompress.core.measurement import Measurement
from autocompress.core.plan import Plan, Step
from autocompress.core.probes import Probes
from autocompress.core.profitable_settings import time_matters
from autocompress.core.record import Journal
from autocompress.core.search_space import SearchSpace
from autocompress.core.technique import ArtifactTechnique, Technique
from autocompress.data.example_inputs import feed_of
from autocompress.evaluation.workbench import Workbench
from autocompress.planner.rules import Situation
from autocompress.planner.structure_recipes import fastest
from autocompress.planner.tree import build_search_space
from autocompress.statistics.judging import judge_by
from autocompress.structure.candidates import (
    SHRINKING,
    find_paths,
    fitting_structures,
    smaller_structure,
    time_training,
)
from autocompress.structure.measuring import StructureMeasurer
from autocompress.system.locks import folder_lock, measuring
from autocompress.system.progress import Event, Listener
from autocompress.training.cost import with_bracket, with_next_rung

# of a step of training that is timed only to plan
TIMED_ITEMS = 16


@dataclass(frozen=True, eq=False)
class Planned:
    """What is known before anything is tried. `structure_attempts` tells how often structure was looked at."""

    baseline: Measurement
    facts: Facts
    probes: Probes
    search_space: SearchSpace
    structure_attempts: int

    @property
    def fits(self) -> bool:
        """True when the model keeps its size and time budgets as it is."""
        return self.search_space.affirms("fits")


def plan_run(bench: Workbench, journal: Journal, progress: Listener) -> Planned:
    """Baseline, facts, probes and search space; what an earlier sitting measured is not measured again."""
    # workers of one run go by the same measurements, or their search spaces would differ: the first one takes them
    with _alone(bench, progress):
        noted = journal.noted("baseline")
        if noted is None:
            progress(Event("baseline", "measuring the model as it is"))
        baseline = Measurement.from_json(noted) if noted else measure_baseline(bench)
        journal.note("baseline", baseline.to_json())
        facts = with_weights(inspect_module(bench.module, bench.example), bench.module)
        probes = _probe(bench, journal, facts, progress)
    structure_attempts = int(journal.noted("structure_attempts") or 0)
    return _planned(bench, baseline, facts, probes, progress, structure_attempts=structure_attempts)


def with_structure(
    planned: Planned, bench: Workbench, journal: Journal, progress: Listener, seconds: float | None
) -> Planned:
    """The same with what can go from the network, and the pruning paths that are worth measuring, looked for in about
    so many seconds where they are given.

    Where that was looked for already, it is looked for once more, with fresh measurements and further down.
    """
    attempt = planned.structure_attempts + 1
    structure_measurer = _structure_measurer(planned, bench, journal, progress, attempt)
    with _alone(bench, progress):
        probes = _latest(planned, journal)
        if (journal.noted("structure_attempts") or 0) < attempt:
            if structure_measurer is not None:
                probes = find_paths(structure_measurer, probes, judge_by(bench.profile, planned.baseline), seconds)
            journal.note("probes", probes.to_json())
            journal.note("structure_attempts", value=attempt)
    return _planned(bench, planned.baseline, planned.facts, probes, progress, structure_attempts=attempt)


def with_training(
    planned: Planned,
    bench: Workbench,
    journal: Journal,
    progress: Listener,
    seconds_left: float | None,
    *,
    reached: Sequence[Plan] = (),
    structures: Sequence[tuple[Step, ...]] = (),
) -> Planned | None:
    """The same with one more round of training, None where there is nothing to train or no time for it.

    The structures that just fit come first. Where the objective is a small or a fast file and there is time left, a
    smaller one is trained as soon as one of the last bracket is among the plans that `reached` their budgets, the best
    first. `structures` stand in where nothing was measured yet; training is then timed in small batches, which
    take little memory.
    """
    structure_measurer = _structure_measurer(planned, bench, journal, progress)
    train = bench.task.train if bench.task else None
    if structure_measurer is None or train is None:
        return None
    with _alone(bench, progress):
        probes = _latest(planned, journal)
        if _rungs(probes) <= _rungs(planned.probes):
            training = probes.training
            if training is None:
                found = structures or fitting_structures(planned.search_space, journal.trials())
                training = time_training(structure_measurer, found, TIMED_ITEMS if structures else None)
            elif seconds_left is not None and bench.profile.objective in SHRINKING:
                bracket = training.brackets[-1].structures
                last = [plan.structure for plan in reached if plan.structure in bracket]
                if last:
                    smaller = smaller_structure(structure_measurer, probes, last[0])
                    training = None if smaller is None else with_bracket(training, [smaller])
            training = training and with_next_rung(training, len(train), seconds_left)
            if training is None:
                return None
            probes = replace(probes, training=training)
            journal.note("probes", probes.to_json())
    return _planned(
        bench, planned.baseline, planned.facts, probes, progress, structure_attempts=planned.structure_attempts
    )


def _alone(bench: Workbench, progress: Listener) -> AbstractContextManager[None]:
    return folder_lock(bench.workspace.checkpoints, lambda: progress(Event("probes", "waiting for another worker")))


def _latest(planned: Planned, journal: Journal) -> Probes:
    """What another worker may have added to the probes meanwhile counts for all."""
    noted = journal.noted("probes")
    return Probes.from_json(noted) if noted else planned.probes


def _rungs(probes: Probes) -> int:
    return probes.training.rungs if probes.training else 0


def _planned(
    bench: Workbench,
    baseline: Measurement,
    facts: Facts,
    probes: Probes,
    progress: Listener,
    *,
    structure_attempts: int,
) -> Planned:
    techniques: Sequence[Technique] = [
        t for t in bench.tools.techniques if structure_attempts or isinstance(t, ArtifactTechnique)
    ]
    latency = baseline.readings["latency_ms"].statistic(bench.profile.protocol.statistic)
    whole = BaselineFigures(latency, bench.baseline.size_bytes, probes.operators)
    situation = Situation(facts, probes, bench.profile, bench.task, judge_by(bench.profile, baseline), whole)
    search_space = build_search_space(situation, techniques, frozenset({bench.tools.runtime.format}))
    recipes = ", ".join(recipe.name for recipe in search_space.recipes) or "none"
    progress(Event("search_space", f"recipes: {recipes}; refused: {', '.join(search_space.refusals) or 'none'}"))
    return Planned(baseline, facts, probes, search_space, structure_attempts)


def _structure_measurer(
    planned: Planned, bench: Workbench, journal: Journal, progress: Listener, attempt: int = 1
) -> StructureMeasurer | None:
    split = bench.task.calibration if bench.task else None
    finishes = [recipe for recipe in planned.search_space.recipes if not recipe.structures]
    if split is None:
        return None
    # in float, whose latency and size are known, where no quantization pays
    finish: tuple[Step, ...] = ()
    expected, measured = (1.0, 1.0), True
    if finishes:
        recipe = fastest(finishes)
        finish = next(recipe.plans()).finish
        expected = recipe.predicted_latency or 1.0, recipe.predicted_size or 1.0
        probe = planned.probes.with_settings(finish[0].technique, finish[0].settings)
        measured = probe is not None and probe.whole
    microbenchmarks, layer_share = planned.probes.microbenchmarks, None
    if microbenchmarks is not None:
        latency = planned.baseline.readings["latency_ms"].statistic(bench.profile.protocol.statistic)
        layer_share = microbenchmarks.layer_ms * sum(1 for layer in planned.facts.layers if layer.macs) / latency
    return StructureMeasurer(
        bench, journal, planned.facts, finish, split, progress, expected, measured, attempt, layer_share
    )


def _probe(bench: Workbench, journal: Journal, facts: Facts, progress: Listener) -> Probes:
    noted = journal.noted("probes")
    if noted:
        return Probes.from_json(noted)
    techniques = [t for t in bench.tools.techniques if isinstance(t, ArtifactTechnique)]
    tools = bench.tools

    def said(sentence: str) -> None:
        progress(Event("probes", sentence))

    probe_bench = ProbeBench(techniques, tools.runtime, tools.device, bench.profile, bench.machine, said)
    probes = run_probes(facts, probe_bench)
    if time_matters(bench.profile):
        probes = probe_model(bench.baseline, bench.example, facts, probes, probe_bench)
    probes = replace(probes, operators=_operators(bench))
    journal.note("probes", probes.to_json())
    return probes


def _operators(bench: Workbench) -> dict[str, float]:
    """The share of the model's time by type of operator; nothing where the runtime does not tell."""
    options = bench.profile.runtime
    inputs = feed_of(bench.baseline, bench.example, bench.profile.protocol.batch)
    shares: dict[str, float] = {}
    with measuring():
        slowest = bench.tools.runtime.slowest_operators(bench.baseline, inputs, options.threads, options.options)
    for _, type_, share in slowest:
        shares[type_] = shares.get(type_, 0.0) + share
    return shares


def measure_baseline(bench: Workbench) -> Measurement:
    """Size, latency, memory and the validation data's scores of the model as it is."""
    measurement = bench.measure_size(bench.baseline).with_(bench.measure_time(bench.baseline))
    split = bench.task.validation if bench.task else None
    return measurement if split is None else measurement.with_(bench.measure_score(bench.baseline, split))
