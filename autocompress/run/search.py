"""The search over one search space: one plan at a time, the cheapest measurement first.

It knows contracts only, no implementations.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice

from autocompress.core.artifact import Artifact
from autocompress.core.measurement import Measurement
from autocompress.core.plan import Plan
from autocompress.core.search_space import SearchSpace
from autocompress.core.strategy import Strategy
from autocompress.core.trial import Outcome, Trial
from autocompress.core.verdict import Standing, Status
from autocompress.errors import ENDS_THE_RUN
from autocompress.evaluation.run import Run
from autocompress.run.reserve import (
    TRIAL_SHARE,
    is_time_for_trial,
    is_time_to_score,
    seconds_for_answer,
    seconds_for_measuring,
    seconds_for_training,
    seconds_kept_back,
)
from autocompress.run.waiting import await_others
from autocompress.statistics.judging import forecast, judge_by
from autocompress.system.progress import Event

# how many near misses of each kind of plan are measured to the end before the nearest one is chosen
NEAREST = 2
# training is started even if its predicted time is up to this factor of the remaining time
LATENESS = 1.1
# and if it would not be cut to less than this share of the predicted time
LEAST_SHARE = 0.25


@dataclass(eq=False)
class Search:
    """A search over one search space; everything it does goes to the record."""

    run: Run
    search_space: SearchSpace
    strategy: Strategy
    out_of_time: bool = False
    _seconds: list[float] = field(default_factory=list)

    def contenders(self, known: Collection[str] = (), *, last: bool = True) -> Iterator[Trial]:
        """Trials worth confirming, best first by the profile's objective.

        An objective whose first answer ends the run yields each trial as soon as it is expected to be confirmed, before
        more plans are tried; others try all plans that time allows first. Unless this is the `last` search space, a
        trial that may well fail to be confirmed waits, since each look at the holdout costs certainty. On the last,
        candidates that the validation data leave undecided come at the end. Plans whose hashes are `known` are not
        yielded again.
        """
        given = set(known)
        record, deadline = self.run.record, self.run.deadline
        while not self.out_of_time:
            if self.run.objective.first_answer_ends:
                yield from self._hand_out(given, partial(is_expected, self.run))
            # read after yielding: a confirmation takes long, and other workers go on meanwhile
            history = record.trials()
            plan = self.strategy.propose(self.search_space, history)
            if plan is None:
                if not await_others(record, deadline, self.run.progress):
                    break
                self.out_of_time = deadline.over
                continue
            if deadline.over or self._is_too_long(plan):
                self.out_of_time = True
                break
            self._try(plan, history)
        if not (last or self.out_of_time):
            return
        yield from self._hand_out(given, lambda trial: trial.promising)
        # each look at the holdout costs certainty, so the trial closest to its budgets comes first
        undecided = [t for t in record.trials() if _undecided(t) and t.plan.hash not in given]
        yield from sorted(undecided, key=lambda trial: trial.verdict.overshoot)

    def _is_too_long(self, plan: Plan) -> bool:
        """True where the time left is too short for a plan, even when its training is cut."""
        run, left = self.run, self.run.deadline.left
        if left is None:
            return False
        if not is_time_for_trial(run, plan):
            return True
        recipe = self.search_space.recipe_of(plan)
        needed = (recipe.seconds_of(plan) if recipe else None) or 0.0
        if needed:
            training = seconds_for_training(run, seconds_kept_back(run)) or 0.0
            return needed > LATENESS * left or training < LEAST_SHARE * needed
        # one more structure is tried where it can still be measured and confirmed, or there is none yet to answer with
        known = any(trial.plan.rounds and trial.outcome is Outcome.MEASURED for trial in run.record.trials())
        return bool(plan.rounds) and known and left < seconds_for_answer(run)

    @property
    def structure_suffices(self) -> bool:
        """True when a plan without structure steps keeps all size and time budgets.

        Then changes of structure cannot provide what it lacks.
        """
        trials = self.run.record.trials()
        unchanged = (trial for trial in trials if not trial.plan.rounds and trial.outcome is not Outcome.FAILED)
        return any(trial.verdict.structural.status is Status.MET for trial in unchanged)

    def reached(self) -> list[Trial]:
        """Trials that are expected to be confirmed, best first by the profile's objective."""
        return sorted((trial for trial in self.run.record.trials() if is_expected(self.run, trial)), key=self.run.cost)

    def _hand_out(self, given: set[str], wanted: Callable[[Trial], bool]) -> Iterator[Trial]:
        trials = [trial for trial in self.run.record.trials() if wanted(trial) and trial.plan.hash not in given]
        for trial in sorted(trials, key=self.run.cost):
            given.add(trial.plan.hash)
            yield trial

    def _try(self, plan: Plan, history: Sequence[Trial]) -> None:
        start = time.monotonic()
        run = self.run
        total = sum(1 for recipe in self.search_space.recipes for _ in recipe.plans())
        best = min((trial for trial in history if trial.promising), key=run.cost, default=None)
        best_so_far = run.name_of(best.plan) if best else ""

        def tell(doing: str) -> None:
            seconds = sum(self._seconds) / len(self._seconds) if self._seconds else None
            rest = None if seconds is None else seconds * (total - len(history))
            limits = [limit for limit in (rest, run.deadline.left) if limit is not None]
            sentence = f"{doing} {run.name_of(plan)}"
            run.progress(Event("search", sentence, len(history), total, best_so_far, min(limits, default=None)))

        # what takes its time without labels, such as learned rounding, is no training
        doing = "training" if run.tools.trains(plan.steps) else "tuning"

        def on_step(step: int, steps: int, seconds_left: float) -> None:
            limits = [limit for limit in (seconds_left, run.deadline.left) if limit is not None]
            sentence = f"{doing} {run.name_of(plan)}, step {step} of {steps}"
            # stored now, so that the time of a training that is killed counts as well
            run.record.spend_time(run.deadline.spent)
            run.progress(Event("search", sentence, len(history), total, best_so_far, min(limits)))

        run.builder.on_step = on_step
        run.builder.tell = lambda sentence: run.tell("search", f"{run.name_of(plan)}: {sentence}")
        with run.record.claim(plan) as number:
            if number is not None:
                run.record.finish(evaluate(run, plan, number, tell))
            else:
                # a worker that was killed while it claimed has no trial yet that anybody would wait for
                run.record.release_dead_claims()
        self._seconds.append(time.monotonic() - start)
        run.record.spend_time(run.deadline.spent)

    def nearest_miss(self) -> Trial | None:
        """The trial closest to its budgets, with all its measurements; see `nearest_miss`.

        Where the budgets on size and time are out of reach, the closest to these is the nearest: its accuracy is that
        of an untrained structure.
        """
        judged = (Outcome.MEASURED, Outcome.STOPPED)
        trials = [trial for trial in self.run.record.trials() if trial.outcome in judged and trial.verdict.findings]
        near = _structural_distance if self.search_space.out_of_reach else distance
        if self.run.deadline.over:
            # no time to compare several to the end: the nearest by what is known
            closest = min(trials, key=near, default=None)
            return nearest_miss([closest] if closest else [], self._measured_to_the_end, near)
        return nearest_miss(trials, self._measured_to_the_end, near)

    def _measured_to_the_end(self, trial: Trial) -> Trial:
        run = self.run
        known = run.record.nearest_misses.get(trial.number)
        if known is not None:
            return known
        artifact = run.artifacts.find(trial.plan)
        if artifact is None:
            return trial
        run.tell("search", f"measuring a near miss to the end, {run.name_of(trial.plan)}")
        measurement = trial.measurement
        try:
            for name, take in measurements(run, artifact, seconds_for_measuring(run, TRIAL_SHARE)):
                if name not in measurement.readings and (name != "score" or is_time_to_score(run)):
                    measurement = measurement.with_(take())
        except ENDS_THE_RUN:
            raise
        except Exception as error:  # noqa: BLE001 - the next nearest miss is measured instead
            reason = run.failed(f"measuring {trial.plan} to the end", error)
            run.record.fail_later(trial.plan, reason)
            return replace(trial, outcome=Outcome.FAILED, reason=reason)
        full = replace(trial, measurement=measurement, verdict=judge_by(run.profile, measurement))
        return run.record.keep_nearest_miss(full)


def is_expected(run: Run, trial: Trial) -> bool:
    """True for a promising trial that would be confirmed with a chance of more than one half.

    The first look is spent on a plan that only quantizes, without a forecast. Otherwise the forecast is the verdict on
    as many holdout items as there are, at the rates of the validation ones and the next look's error probability.
    """
    split = run.task.holdout if run.task else None
    if not trial.promising or split is None or not (trial.plan.rounds or run.record.looks):
        return trial.promising
    return forecast(run.profile, trial.measurement, len(split), len(run.record.looks) + 1)


def measurements(
    run: Run, artifact: Artifact, max_seconds: float | None = None
) -> list[tuple[str, Callable[[], Measurement]]]:
    """The measurements of a trial, cheapest first, by the name of their main reading."""
    steps: list[tuple[str, Callable[[], Measurement]]] = [
        ("size_mb", lambda: run.measurer.size(artifact)),
        ("latency_ms", lambda: run.measurer.time(artifact, max_seconds)),
    ]
    split = run.task.validation if run.task else None
    if split is not None:
        steps.append(("score", lambda: run.measurer.score(artifact, split)))
    return steps


def evaluate(run: Run, plan: Plan, number: int, tell: Callable[[str], None] = lambda doing: None) -> Trial:
    """Build a plan and measure it, the cheapest measurement first, until a budget is broken.

    Whatever goes wrong ends the trial with that reason, not the run.

    Raises:
        AutocompressError: one of `ENDS_THE_RUN`, such as an error of the device itself.
    """
    seconds: dict[str, float] = {}
    clock = time.monotonic()
    tell("building")
    try:
        if plan.rounds or run.tools.trains(plan.finish):
            reserved = seconds_kept_back(run)
            plan = run.artifacts.trained(plan, lambda: seconds_for_training(run, reserved))
            seconds["training"] = time.monotonic() - clock
            clock = time.monotonic()
        artifact = run.artifacts.build(plan)
    except ENDS_THE_RUN:
        raise
    except Exception as error:  # noqa: BLE001 - one bad trial must not end the run; the log keeps the traceback
        reason = run.failed(f"trial {number}, building {plan}", error)
        return Trial(number, plan, Outcome.FAILED, reason=reason, seconds={"build": time.monotonic() - clock})
    seconds["build"] = time.monotonic() - clock
    trial = Trial(number, plan, Outcome.MEASURED, artifact_hash=artifact.hash, seconds=seconds)
    names = {"size_mb": "size", "latency_ms": "latency", "score": "accuracy"}
    for name, take in measurements(run, artifact, seconds_for_measuring(run, TRIAL_SHARE)):
        clock = time.monotonic()
        tell(f"measuring {names[name]} of")
        try:
            measurement = trial.measurement.with_(take())
        except ENDS_THE_RUN:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            reason = run.failed(f"trial {number}, measuring {names[name]} of {plan}", error)
            return replace(trial, outcome=Outcome.FAILED, reason=reason)
        seconds[names[name]] = time.monotonic() - clock
        trial = replace(trial, measurement=measurement, verdict=judge_by(run.profile, measurement))
        broken = next((f for f in trial.verdict.findings if f.standing is Standing.EXCEEDED), None)
        if broken is not None:
            reason = f"{broken.name}: {broken.sentence}"
            return replace(trial, outcome=Outcome.STOPPED, stopped_by=broken.budget.metric, reason=reason)
    sentences = [f"{f.name}: {f.sentence}" for f in trial.verdict.findings]
    return replace(trial, reason="; ".join(sentences))


def _undecided(trial: Trial) -> bool:
    return trial.outcome is Outcome.MEASURED and trial.verdict.status is Status.UNDECIDED and not trial.promising


def distance(trial: Trial) -> tuple[float, ...]:
    """The distance of a trial from its budgets: how many it misses, then by how much; lower is closer."""
    return (_misses(trial), trial.verdict.overshoot)


def _structural_distance(trial: Trial) -> tuple[float, ...]:
    return (trial.verdict.structural.overshoot, *distance(trial))


def _misses(trial: Trial) -> int:
    # budgets that were not measured count as no miss: the nearest miss is measured to the end afterwards
    return sum(finding.value is not None and finding.overshoot > 1.0 for finding in trial.verdict.findings)


def nearest_miss(
    trials: Iterable[Trial],
    measured_to_the_end: Callable[[Trial], Trial],
    near: Callable[[Trial], tuple[float, ...]] = distance,
) -> Trial | None:
    """The candidate that comes closest to its budgets, with the measurements that its trial left out.

    The closest of every kind of plan, by the values at hand, are measured to the end before they are compared: a trial
    that was stopped at once has not shown what else it breaks.
    """
    closest: dict[str, list[Trial]] = {}
    for trial in trials:
        closest.setdefault(trial.plan.kind, []).append(trial)
    full: list[Trial] = []
    for alike in closest.values():
        every = (measured_to_the_end(trial) for trial in sorted(alike, key=near))
        # one that fails now is no answer, and the next one is measured in its place
        full += islice((trial for trial in every if trial.outcome is not Outcome.FAILED), NEAREST)
    return min(full, key=near, default=None)
