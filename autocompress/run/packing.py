"""The stage after packing that loses accuracy: the packed values are trained."""

from __future__ import annotations

from dataclasses import replace

from autocompress.core.facts import Facts
from autocompress.core.plan import Effort, Plan, Stage
from autocompress.core.probes import Probes
from autocompress.core.technique import ArtifactTechnique
from autocompress.core.trial import Outcome, Trial
from autocompress.evaluation.run import Run
from autocompress.run.precision import fits, may_suffice, step_seconds
from autocompress.run.stages import Planned, alone, latest, plan_space


def packing_trial(run: Run) -> Trial | None:
    """The trial of an unchanged network's packed file that keeps size and time, and loses least accuracy.

    None where there is none, where the accuracy of one suffices so far, or without training data.
    """
    if run.task is None or run.task.train is None or not training_packers(run):
        return None
    packed = [trial for trial in run.record.trials() if is_packed(run, trial) and not trial.plan.rounds]
    fitting = [trial for trial in packed if fits(trial)]
    if any(may_suffice(run, trial) for trial in fitting):
        return None
    return min(fitting, key=lambda trial: trial.verdict.overshoot, default=None)


def is_packed(run: Run, trial: Trial) -> bool:
    """True for a scored trial whose quantized file was packed without training."""
    finish = trial.plan.finish
    judged = trial.outcome in (Outcome.MEASURED, Outcome.STOPPED) and "score" in trial.measurement.readings
    return judged and len(finish) > 1 and finish[-1].stage is Stage.PACKING and not run.tools.trains(finish)


def training_packers(run: Run) -> list[ArtifactTechnique]:
    """The techniques that train what they pack."""
    packers = [one for one in run.tools.techniques if isinstance(one, ArtifactTechnique) and one.stage is Stage.PACKING]
    return [one for one in packers if one.effort is Effort.TRAINING]


def is_packing_due(run: Run, planned: Planned) -> bool:
    """True when packing loses accuracy, and the search space does not have what trains it."""
    probes = latest(run, planned)
    if probes.packed:
        return not planned.probes.packed
    return not planned.facts.is_file and packing_trial(run) is not None


def with_trained_packing(run: Run, planned: Planned) -> Planned:
    """Extend the plan by packing that is trained, with the settings of the trial that loses least.

    A step of the training is timed.
    """
    with alone(run):
        probes = latest(run, planned)
        trial = packing_trial(run)
        if trial is not None and not probes.packed:
            seconds = packing_seconds(run, trial, planned.facts, probes)
            probes = replace(probes, packed=dict(trial.plan.finish[-1].settings), step_seconds=seconds)
            run.record.probes = probes
    return plan_space(run, planned.baseline, planned.facts, probes, planned.structure_attempts)


def packing_seconds(run: Run, trial: Trial, facts: Facts, probes: Probes) -> dict[str, float]:
    """The seconds of a step of each technique, with those of training what a trial packs."""
    quantized = Plan(trial.plan.rounds, trial.plan.finish[:-1])
    run.builder.build(quantized)
    asked = replace(probes, packed=dict(trial.plan.finish[-1].settings))
    return {**probes.step_seconds, **step_seconds(run, quantized, facts, asked, training_packers(run))}
