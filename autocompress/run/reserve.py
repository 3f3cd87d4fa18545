"""Shares of a time limit: for measurements and probes, and what is kept back for the answer."""

from __future__ import annotations

from autocompress.core.plan import Plan, Stage
from autocompress.core.trial import Trial
from autocompress.evaluation.run import Run
from autocompress.statistics.sequential import FIRST

# times of the parts of a trial may be so many times those seen so far
MARGIN = 1.25
# seconds that writing the answer takes: the report with its pictures, tables, copies of the files
WRITING = 4.0
# a confirmation measures until a look's own error probability allows a verdict: so many times a trial's time
CONFIRMING = 2.0
PARTS = ("build", "latency", "accuracy")
# share of the time left that is kept back at most: with less than the rest there is no point in training
MOST = 0.6
# a measurement that decides budgets may take so many times its time; see `devices.alternation`
PATIENCE = 2.0
# shortest measurement in seconds: less leads to no interval
SHORTEST = 0.5
# scoring that takes so few seconds is done in any case
MOMENT = 2.0
# calibrating with an item takes so many times what scoring one takes
CALIBRATING = 2.0
# shares of the time left that measuring the baseline, a trial or a confirmation may take
BASELINE_SHARE, TRIAL_SHARE, CONFIRMATION_SHARE = 0.15, 0.15, 0.3
# the first confirmation may end so much of the limit too late: a plan without it is no answer
LATE = 0.05


def seconds_for_answer(run: Run) -> float:
    """Seconds from the end of a training to the end of the run.

    One trial's measurements and one confirmation, and writing the answer. They are what the longest ones took so far.
    """
    return MARGIN * sum(_longest(run, part) for part in PARTS) + seconds_for_confirmation(run) + WRITING


def seconds_kept_back(run: Run) -> float:
    """Seconds of the time left that training does not get: those for the answer, at most a share of it."""
    needed, left = seconds_for_answer(run), run.deadline.left
    return needed if left is None else min(needed, MOST * left)


def seconds_for_confirmation(run: Run) -> float:
    """Seconds that one confirmation takes, judged by the longest measurements of trials so far."""
    task = run.task
    holdout, validation = (task.holdout, task.validation) if task else (None, None)
    larger = len(holdout) / max(1, len(validation)) if holdout is not None and validation is not None else 0.0
    return MARGIN * (CONFIRMING * _longest(run, "latency") + larger * _longest(run, "accuracy"))


def seconds_for_measuring(run: Run, share: float) -> float | None:
    """Seconds for measuring time at each set of input shapes; None for as long as the profile says.

    With a limit on the run's time all sets together take no more than this share of what is left, and hardly anything
    where nothing is left.
    """
    left, most = run.deadline.left, run.profile.protocol.max_seconds
    if left is None:
        return None
    each = share * left / (PATIENCE * len(run.profile.input_sets))
    return None if each >= most else min(most, max(SHORTEST, each))


def share_of_time(run: Run, share: float) -> float | None:
    """A share of the seconds left, None without a limit."""
    left = run.deadline.left
    return None if left is None else share * left


def is_time_for_trial(run: Run, plan: Plan) -> bool:
    """True where the time left suffices to calibrate and score a plan that is not trained."""
    samples = sum(int(step.settings.get("samples", 0)) for step in plan.finish)
    left, split = run.deadline.left, run.task.calibration if run.task else None
    if left is None:
        return True
    calibrating = 0.0 if split is None else CALIBRATING * _seconds_to_score(run, min(samples, len(split)))
    items = len(run.task.validation) if run.task and run.task.validation else 0
    return calibrating + _seconds_to_score(run, items) <= max(MOMENT, left)


def is_time_to_score(run: Run, share: float = 1.0) -> bool:
    """True where one more file can be scored on the validation data in a share of the time left."""
    left, split = share_of_time(run, share), run.task.validation if run.task else None
    return left is None or split is None or _seconds_to_score(run, len(split)) <= max(MOMENT, left)


def is_time_to_confirm(run: Run) -> bool:
    """True where a first confirmation ends in time, or hardly too late; it reads few items at least."""
    limit = run.deadline.max_seconds
    if limit is None:
        return True
    split = run.task.holdout if run.task else None
    # the baseline is scored beside the candidate
    needed = 0.0 if split is None else 2 * _seconds_to_score(run, min(FIRST, len(split)))
    return needed + WRITING <= limit * (1 + LATE) - run.deadline.spent


def _seconds_to_score(run: Run, items: int) -> float:
    """About the seconds that scoring so many items takes.

    Validation items are timed: holdout items are not scored before a look at them is written down.
    """
    split = run.task.validation if run.task else None
    return 0.0 if split is None else items * run.measurer.seconds_per_item(split)


def seconds_for_training(run: Run, reserved: float) -> float | None:
    """Seconds left for training when so many are kept back, None without a limit."""
    left = run.deadline.left
    return None if left is None else max(0.0, left - reserved)


def measured_step_seconds(run: Run) -> float:
    """Seconds of a step of the slowest training so far, in its last round; 0 without any."""
    found = 0.0
    for trial in run.record.trials():
        # where the finish trains too, the time is that of both
        steps = 0 if run.tools.trains(trial.plan.finish) else _steps(trial)
        if steps and "training" in trial.seconds:
            found = max(found, trial.seconds["training"] / steps)
    return found


def _longest(run: Run, part: str) -> float:
    return max((trial.seconds.get(part, 0.0) for trial in run.record.trials()), default=0.0)


def _steps(trial: Trial) -> int:
    """The steps that the last round was trained, 0 where that is not known."""
    last = trial.plan.rounds[-1] if trial.plan.rounds else ()
    return next((step.steps_taken for step in last if step.stage is Stage.RECOVERY), 0)
