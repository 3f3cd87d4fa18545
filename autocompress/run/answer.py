"""What a search and its confirmations come to: the answer, the stage table and the explanation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autocompress.core.artifact import Artifact
from autocompress.core.facts import Facts
from autocompress.core.measurement import Measurement, is_binary
from autocompress.core.plan import Plan
from autocompress.core.search_space import SearchSpace
from autocompress.core.trial import Trial
from autocompress.core.verdict import Status, Verdict
from autocompress.evaluation.workbench import Workbench
from autocompress.run.confirm import Confirmation
from autocompress.run.diagnosis import binding_budget, diagnose
from autocompress.run.result import Result, StageRow, stage_row
from autocompress.run.search import Search
from autocompress.statistics.judging import judge_by
from autocompress.system.workspace import write_text


@dataclass(frozen=True, eq=False)
class Found:
    """The answer before it is written up: the confirmed winner, or the nearest miss."""

    status: Status
    plan: Plan
    artifact: Artifact
    measurement: Measurement
    verdict: Verdict
    certificate: Mapping[str, Any] | None = None

    @staticmethod
    def confirmed(answer: Confirmation) -> Found:
        """What was confirmed, whatever came of it."""
        return Found(
            answer.verdict.status,
            answer.plan,
            answer.artifact,
            answer.measurement,
            answer.verdict,
            answer.certificate,
        )

    @staticmethod
    def unconfirmed(plan: Plan, artifact: Artifact, measurement: Measurement, verdict: Verdict) -> Found:
        """Without a confirmation nothing is met, whatever the validation split said."""
        status = Status.NOT_MET if verdict.status is Status.NOT_MET else Status.UNDECIDED
        return Found(status, plan, artifact, measurement, verdict)


@dataclass(frozen=True, eq=False)
class Story:
    """How an answer came about; `notes` are said before, `out_of_time` when the time was up before the end."""

    facts: Facts
    search_space: SearchSpace
    baseline: Measurement
    history: Sequence[Trial]
    seconds: float
    notes: Sequence[str] = ()
    out_of_time: bool = False


def conclude(search: Search, facts: Facts, baseline: Measurement, confirmations: Sequence[Confirmation]) -> Result:
    """The first confirmation that is met; else the best undecided one; else the nearest miss.

    The answer's artifact and plan are written to the run's folder.
    """
    bench = search.workbench
    answer = best(confirmations)
    nearest = None if answer is not None else search.nearest_miss()
    if answer is not None:
        found = Found.confirmed(answer)
    elif nearest is not None:
        artifact = bench.built(nearest.plan) or bench.baseline
        found = Found.unconfirmed(nearest.plan, artifact, nearest.measurement, nearest.verdict)
    else:
        found = Found.unconfirmed(Plan(), bench.baseline, baseline, judge_by(bench.profile, baseline))
    notes = list(search.search_space.warnings)
    if search.out_of_time and found.status is not Status.MET:
        notes.append("The time was up before every plan of the search space was tried.")
    history = search.journal.trials()
    seconds, out_of_time = search.deadline.spent, search.out_of_time
    return write_up(bench, found, Story(facts, search.search_space, baseline, history, seconds, notes, out_of_time))


def conclude_so_far(search: Search, facts: Facts, baseline: Measurement, best_trial: Trial) -> Result:
    """What a trial comes to while the search goes on: undecided, since nothing was confirmed.

    Its artifact and plan are written to the run's folder.
    """
    bench = search.workbench
    artifact = bench.built(best_trial.plan) or bench.build(best_trial.plan)
    found = Found.unconfirmed(best_trial.plan, artifact, best_trial.measurement, best_trial.verdict)
    notes = [
        *search.search_space.warnings,
        "The run goes on: this is the best answer so far, and it is not confirmed yet.",
    ]
    story = Story(facts, search.search_space, baseline, search.journal.trials(), search.deadline.spent, notes)
    return write_up(bench, found, story)


def write_up(bench: Workbench, found: Found, story: Story) -> Result:
    """The result, with the answer's artifact and plan written to the bench's folder."""
    shipped = found.artifact.copy_to(bench.workspace.path("model.onnx"))
    # what relative budgets compare with, for `autocompress check --baseline`
    bench.baseline.copy_to(bench.workspace.path("baseline.onnx"))
    write_text(bench.workspace.path("plan.yaml"), found.plan.to_yaml())
    return Result(
        status=found.status,
        plan=found.plan,
        artifact=shipped,
        baseline=bench.baseline,
        verdict=found.verdict,
        measurement=found.measurement,
        certificate=found.certificate,
        history=story.history,
        stages=stage_table(bench, found.plan, found.artifact, found.measurement, story.baseline),
        facts=story.facts,
        search_space=story.search_space,
        profile=bench.profile,
        explanation=[*story.notes, *_explain(found, story.history, story.search_space)],
        machine=str(bench.machine),
        data=_describe_data(bench),
        score_is_rate=(bench.task is not None and bench.task.score_is_rate) or _is_rate(found.measurement),
        seconds=story.seconds,
        out_of_time=story.out_of_time,
        folder=bench.workspace.root,
    )


def best(confirmations: Sequence[Confirmation]) -> Confirmation | None:
    """The first that is met, else the first undecided one, else the one that came closest."""
    for wanted in (Status.MET, Status.UNDECIDED):
        for confirmation in confirmations:
            if confirmation.verdict.status is wanted:
                return confirmation
    # confirmed and broken: still the candidate that came closest, with the better evidence
    return min(confirmations, key=lambda confirmation: confirmation.verdict.overshoot, default=None)


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
    return score is None or (score.items is None and is_binary(score.samples))


def _describe_data(bench: Workbench) -> str:
    task = bench.task
    if task is None:
        return "none"
    splits = {"selects": task.validation, "confirms": task.holdout, "calibrates": task.calibration}
    return ", ".join(
        f"{what}: {len(split)} items ({split.name})" for what, split in splits.items() if split is not None
    )


def _explain(found: Found, history: Sequence[Trial], search_space: SearchSpace) -> list[str]:
    if found.status is Status.MET:
        return [f"{found.plan.brief} keeps every budget on data and runs that took no part in choosing it."]
    said = []
    binding = binding_budget(found.verdict, search_space)
    if binding is not None:
        said.append(f"{binding.budget.metric} stands in the way: {binding.sentence}.")
    if binding is not None and binding.needed:
        said.append(f"About {binding.needed} more holdout items would decide at the observed rates.")
    if found.status is Status.NOT_MET:
        said += diagnose(found.verdict, history, search_space)
    if found.certificate is None and history:
        whose = "those of the nearest miss, on" if found.status is Status.NOT_MET else "from"
        said.append(f"The figures are {whose} the validation data; nothing was certified.")
    return said
