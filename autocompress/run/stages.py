"""The stages of planning: baseline, facts, probes, search space, and its extensions.

The extensions follow while nothing meets the budgets: structure, then training, one rung after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from autocompress.analysis.layer_probes import run_probes
from autocompress.analysis.model_probes import probe_model
from autocompress.analysis.prediction import BaselineFigures
from autocompress.analysis.probe_measuring import ProbeMeasurer
from autocompress.core.facts import Facts
from autocompress.core.measurement import Measurement
from autocompress.core.plan import ACCURACY_STAGES, Plan, Step
from autocompress.core.probes import Probes
from autocompress.core.profitable_settings import time_matters
from autocompress.core.search_space import SearchSpace
from autocompress.core.technique import ArtifactTechnique, Technique
from autocompress.core.verdict import Verdict
from autocompress.data.example_inputs import feed_of
from autocompress.data.task_loss import teachers_of
from autocompress.errors import ENDS_THE_RUN, AutocompressError, RuntimeFailureError, raised_as
from autocompress.evaluation.run import Run
from autocompress.planner.rules import Situation
from autocompress.planner.tree import build_search_space
from autocompress.run.plausibility import doubts_about_answers
from autocompress.run.reserve import (
    BASELINE_SHARE,
    is_time_to_score,
    measured_step_seconds,
    seconds_for_measuring,
    seconds_kept_back,
    share_of_time,
)
from autocompress.statistics.judging import judge_by
from autocompress.structure.candidates import find_paths, fitting_structures, smaller_structure, time_training
from autocompress.structure.measuring import StructureMeasurer
from autocompress.system.locks import folder_lock
from autocompress.system.time_limit import TimeLimit
from autocompress.training.cost import TRAINING_SHARE, at_least, with_bracket, with_next_rung

# shares of the time left that scoring the baseline and probes of each kind may take
SCORING_SHARE, PROBES_SHARE = 0.5, 0.25
# exports of a few layers with fixed axes take about so much of the model's time, and probes at least so many seconds
SMALLER_EXPORT, PROBE_SECONDS = 0.5, 3.0
# items in a training step that is timed only for planning
TIMED_ITEMS = 16


@dataclass(frozen=True, eq=False)
class Planned:
    """The state of planning: measurements, facts, probes and the search space that follows from them.

    `structure_attempts` is the number of searches of the space of structures.
    """

    baseline: Measurement
    facts: Facts
    probes: Probes
    search_space: SearchSpace
    structure_attempts: int

    @property
    def fits(self) -> bool:
        """True when the unchanged model keeps its size and time budgets."""
        return self.search_space.affirms("fits")


# all workers of a run use the measurements of the first one, since their search spaces would differ otherwise


def measure_baseline(run: Run) -> Measurement:
    """Measure size, latency, memory and validation scores of the unchanged model, once in a run."""
    with alone(run):
        known = run.record.baseline
        if known is not None:
            return known
        run.tell("baseline", "measuring the model as it is")
        measurement = run.measurer.size(run.baseline).with_(
            run.measurer.time(run.baseline, seconds_for_measuring(run, BASELINE_SHARE))
        )
        split = run.task.validation if run.task else None
        if split is not None and not is_time_to_score(run, SCORING_SHARE):
            run.tell("baseline", f"the time does not suffice to score {len(split)} validation items: they are left out")
        elif split is not None:
            measurement = measurement.with_(run.measurer.score(run.baseline, split))
            for doubt in doubts_about_answers(measurement):
                run.tell("baseline", doubt)
        run.record.baseline = measurement
        return measurement


def find_facts(run: Run) -> Facts:
    """Find the facts of the model."""
    facts = replace(
        run.builder.facts(),
        preparation=run.preparation,
        outputs=run.example.kinds,
        recovery=teachers_of(run.task),
    )
    run.record.facts = facts
    return facts


def take_probes(run: Run, facts: Facts) -> Probes:
    """Probe which techniques pay on this device for this model, once in a run."""
    with alone(run):
        known = run.record.probes
        if known is not None:
            return known
        format_ = run.tools.runtime.format
        finishing = [t for t in run.tools.techniques if isinstance(t, ArtifactTechnique)]
        # techniques that are refused anyway, or cannot change the runtime's files, are not probed
        techniques = [
            technique
            for technique in finishing
            if format_ in technique.formats and technique.refuses(facts, Probes(), run.profile) is None
        ]
        expected = max(PROBE_SECONDS, SMALLER_EXPORT * run.builder.export_seconds)
        limit = TimeLimit(share_of_time(run, PROBES_SHARE), expected)
        measurer = ProbeMeasurer(techniques, run.tools, run.profile, lambda text: run.tell("probes", text), limit)
        probes = run_probes(facts, measurer)
        limit = TimeLimit(share_of_time(run, PROBES_SHARE), PROBE_SECONDS)
        if time_matters(run.profile):
            probes = probe_model(run.builder.start, run.example, facts, probes, replace(measurer, limit=limit))
        if not limit.is_too_short():
            probes = replace(probes, operators=_operators(run))
        if probes.skipped:
            run.tell("probes", probes.skipped_sentence)
        run.record.probes = probes
        return probes


def _operators(run: Run) -> dict[str, float]:
    """The share of the model's time by operator type; empty where the runtime does not tell."""
    inputs = feed_of(run.baseline, run.example, run.profile.protocol.batch)
    shares: dict[str, float] = {}
    try:
        with raised_as(RuntimeFailureError, "device"):
            profiled = run.tools.device.slowest_operators(run.baseline, run.profile, inputs)
    except RuntimeFailureError as error:
        # it is only a help for predictions, and the model itself has been measured
        run.failed("timing the operators of the model", error)
        return shares
    for _, type_, share in profiled:
        shares[type_] = shares.get(type_, 0.0) + share
    return shares


def plan_space(
    run: Run, baseline: Measurement, facts: Facts, probes: Probes, structure_attempts: int | None = None
) -> Planned:
    """Build the search space from what is known; structure is included once it was searched."""
    attempts = run.record.structure_attempts if structure_attempts is None else structure_attempts
    # what cannot be done to a file is refused at once
    every = bool(attempts) or facts.is_file
    lost = probes.loses_accuracy
    techniques: Sequence[Technique] = [
        technique
        for technique in run.tools.techniques
        if (every or isinstance(technique, ArtifactTechnique)) and (lost or technique.stage not in ACCURACY_STAGES)
    ]
    latency = baseline.readings["latency_ms"].statistic(run.profile.protocol.statistic)
    figures = BaselineFigures(latency, run.baseline.size_bytes, probes.operators)
    situation = Situation(
        facts,
        probes,
        run.profile,
        run.task,
        judge_by(run.profile, baseline),
        figures,
        len(run.record.looks),
        run.builder.no_inputs,
    )
    later = {technique.name for technique in run.tools.techniques} - {technique.name for technique in techniques}
    search_space = build_search_space(situation, techniques, run.tools.runtime.format, later)
    recipes = ", ".join(recipe.name for recipe in search_space.recipes) or "none"
    run.tell("space", f"to try: {recipes}; refused: {', '.join(search_space.refusals) or 'none'}")
    return Planned(baseline, facts, probes, search_space, attempts)


def with_structure(run: Run, planned: Planned, seconds: float | None) -> Planned:
    """Extend the plan by structure: find the parts that can be removed and the pruning paths to measure.

    It takes about `seconds` where these are given. A second attempt uses fresh measurements and aims for smaller
    structures.
    """
    attempt = planned.structure_attempts + 1
    measurer = _structure_measurer(run, planned, attempt)
    with alone(run):
        probes = latest(run, planned)
        if run.record.structure_attempts < attempt:
            if measurer is not None:
                probes = _with_paths(run, measurer, probes, judge_by(run.profile, planned.baseline), seconds)
            run.record.probes = probes
            run.record.structure_attempts = attempt
    return plan_space(run, planned.baseline, planned.facts, probes, attempt)


def _with_paths(
    run: Run, measurer: StructureMeasurer, probes: Probes, verdict: Verdict, seconds: float | None
) -> Probes:
    """The probes with pruning paths, or without where the search for paths fails as a whole."""
    try:
        return find_paths(measurer, probes, verdict, seconds)
    except ENDS_THE_RUN:
        raise
    except (AutocompressError, RuntimeError, MemoryError) as error:
        run.tell("probes", f"structure is left as it is: {run.failed('looking for structures', error)}")
        return probes


def with_training(
    run: Run,
    planned: Planned,
    seconds_left: float | None,
    *,
    reached: Sequence[Plan] = (),
    structures: Sequence[tuple[Step, ...]] = (),
) -> Planned | None:
    """Extend the plan by one rung of training, None where there is nothing to train or no time for it.

    The structures that just fit come first. Where the objective is a small or a fast file and there is time left, a
    smaller one is trained as soon as one of the last bracket is among the plans that `reached` their budgets, the best
    first. `structures` stand in where nothing was measured yet; training is then timed in small batches, which
    take little memory.
    """
    measurer = _structure_measurer(run, planned)
    train = run.task.train if run.task else None
    if measurer is None or train is None:
        return None
    with alone(run):
        probes = latest(run, planned)
        if _rungs(probes) <= _rungs(planned.probes):
            training = probes.training
            if training is None:
                found = structures or fitting_structures(planned.search_space, run.record.trials())
                training = time_training(measurer, found, TIMED_ITEMS if structures else None, seconds_left)
            elif seconds_left is not None and run.objective.shrinks is not None:
                bracket = training.brackets[-1].structures
                last = [plan.structure for plan in reached if plan.structure in bracket]
                if last:
                    smaller = smaller_structure(measurer, probes, last[0])
                    training = None if smaller is None else with_bracket(training, [smaller])
            training = training and with_next_rung(
                at_least(training, measured_step_seconds(run)), len(train), _for_rung(run, planned, seconds_left)
            )
            if training is None:
                return None
            probes = replace(probes, training=training)
            run.record.probes = probes
    return plan_space(run, planned.baseline, planned.facts, probes, planned.structure_attempts)


def _for_rung(run: Run, planned: Planned, seconds_left: float | None) -> float | None:
    """The seconds left for `with_next_rung`, less what is kept back for the answer beyond its share.

    Where quantized files were worth training after an earlier rung, time for that is kept back, too.
    """
    if seconds_left is None:
        return None
    tuned = [one for one in planned.search_space.recipes if one.refines]
    kept = seconds_kept_back(run) + max((one.predicted_seconds or 0.0 for one in tuned), default=0.0)
    return min(seconds_left, max(0.0, seconds_left - kept) / TRAINING_SHARE)


def alone(run: Run) -> AbstractContextManager[None]:
    """A lock for what one worker measures for all; the others wait."""
    return folder_lock(run.workspace.checkpoints, lambda: run.tell("probes", "waiting for another worker"))


def latest(run: Run, planned: Planned) -> Probes:
    """The probes in the record, to which another worker may have added."""
    return run.record.probes or planned.probes


def _rungs(probes: Probes) -> int:
    return probes.training.rungs if probes.training else 0


def _structure_measurer(run: Run, planned: Planned, attempt: int = 1) -> StructureMeasurer | None:
    split = run.task.calibration if run.task else None
    recipe = planned.search_space.finish
    if split is None:
        return None
    # float, whose latency and size are known, is used where no quantization pays
    finish: tuple[Step, ...] = ()
    expected, measured = (1.0, 1.0), True
    if recipe is not None:
        finish = next(recipe.plans()).finish
        expected = recipe.predicted_latency or 1.0, recipe.predicted_size or 1.0
        probe = planned.probes.with_settings(finish[0].technique, finish[0].settings)
        measured = probe is not None and probe.whole and len(finish) == 1
    microbenchmarks, layer_share = planned.probes.microbenchmarks, None
    if microbenchmarks is not None:
        latency = planned.baseline.readings["latency_ms"].statistic(run.profile.protocol.statistic)
        layer_share = microbenchmarks.layer_ms * sum(1 for layer in planned.facts.layers if layer.macs) / latency
    return StructureMeasurer(run, planned.facts, finish, split, expected, measured, attempt, layer_share)
