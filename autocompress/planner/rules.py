"""The decision tree's rules, as data: question, condition, effect, sentence, source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from autocompress.budget import ACCURACY_METRICS
from autocompress.facts import Facts, Family
from autocompress.judge import last_level
from autocompress.plan import Effort
from autocompress.probes import Probes
from autocompress.profile import Profile
from autocompress.statistics import smallest_drop_shown, spend
from autocompress.task import Task
from autocompress.verdict import Status, Verdict


@dataclass(frozen=True, eq=False)
class Situation:
    """All that the planner knows before it decides. `baseline` judges the model as it is."""

    facts: Facts
    probes: Probes
    profile: Profile
    task: Task | None
    baseline: Verdict


@dataclass(frozen=True)
class Effect:
    """What follows when a rule's condition holds.

    `refuse_effort` refuses techniques of that effort, `refuse` those named (whether on the shelf or not),
    `finish` ends the tree with an empty ladder, `warn` shows the sentence beside the ladder.
    """

    refuse_effort: Effort | None = None
    refuse: tuple[str, ...] = ()
    finish: bool = False
    warn: bool = False


@dataclass(frozen=True)
class Rule:
    """One question. `condition` answers it and says what it found; `sentence` holds then, `otherwise` if not."""

    name: str
    question: str
    condition: Callable[[Situation], tuple[bool, str]]
    effect: Effect
    sentence: str
    otherwise: str
    source: str = ""


def _fits(s: Situation) -> tuple[bool, str]:
    # accuracy budgets are kept by the model itself; what counts is what was measured of the rest
    structural = s.baseline.structural
    fits = structural.status is Status.MET
    missed = [f"{f.budget}: {f.value:.3g}" for f in structural.findings if f.value is not None and f.overshoot > 1.0]
    return fits, "all size and time budgets are met" if fits else "; ".join(missed) or "not every budget is measured"


def _has_no_data(s: Situation) -> tuple[bool, str]:
    part = s.task.calibrating if s.task else None
    return part is None, "no data" if part is None else f"{len(part)} items ({part.name})"


def _has_no_training_data(s: Situation) -> tuple[bool, str]:
    train = s.task.train if s.task else None
    return train is None, "no training data" if train is None else f"{len(train)} training items"


def _accuracy_cannot_be_shown(s: Situation) -> tuple[bool, str]:
    limit = next((b.limit for b in s.profile.budgets if b.metric == "max_accuracy_drop_pp"), None)
    confirming = s.task.confirming if s.task else None
    if limit is None or confirming is None:
        return False, "no limit on the accuracy drop" if limit is None else "no data"
    level = last_level(s.profile, len(confirming), spend(s.profile.alpha, 1))
    least = 100 * smallest_drop_shown(len(confirming), level)
    return limit < least, f"{len(confirming)} confirming items can show a drop of {least:.2f} pp at best"


def _asks_accuracy_without_data(s: Situation) -> tuple[bool, str]:
    asked = [b.metric for b in s.profile.budgets if b.metric in ACCURACY_METRICS]
    without = s.task is None or s.task.confirming is None
    return bool(asked) and without, ", ".join(asked) if asked else "no accuracy budget"


def _asks_more_than_int8(s: Situation) -> tuple[bool, str]:
    ratios = [probe.ratio for probe in s.probes.probes if probe.ratio is not None]
    sizes = [probe.size_ratio for probe in s.probes.probes if probe.size_ratio is not None]
    asked: list[str] = []
    if not ratios:
        return False, "nothing was probed"
    for budget in s.profile.budgets:
        best = min(ratios, default=1.0) if budget.metric == "latency_ms" else min(sizes, default=1.0)
        if budget.relative and budget.metric in ("latency_ms", "size_mb") and budget.limit < 0.8 * best:
            asked.append(f"{budget} where int8 reached {best:.2f}x on the dominant layers")
    return bool(asked), "; ".join(asked) or "int8 is within reach of the budgets"


def _is(*families: Family) -> Callable[[Situation], tuple[bool, str]]:
    return lambda s: (s.facts.family in families, f"{s.facts.family} ({s.facts.evidence})")


RULES: tuple[Rule, ...] = (
    Rule(
        "fits",
        "Does it already fit?",
        _fits,
        Effect(finish=True),
        "the model as it is keeps every size and time budget: nothing to do.",
        "it has to get smaller or faster.",
    ),
    Rule(
        "cnn",
        "Is it a convolutional network?",
        _is(Family.CNN),
        Effect(refuse=("quantization_aware_training",)),
        "static int8 first, then blocks and channels that can go, then distillation.",
        "it is none.",
        "DESIGN: planner, rule 3",
    ),
    Rule(
        "sequence",
        "Is it a transformer, a recurrent network or an MLP?",
        _is(Family.TRANSFORMER, Family.RNN, Family.MLP),
        Effect(refuse=("low_rank", "quantization_aware_training")),
        "int8 of the large matrices first, then layers and neurons that can go; low rank would follow, and is not "
        "available in this version.",
        "it is none.",
        "DESIGN: planner, rule 3",
    ),
    Rule(
        "calibration",
        "Are there no data to calibrate on?",
        _has_no_data,
        Effect(refuse_effort=Effort.CALIBRATION),
        "needs calibration data, and there are none.",
        "ranges can be calibrated.",
    ),
    Rule(
        "training",
        "Are there no training data?",
        _has_no_training_data,
        Effect(refuse_effort=Effort.TRAINING),
        "needs training data, and there are none.",
        "accuracy can be won back by training.",
    ),
    Rule(
        "unmeasured",
        "Is an accuracy budget set without data to confirm it?",
        _asks_accuracy_without_data,
        Effect(warn=True),
        "accuracy stays unmeasured, so the answer is at best undecided.",
        "accuracy can be measured.",
    ),
    Rule(
        "resolution",
        "Is the accuracy budget finer than the data can show?",
        _accuracy_cannot_be_shown,
        Effect(warn=True),
        "no candidate can be confirmed, however good; give more test items or a wider budget.",
        "nothing speaks against it.",
        "Tango, Statistics in Medicine 17 (1998): the bound without a changed answer is z^2/(n+z^2)",
    ),
    Rule(
        "beyond",
        "Is more asked than int8 reaches on this device?",
        _asks_more_than_int8,
        Effect(warn=True),
        "int8 alone is not expected to reach the budgets.",
        "nothing says so.",
    ),
)
