"""The answer of a run: the confirmed winner or the nearest miss, with stage table and explanation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from autocompress.core.artifact import BYTES_PER_MB, Artifact
from autocompress.core.facts import Facts
from autocompress.core.measurement import Measurement, Reading, is_binary
from autocompress.core.plan import Plan
from autocompress.core.search_space import SearchSpace
from autocompress.core.trial import Trial
from autocompress.core.verdict import Status, Verdict
from autocompress.download import files
from autocompress.errors import ArtifactError, AutocompressError
from autocompress.evaluation.run import Run
from autocompress.run.confirm import Confirmation
from autocompress.run.diagnosis import binding_budget, diagnose
from autocompress.run.looks import look_sentences
from autocompress.run.result import Result, StageRow, stage_row
from autocompress.statistics.judging import judge_by
from autocompress.system.workspace import write_text


@dataclass(frozen=True, eq=False)
class Answer:
    """The plan a run answers with, its file, measurement and verdict.

    Without a certificate no budget counts as met.
    """

    plan: Plan
    artifact: Artifact
    measurement: Measurement
    verdict: Verdict
    certificate: Mapping[str, Any] | None = None

    @property
    def status(self) -> Status:
        """The verdict's status; at best undecided without a certificate, whatever the validation data say."""
        if self.certificate is not None or self.verdict.status is Status.NOT_MET:
            return self.verdict.status
        return Status.UNDECIDED

    @property
    def is_met(self) -> bool:
        """True when every budget is met."""
        return self.status is Status.MET


@dataclass(frozen=True, eq=False)
class History:
    """How an answer came about.

    `notes` are sentences placed before the explanation; `out_of_time` tells that the time was up.
    """

    facts: Facts
    search_space: SearchSpace
    baseline: Measurement
    trials: Sequence[Trial]
    notes: Sequence[str] = ()
    out_of_time: bool = False


def answer_from(
    run: Run,
    confirmations: Sequence[Confirmation],
    nearest_miss: Callable[[], Trial | None],
    baseline: Measurement,
) -> Answer:
    """The confirmation that is met, else the undecided one nearest to it, else the nearest miss.

    Without any of these it is the unchanged model. `nearest_miss` is called only where nothing was confirmed.
    """
    best = best_of(confirmations)
    if best is not None:
        return Answer(best.plan, best.artifact, best.measurement, best.verdict, best.certificate)
    nearest = nearest_miss()
    artifact = run.artifacts.find(nearest.plan) if nearest is not None else None
    # a file that somebody removed meanwhile is no answer, and another one is not shipped under its name
    if nearest is not None and artifact is not None:
        return Answer(nearest.plan, artifact, nearest.measurement, nearest.verdict)
    return Answer(Plan(), run.baseline, baseline, judge_by(run.profile, baseline))


def best_of(confirmations: Sequence[Confirmation]) -> Confirmation | None:
    """The first confirmation that is met, else of those undecided, else of all, the closest."""
    met = next((one for one in confirmations if one.verdict.status is Status.MET), None)
    if met is not None:
        return met
    undecided = [one for one in confirmations if one.verdict.status is Status.UNDECIDED]
    if undecided:
        return min(undecided, key=lambda one: _to_be_shown(one.verdict))
    # all are broken: the closest is still the answer, since it has better evidence than an unconfirmed trial
    return min(confirmations, key=lambda confirmation: confirmation.verdict.overshoot, default=None)


def _to_be_shown(verdict: Verdict) -> float:
    """The worst ratio of a bound to its limit: 1.0 is exactly at it, above 1 past it."""
    found = (
        finding if finding.bound is None else replace(finding, value=finding.bound) for finding in verdict.findings
    )
    return max((finding.overshoot for finding in found), default=math.inf)


def write_up(run: Run, answer: Answer, history: History) -> Result:
    """Write the answer's artifact, its download and plan to the run's folder, and return the result."""
    shipped = answer.artifact.copy_to(run.workspace.path(f"model{run.tools.runtime.suffix}"))
    # the baseline for relative budgets, as `autocompress check --baseline` needs it
    run.baseline.copy_to(run.workspace.path(f"baseline{run.tools.runtime.suffix}"))
    write_text(run.workspace.path("plan.yaml"), answer.plan.to_yaml())
    name = run.name_of(answer.plan)
    download_bytes, download_said = _write_download(run, shipped)
    return Result(
        status=answer.status,
        plan=answer.plan,
        plan_name=name,
        artifact=shipped,
        baseline=run.baseline,
        verdict=answer.verdict,
        measurement=answer.measurement,
        certificate=answer.certificate,
        history=history.trials,
        names={trial.plan.hash: run.name_of(trial.plan) for trial in history.trials},
        stages=stage_table(run, answer, history.baseline),
        facts=history.facts,
        search_space=history.search_space,
        profile=run.profile,
        explanation=[
            *history.notes,
            *run.data_check.sentences,
            *look_sentences(answer.certificate),
            *_explain(name, answer, history),
            *download_said,
        ],
        machine=str(run.machine),
        data=_describe_data(run, answer.plan),
        score_is_rate=(run.task is not None and run.task.score_is_rate) or _is_rate(answer.measurement),
        seconds=run.deadline.spent,
        out_of_time=history.out_of_time,
        folder=run.workspace.root,
        data_check=run.data_check,
        sensitivities=run.record.probes.sensitivities if run.record.probes else (),
        download_bytes=download_bytes,
    )


def _write_download(run: Run, shipped: Artifact) -> tuple[int | None, list[str]]:
    """Write the download where the profile asks for it; its size, and what is to be said of it."""
    path = run.workspace.path(f"{shipped.entry}{files.SUFFIX}")
    # one of an earlier answer in this folder would hold another file
    path.unlink(missing_ok=True)
    if run.profile.download != "acz":
        return None, []
    try:
        size = files.pack(shipped.path, path)
    except ArtifactError as error:
        return None, [f"No download was written: {error}"]
    share = size / shipped.size_bytes
    return size, [f"{path.name} holds it in {size / BYTES_PER_MB:.3f} MB for download, {share:.3f} of {shipped.entry}."]


def stage_table(run: Run, answer: Answer, baseline: Measurement) -> list[StageRow]:
    """Rows for the baseline, the files that the answer went through, and the answer.

    The baseline's times are those measured beside the answer's. Of the files between, latencies are those of their own
    trials; scores are left out, since they are those of other items.
    """
    before = {**baseline.readings, **answer.measurement.baseline}
    contents = run.tools.runtime.contents
    rows = [stage_row("baseline", contents(run.baseline), before, before)]
    rows += [row for plan in _stages_before(answer.plan) if (row := _row_between(run, plan, before)) is not None]
    if answer.plan != Plan():
        name = run.name_of(answer.plan)
        rows.append(stage_row(name, contents(answer.artifact), answer.measurement.readings, before))
    return rows


def _stages_before(plan: Plan) -> list[Plan]:
    """What a plan goes through after its rounds: the network in float, then step by step of its finish."""
    finishes = [plan.finish[:count] for count in range(len(plan.finish))]
    return [Plan(plan.rounds, finish) for finish in finishes if plan.rounds or finish]


def _row_between(run: Run, plan: Plan, before: Mapping[str, Reading]) -> StageRow | None:
    """The row of a file on the way to the answer; None where it is not there any more."""
    artifact = run.artifacts.find(plan)
    if artifact is None and not plan.finish:
        # the float file is there, with the names of its nodes; what was not a trial takes too long to make again
        with suppress(AutocompressError):
            artifact = run.artifacts.build(plan)
    if artifact is None:
        return None
    known = next((one.measurement for one in run.record.trials() if one.plan == plan), Measurement({}))
    readings = {"size_mb": Reading.one("MB", artifact.size_bytes / BYTES_PER_MB)}
    if "latency_ms" in known.readings:
        readings["latency_ms"] = known.readings["latency_ms"]
    return stage_row(run.name_of(plan), run.tools.runtime.contents(artifact), readings, {**before, **known.baseline})


def _is_rate(measurement: Measurement) -> bool:
    score = measurement.readings.get("score")
    return score is None or (score.items is None and is_binary(score.samples))


def _describe_data(run: Run, plan: Plan) -> str:
    task = run.task
    if task is None:
        ranges = run.ranges_from(plan)
        return f"none; ranges from {ranges}" if ranges else "none"
    splits = {"selects": task.validation, "confirms": task.holdout, "calibrates": task.calibration}
    named = splits.items()
    return ", ".join(f"{what}: {len(split)} items ({split.name})" for what, split in named if split is not None)


def _explain(name: str, answer: Answer, history: History) -> list[str]:
    if answer.is_met:
        return [f"{name} keeps every budget on data and runs that took no part in choosing it."]
    sentences = []
    binding = binding_budget(answer.verdict, history.search_space)
    if binding is not None:
        sentences.append(f"{binding.name} stands in the way: {binding.sentence}.")
    if binding is not None and binding.needed:
        sentences.append(f"About {binding.needed} more holdout items would decide at the observed rates.")
    if answer.status is Status.NOT_MET:
        sentences += diagnose(answer.verdict, history.trials, history.search_space)
    if answer.certificate is None and history.trials:
        whose = "those of the nearest miss, on" if answer.status is Status.NOT_MET else "from"
        sentences.append(f"The figures are {whose} the validation data; nothing was certified.")
    return sentences
