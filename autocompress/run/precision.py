"""The stage after a quantization that loses accuracy: where it loses it, and what follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from autocompress.core.artifact import Artifact
from autocompress.core.facts import Facts
from autocompress.core.plan import Effort, Plan, Stage, Step
from autocompress.core.probes import Probes
from autocompress.core.sensitivity import IN_FLOAT, Sensitivity
from autocompress.core.technique import ArtifactTechnique, Context
from autocompress.core.trial import Outcome, Trial
from autocompress.core.verdict import Standing, Status
from autocompress.errors import ENDS_THE_RUN
from autocompress.evaluation.run import Run
from autocompress.run.layer_sensitivity import sensitivity_of
from autocompress.run.search import is_expected
from autocompress.run.stages import Planned, alone, latest, plan_space
from autocompress.system.scratch import scratch


def loses_accuracy(run: Run) -> Trial | None:
    """The trial of a quantization alone that keeps the budgets on size and time and loses least accuracy.

    Quantizations for which it was sought before what keeps accuracy are left out. None where there is none, where the
    accuracy of one suffices so far, or without calibration data.
    """
    if run.task is None or run.task.calibration is None:
        return None
    trials = [trial for trial in run.record.trials() if _is_quantized_only(run, trial)]
    fitting = [trial for trial in trials if fits(trial) and "score" in trial.measurement.readings]
    if not fitting or any(may_suffice(run, trial) for trial in fitting):
        return None
    left = [trial for trial in fitting if trial.plan.finish[0].technique not in run.record.precision_tried]
    return min(left, key=lambda trial: trial.verdict.overshoot, default=None)


def is_precision_due(run: Run, planned: Planned) -> bool:
    """True when a quantization loses accuracy, and the search space does not have what keeps it."""
    known, found = planned.probes.sensitivities, latest(run, planned).sensitivities
    return loses_accuracy(run) is not None or len(known) < len(found)


def may_suffice(run: Run, trial: Trial) -> bool:
    """True for a trial that is expected to be confirmed, until the holdout says otherwise."""
    known = run.record.confirmation(trial.plan)
    return is_expected(run, trial) if known is None else known.verdict.status is Status.MET


def _is_quantized_only(run: Run, trial: Trial) -> bool:
    if trial.plan.rounds or len(trial.plan.finish) != 1 or trial.outcome not in (Outcome.MEASURED, Outcome.STOPPED):
        return False
    return leaves_layers_in_float(run, trial.plan.finish[0])


def leaves_layers_in_float(run: Run, step: Step) -> bool:
    """True where a technique can leave single layers in float, so that their sensitivity is measurable."""
    technique = run.tools.technique(step.technique)
    return isinstance(technique, ArtifactTechnique) and IN_FLOAT in technique.choices


def fits(trial: Trial) -> bool:
    """True where every budget on size and time was measured and met."""
    return all(finding.standing is Standing.MET for finding in trial.verdict.structural.findings)


def with_precision(run: Run, planned: Planned, seconds: float | None) -> Planned:
    """Extend the plan by what keeps the accuracy of a quantization, after measuring which layers lose it.

    A step of training the quantized file is timed, too. It takes about `seconds` where these are given. Where the
    sensitivity cannot be measured the plan stays as it is.
    """
    with alone(run):
        probes = latest(run, planned)
        trial = loses_accuracy(run)
        if trial is not None:
            (step,) = trial.plan.finish
            found = sensitivity_if_known(run, step, seconds)
            if found is not None:
                probes = replace(probes, sensitivities=(*probes.sensitivities, found))
                timed = step_seconds(run, trial.plan, planned.facts, probes)
                probes = replace(probes, step_seconds={**probes.step_seconds, **timed})
            run.record.probes = probes
            run.record.precision_tried = (*run.record.precision_tried, step.technique)
    return plan_space(run, planned.baseline, planned.facts, probes, planned.structure_attempts)


def sensitivity_if_known(
    run: Run, step: Step, seconds: float | None, artifact: Artifact | None = None
) -> Sensitivity | None:
    """What `sensitivity_of` gives for a step; None where it cannot be measured."""
    try:
        return sensitivity_of(run, step.technique, step.settings, seconds, "probes", artifact)
    except ENDS_THE_RUN:
        raise
    except Exception as error:  # noqa: BLE001 - structure and training may still meet the budgets
        reason = run.failed("measuring which layers lose accuracy", error)
        run.tell("probes", f"which layers lose accuracy stays unknown: {reason}")
        return None


def step_seconds(
    run: Run, plan: Plan, facts: Facts, probes: Probes, techniques: Sequence[ArtifactTechnique] | None = None
) -> dict[str, float]:
    """The seconds of a training step of each technique that trains a plan's file, or of those given.

    Empty where there are no training data, or the file is gone.
    """
    artifact, task = run.artifacts.find(plan), run.task
    if artifact is None or task is None or task.train is None:
        return {}
    found = {}
    for one in _techniques_that_train(run, plan) if techniques is None else techniques:
        try:
            if one.refuses(facts, probes, run.profile) is not None:
                continue
            settings = next(one.space(facts, probes, run.profile).grid())
            run.tell("probes", f"timing a training step of {one.name}")
            with scratch("training") as folder:
                context = Context(task, run.example, task.calibration, folder, original=run.builder.start)
                seconds = one.step_seconds(artifact, settings, context)
        except ENDS_THE_RUN:
            raise
        except Exception as error:  # noqa: BLE001 - its own trial says why, if it comes to that
            run.failed(f"timing a training step of {one.name}", error)
            continue
        if seconds is not None:
            found[one.name] = seconds
    return found


def _techniques_that_train(run: Run, plan: Plan) -> list[ArtifactTechnique]:
    """The techniques that train the file of a plan's quantization."""
    finish = [run.tools.technique(step.technique) for step in plan.finish]
    done = {one.quantization for one in finish if isinstance(one, ArtifactTechnique)}
    tuning = [one for one in run.tools.techniques if isinstance(one, ArtifactTechnique) and one.stage is Stage.TUNING]
    return [one for one in tuning if one.effort is Effort.TRAINING and one.serves & done]
