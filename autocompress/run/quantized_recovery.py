"""The stage after a rung of training: what quantization costs there, and what wins it back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from autocompress.core.budget import Direction
from autocompress.core.plan import Plan
from autocompress.core.probes import Probes
from autocompress.core.training_probe import QuantizationLoss
from autocompress.core.trial import Outcome, Trial
from autocompress.core.verdict import Finding
from autocompress.errors import ENDS_THE_RUN
from autocompress.evaluation.run import Run
from autocompress.run.packing import is_packed, packing_seconds
from autocompress.run.precision import leaves_layers_in_float, sensitivity_if_known, step_seconds
from autocompress.run.reserve import is_time_to_score
from autocompress.run.stages import Planned, alone, latest, plan_space
from autocompress.statistics.judging import judge_by

# of the time that measuring structures may take, so much is for the sensitivity of one: the next rung waits
SHARE = 0.5


def with_quantized_recovery(
    run: Run, planned: Planned, seconds: float | None, *, reached: Sequence[Plan] = ()
) -> Planned | None:
    """Extend the plan by better quantization of what was trained, where it costs much of what is missing.

    The float file of the best trial of the last rung is scored beside it, once for each rung. Where much is lost, the
    sensitivity of its layers is measured in a part of the `seconds`. None where that rung has no trial that misses the
    accuracy budget, there is no time to score it, or most of what is missing is lost by the structure. A trial among
    the plans that `reached` their budgets misses nothing.
    """
    with alone(run):
        probes = latest(run, planned)
        rung = _last_rung(probes)
        if rung is None:
            return None
        if _loss_after(probes, rung) is None:
            probes = _with_loss(run, planned, probes, rung, reached, seconds)
            run.record.probes = probes
    found = _loss_after(probes, rung)
    # where it was known when the search space was built, the training has been tried
    if found is None or not found.pays or _loss_after(planned.probes, rung) is not None:
        return None
    return plan_space(run, planned.baseline, planned.facts, probes, planned.structure_attempts)


def _last_rung(probes: Probes) -> tuple[int, int] | None:
    """The last rung that was planned: the places of its bracket and in it; None before any."""
    brackets = probes.training.brackets if probes.training else ()
    return (len(brackets) - 1, len(brackets[-1].rungs) - 1) if brackets and brackets[-1].rungs else None


def _loss_after(probes: Probes, rung: tuple[int, int]) -> QuantizationLoss | None:
    return probes.training.loss_after(*rung) if probes.training else None


def _with_loss(
    run: Run,
    planned: Planned,
    probes: Probes,
    rung: tuple[int, int],
    reached: Sequence[Plan],
    seconds: float | None,
) -> Probes:
    """The probes with what quantization costs after a rung; unchanged where that cannot be told."""
    training, trial = probes.training, _best(run, probes, rung)
    if training is None or trial is None or trial.plan in reached or not is_time_to_score(run):
        return probes
    packs = is_packed(run, trial)
    if not packs and (len(trial.plan.finish) != 1 or not leaves_layers_in_float(run, trial.plan.finish[0])):
        return probes
    loss = _loss(run, trial, rung)
    if loss is None:
        return probes
    run.tell("probes", f"after training {run.name_of(trial.plan)}, {loss}")
    if loss.pays and not packs:
        limit = None if seconds is None else SHARE * seconds
        artifact = run.builder.exported(trial.plan.rounds)
        loss = replace(loss, sensitivity=sensitivity_if_known(run, trial.plan.finish[0], limit, artifact))
    probes = replace(probes, training=replace(training, losses=(*training.losses, loss)))
    if packs and loss.pays:
        return replace(probes, step_seconds=packing_seconds(run, trial, planned.facts, probes))
    if loss.sensitivity is None:
        return probes
    return replace(probes, step_seconds=step_seconds(run, trial.plan, planned.facts, probes))


def _best(run: Run, probes: Probes, rung: tuple[int, int]) -> Trial | None:
    """The trial of a rung with the best score, None where none was scored."""
    bracket, number = rung
    assert probes.training is not None
    structures = probes.training.brackets[bracket].structures
    trials = [
        trial
        for trial in run.record.trials()
        if trial.outcome in (Outcome.MEASURED, Outcome.STOPPED)
        and trial.plan.structure in structures
        and len(trial.plan.rounds) == number + 1
        and not run.tools.trains(trial.plan.finish)
        and "score" in trial.measurement.readings
    ]
    return max(trials, key=lambda trial: trial.measurement.readings["score"].value, default=None)


def _loss(run: Run, trial: Trial, rung: tuple[int, int]) -> QuantizationLoss | None:
    """What quantization costs a trial; None where nothing is missing, or its float file cannot be scored."""
    quantized = _farthest(trial.verdict.findings)
    split = run.task.validation if run.task else None
    if quantized is None or quantized.value is None or split is None:
        return None
    # of a limit from below less is missing the higher the value
    sign = 1 if quantized.budget.direction is Direction.AT_MOST else -1
    reached = quantized.value if quantized.bound is None else quantized.bound
    missing = sign * (reached - quantized.limit)
    if missing <= 0:
        return None
    try:
        scored = run.measurer.score(run.builder.exported(trial.plan.rounds), split)
    except ENDS_THE_RUN:
        raise
    except Exception as error:  # noqa: BLE001 - training in float goes on without this figure
        run.failed(f"scoring the float file of {trial.plan}", error)
        return None
    verdict = judge_by(run.profile, trial.measurement.with_(scored))
    exact = verdict.of(quantized.budget.metric)
    if exact is None or exact.value is None:
        return None
    return QuantizationLoss(*rung, sign * (quantized.value - exact.value), missing, quantized.budget.unit)


def _farthest(findings: Sequence[Finding]) -> Finding | None:
    """The finding on accuracy that is farthest from being met, None where there is none with a value."""
    judged = [finding for finding in findings if not finding.budget.structural and finding.value is not None]
    return max(judged, key=lambda finding: finding.overshoot, default=None)
