"""The time that a run keeps back for its answer: building, measuring and confirming what was trained."""

from __future__ import annotations

from autocompress.core.plan import Stage
from autocompress.core.trial import Trial
from autocompress.evaluation.run import Run

# times of the parts of a trial may be so many times those seen so far
MARGIN = 1.25
# seconds that writing the answer takes: the report with its pictures, tables, copies of the files
WRITING = 4.0
# a confirmation measures until a look's own error probability allows a verdict: so many times a trial's time
CONFIRMING = 2.0
PARTS = ("build", "latency", "accuracy")
# share of the time left that is kept back at most: with less than the rest there is no point in training
MOST = 0.6


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


def seconds_for_training(run: Run, reserved: float) -> float | None:
    """Seconds left for training when so many are kept back, None without a limit."""
    left = run.deadline.left
    return None if left is None else max(0.0, left - reserved)


def measured_step_seconds(run: Run) -> float:
    """Seconds of a step of the slowest training so far, in its last round; 0 without any."""
    found = 0.0
    for trial in run.record.trials():
        steps = _steps(trial)
        if steps and "training" in trial.seconds:
            found = max(found, trial.seconds["training"] / steps)
    return found


def _longest(run: Run, part: str) -> float:
    return max((trial.seconds.get(part, 0.0) for trial in run.record.trials()), default=0.0)


def _steps(trial: Trial) -> int:
    """The steps that the last round was trained, 0 where that is not known."""
    last = trial.plan.rounds[-1] if trial.plan.rounds else ()
    return next((step.steps_taken for step in last if step.stage is Stage.RECOVERY), 0)
