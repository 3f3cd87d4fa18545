"""Escalation: searches and confirms in rising effort: quantization, then structure, then training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from autocompress.core.plan import Plan
from autocompress.core.trial import Trial
from autocompress.errors import ENDS_THE_RUN
from autocompress.evaluation.run import Run
from autocompress.run.answer import Answer, History, answer_from, write_up
from autocompress.run.confirm import MAX_LOOKS, Confirmation, confirm_in_order, confirm_once, is_answered
from autocompress.run.packing import is_packing_due, with_trained_packing
from autocompress.run.precision import is_precision_due, with_precision
from autocompress.run.quantized_recovery import with_quantized_recovery
from autocompress.run.reserve import is_time_to_confirm, seconds_for_answer, seconds_for_confirmation
from autocompress.run.result import Result
from autocompress.run.search import Search
from autocompress.run.stages import Planned, with_structure, with_training
from autocompress.structure.candidates import nearly_fitted
from autocompress.system.locks import folder_lock

# most searches of the space of structures; a second one follows where no structure of the first fitted
MOST_ATTEMPTS = 2
# share of the remaining time that a search of the space of structures may take
SHARE_OF_TIME = 0.25


def search_and_confirm(
    search: Search, planned: Planned, keep: Callable[[Result], None]
) -> tuple[Planned, list[Confirmation]]:
    """Search and confirm until the budgets are met or nothing is left to try.

    Returns the final plan of the search and the confirmations in order. While an objective goes on improving an answer,
    `keep` is called with the best result so far, so that it can be read meanwhile.
    """
    run = search.run
    confirmations: list[Confirmation] = []
    while True:
        search.search_space = planned.search_space
        confirmations = confirm_contenders(search, planned, confirmations, last=False)
        # where the first answer ends the run there is no intermediate result to keep or to improve
        reached = [] if run.objective.first_answer_ends else search.reached()
        if reached:
            with folder_lock(run.workspace.root):
                so_far = _answer_so_far(run, planned, reached[0])
                if so_far is not None:
                    keep(so_far)
        further = _further(search, planned, confirmations, reached)
        if further is None:
            break
        planned = further
    return planned, confirm_contenders(search, planned, confirmations, last=True)


def confirm_contenders(
    search: Search, planned: Planned, so_far: Sequence[Confirmation], *, last: bool
) -> list[Confirmation]:
    """Confirm the search's contenders until one is met or no further look at the holdout makes sense.

    Where one fails now its trial counts as failed, and the next one follows.

    Raises:
        AutocompressError: when the unchanged model fails, or for one of `ENDS_THE_RUN`.
    """
    run = search.run

    def confirmed(plan: Plan) -> Confirmation | None:
        try:
            return confirm_once(run, plan)
        except ENDS_THE_RUN:
            raise
        except Exception as error:
            if plan == Plan():
                raise
            reason = run.failed(f"confirming {plan}", error)
            run.record.fail_later(plan, f"it could not be confirmed: {reason}")
            return None

    known = {confirmation.plan.hash for confirmation in so_far}
    plans = [Plan()] if planned.fits else (trial.plan for trial in search.contenders(known, last=last))
    return confirm_in_order(_in_time(search, plans, len(so_far)), confirmed, so_far)


def _in_time(search: Search, plans: Iterable[Plan], confirmed: int) -> Iterator[Plan]:
    """The plans as long as there is time to confirm one more; the first one may take a little too long."""
    run = search.run
    for plan in plans:
        left = run.deadline.left
        too_late = left is not None and confirmed and left < seconds_for_confirmation(run)
        if too_late or not (confirmed or is_time_to_confirm(run)):
            run.tell("confirm", f"the time is up before {run.name_of(plan)} could be confirmed")
            search.out_of_time = True
            return
        yield plan
        confirmed += 1


def _further(
    search: Search, planned: Planned, confirmations: Sequence[Confirmation], reached: Sequence[Trial]
) -> Planned | None:
    """The extended search space to try next: precision, structure, then training, rung by rung.

    After a rung whose quantized file loses too much, that file is trained before the next rung.

    None when there is an answer, no time, or nothing more to try.
    """
    run = search.run
    left = run.deadline.left
    seconds = None if left is None else SHARE_OF_TIME * left
    if planned.fits or search.out_of_time or is_answered(confirmations) or len(confirmations) >= MAX_LOOKS:
        return None
    precision_is_due, packing_is_due = is_precision_due(run, planned), is_packing_due(run, planned)
    if not (precision_is_due or packing_is_due or _may_change_structure(search, planned)):
        return None
    if left is not None and (left <= 0 or left < seconds_for_answer(run)):
        # what is left is for the answer at hand: it is not enough for one more trial and its confirmation
        search.out_of_time = True
        return None
    if precision_is_due:
        return with_precision(run, planned, seconds)
    if packing_is_due:
        return with_trained_packing(run, planned)
    if not planned.structure_attempts:
        return with_structure(run, planned, seconds)
    again = planned.structure_attempts < MOST_ATTEMPTS and not planned.search_space.out_of_reach
    if again and nearly_fitted(planned.search_space, run.record.trials()):
        return with_structure(run, planned, seconds)
    plans = [trial.plan for trial in reached]
    tuned = with_quantized_recovery(run, planned, seconds, reached=plans)
    return tuned or with_training(run, planned, left, reached=plans)


def _may_change_structure(search: Search, planned: Planned) -> bool:
    run = search.run
    if planned.facts.is_file:
        return False
    if planned.structure_attempts:
        return True
    if run.task is None or run.task.calibration is None:
        return False
    return not (run.objective.first_answer_ends and search.structure_suffices)


def _answer_so_far(run: Run, planned: Planned, best: Trial) -> Result | None:
    """The intermediate result with this trial as the answer; undecided, since nothing was confirmed.

    None where its file is gone.
    """
    artifact = run.artifacts.find(best.plan)
    if artifact is None:
        return None
    answer = Answer(best.plan, artifact, best.measurement, best.verdict)
    warnings = planned.search_space.warnings
    notes = [*warnings, "The run goes on: this is the best answer so far, and it is not confirmed yet."]
    trials = run.record.trials()
    return write_up(run, answer, History(planned.facts, planned.search_space, planned.baseline, trials, notes))


def conclude(search: Search, planned: Planned, confirmations: Sequence[Confirmation]) -> Result:
    """The final result of a search and its confirmations.

    The answer's artifact and plan are written to the run's folder.
    """
    run = search.run
    answer = answer_from(run, confirmations, search.nearest_miss, planned.baseline)
    notes = list(planned.search_space.warnings)
    if planned.probes.skipped:
        notes.append(planned.probes.skipped_sentence)
    # measurements that the time cut short may be why nothing is met, also where every plan was tried
    out_of_time = search.out_of_time or (run.deadline.over and not answer.is_met)
    if out_of_time and not answer.is_met:
        tried = "before every plan of the search space was tried"
        notes.append(f"The time was up {tried if search.out_of_time else 'as the last plan was judged'}.")
        exporting, limit = run.builder.export_seconds, run.deadline.max_seconds
        if limit is not None and exporting >= limit:
            notes.append(f"Exporting the model took {exporting:.0f} s, longer than the limit; that cannot be cut.")
    history = History(planned.facts, planned.search_space, planned.baseline, run.record.trials(), notes, out_of_time)
    return write_up(run, answer, history)
