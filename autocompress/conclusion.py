"""What a search and its confirmations come to: the answer, the stage table and the explanation."""

from __future__ import annotations

from collections.abc import Sequence

from autocompress.artifact import Artifact
from autocompress.budget import METRICS
from autocompress.confirm import Confirmation
from autocompress.facts import Facts
from autocompress.judge import is_binary, judge_by
from autocompress.measurement import Measurement
from autocompress.plan import Plan
from autocompress.result import Result, StageRow, stage_row
from autocompress.search import Search
from autocompress.trial import Trial
from autocompress.verdict import Standing, Status, Verdict
from autocompress.workbench import Workbench
from autocompress.workspace import write_text


def conclude(search: Search, facts: Facts, baseline: Measurement, confirmations: Sequence[Confirmation]) -> Result:
    """The first confirmation that is met; else the best undecided one; else the nearest miss.

    The answer's artifact and plan are written to the run's folder.
    """
    bench = search.workbench
    answer = _best(confirmations)
    nearest = None if answer is not None else search.nearest_miss()
    if answer is not None:
        plan, artifact, measurement = answer.plan, answer.artifact, answer.measurement
        verdict, certificate = answer.verdict, answer.certificate
    elif nearest is not None:
        plan, artifact = nearest.plan, bench.built(nearest.plan) or bench.baseline
        measurement, verdict, certificate = nearest.measurement, nearest.verdict, None
    else:
        plan, artifact, measurement, certificate = Plan(), bench.baseline, baseline, None
        verdict = judge_by(bench.profile, baseline)
    status = _status(answer, verdict)
    shipped = artifact.copy_to(bench.workspace.path("model.onnx"))
    # what relative budgets compare with, for `autocompress check --baseline`
    bench.baseline.copy_to(bench.workspace.path("baseline.onnx"))
    write_text(bench.workspace.path("plan.yaml"), plan.to_yaml())
    history = search.journal.trials()
    return Result(
        status=status,
        plan=plan,
        artifact=shipped,
        baseline=bench.baseline,
        verdict=verdict,
        measurement=measurement,
        certificate=certificate,
        history=history,
        stages=stage_table(bench, plan, artifact, measurement, baseline),
        facts=facts,
        ladder=search.ladder,
        profile=bench.profile,
        explanation=_explain(search, status, plan, verdict, answer, history),
        machine=str(bench.machine),
        data=_describe_data(bench),
        score_is_rate=bench.task is None or bench.task.score_is_rate or _is_rate(measurement),
        seconds=search.deadline.spent,
        out_of_time=search.out_of_time,
        folder=bench.workspace.root,
    )


def _best(confirmations: Sequence[Confirmation]) -> Confirmation | None:
    for wanted in (Status.MET, Status.UNDECIDED):
        for confirmation in confirmations:
            if confirmation.verdict.status is wanted:
                return confirmation
    # confirmed and broken: still the candidate that came closest, with the better evidence
    return min(confirmations, key=lambda confirmation: confirmation.verdict.overshoot, default=None)


def _status(answer: Confirmation | None, verdict: Verdict) -> Status:
    if answer is not None:
        return answer.verdict.status
    # without a confirmation nothing is met, whatever the selecting part said
    return Status.NOT_MET if verdict.status is Status.NOT_MET else Status.UNDECIDED


def stage_table(
    bench: Workbench, plan: Plan, artifact: Artifact, measurement: Measurement, baseline: Measurement
) -> list[StageRow]:
    """The baseline and the answer side by side; the baseline's times are those taken beside the answer's."""
    before = {**baseline.readings, **measurement.baseline}
    rows = [stage_row("baseline", bench.contents(bench.baseline), before, before)]
    if plan != Plan():
        rows.append(stage_row(plan.brief, bench.contents(artifact), measurement.readings, before))
    return rows


def _is_rate(measurement: Measurement) -> bool:
    score = measurement.readings.get("score")
    return score is None or is_binary(score.samples)


def _describe_data(bench: Workbench) -> str:
    task = bench.task
    if task is None:
        return "none"
    parts = {"selects": task.selecting, "confirms": task.confirming, "calibrates": task.calibrating}
    return ", ".join(f"{what}: {len(part)} items ({part.name})" for what, part in parts.items() if part is not None)


def _explain(
    search: Search, status: Status, plan: Plan, verdict: Verdict, answer: Confirmation | None, history: Sequence[Trial]
) -> list[str]:
    said = list(search.ladder.warnings)
    if status is Status.MET:
        said.append(f"{plan.brief} keeps every budget on data and runs that took no part in choosing it.")
        return said
    if search.out_of_time:
        said.append("The time was up before every plan of the ladder was tried.")
    binding = verdict.binding
    if binding is not None:
        said.append(f"{binding.budget.metric} stands in the way: {binding.sentence}.")
    if binding is not None and binding.needed:
        said.append(f"About {binding.needed} more confirming items would decide at the observed rates.")
    if status is Status.NOT_MET:
        said += _reachable(history, verdict)
    if answer is None and history:
        said.append("The figures are those of the nearest miss, on the data that select; nothing was certified.")
    return said


def _reachable(history: Sequence[Trial], verdict: Verdict) -> list[str]:
    """Per broken budget, the best value that any candidate reached, and what to relax it to."""
    said = []
    for finding in verdict.findings:
        if finding.standing is not Standing.EXCEEDED:
            continue
        found = (trial.verdict.of(finding.budget.metric) for trial in history)
        values = [other.value for other in found if other is not None and other.value is not None]
        if finding.value is not None:
            values.append(finding.value)
        if not values:
            continue
        at_most = METRICS[finding.budget.metric].direction == "at most"
        best = min(values) if at_most else max(values)
        unit = "x" if finding.budget.relative else f" {finding.budget.unit}"
        said.append(
            f"{finding.budget.metric}: the best that was reached is {best:.3g}{unit}, asked {finding.budget.text}."
        )
    return said
