"""The decision tree's questions, in the order in which they are asked."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from autocompress.core.budget import ACCURACY_METRICS, SIZE_METRICS, TIME_METRICS
from autocompress.core.facts import Family
from autocompress.core.plan import Effort
from autocompress.core.profile import Profile
from autocompress.core.score_bounds import RATE, Bounds, is_within
from autocompress.core.task import Task
from autocompress.core.technique import ArtifactTechnique, ModelTechnique, Technique
from autocompress.core.verdict import Status
from autocompress.planner.rules import Branch, Effect, Rule, Situation, needs, otherwise, yes_or_no
from autocompress.planner.target import target_of
from autocompress.statistics.betting import bounded_mean_bounds
from autocompress.statistics.bounds import smallest_drop_shown, spend
from autocompress.statistics.judging import last_level

SPARSE_UNITS = ("sparse_2_4",)
# factor by which the model has to become smaller or faster
ONE_STAGE, TWO_STAGES = 4.0, 16.0
# points of accuracy
LITTLE, MODERATE = 2.0, 5.0
# share of the layers that are few, and how many of them a sentence names
FEW, MOST_NAMED = 0.25, 4
# how many items are looked at as enough: up to so many, each number so much larger than the one before
MOST_ITEMS, STEP = 10_000_000, 1.05


def _fits(s: Situation) -> tuple[bool, str]:
    # the unchanged model loses no accuracy, so only the other, measured budgets can be missed
    structural = s.baseline.structural
    fits = structural.status is Status.MET
    missed = [f"{f.budget}: {f.value:.3g}" for f in structural.findings if f.value is not None and f.overshoot > 1.0]
    return fits, "all size and time budgets are met" if fits else "; ".join(missed) or "not every budget is measured"


def _is_a_file(s: Situation) -> tuple[bool, str]:
    return s.facts.is_file, "an ONNX file" if s.facts.is_file else "a PyTorch module"


def _has_no_data(s: Situation) -> bool:
    return s.task is None or s.task.calibration is None


def _calibration(s: Situation) -> str:
    split = s.task.calibration if s.task else None
    if split is not None:
        return f"{len(split)} items ({split.name})"
    return f"no data, and {s.no_inputs}" if s.no_inputs else "no data"


def _needs_more_than_ranges(technique: Technique, s: Situation) -> bool:
    takes_ranges = isinstance(technique, ArtifactTechnique) and technique.quantization == "static"
    return technique.effort is Effort.CALIBRATION and not takes_ranges


def _has_no_training_data(s: Situation) -> tuple[bool, str]:
    train = s.task.train if s.task else None
    return train is None, "no training data" if train is None else f"{len(train)} training items"


def _accuracy_cannot_be_shown(s: Situation) -> tuple[bool, str]:
    asked = next((b for b in s.profile.budgets if b.metric in ("max_accuracy_drop_pp", "max_score_drop")), None)
    holdout = s.task.holdout if s.task else None
    if asked is None or s.task is None or holdout is None:
        return False, "no limit on the accuracy drop" if asked is None else "no data"
    in_points = asked.metric == "max_accuracy_drop_pp"
    bounds = s.task.bounds or (RATE if in_points else None)
    if bounds is None or s.task.aggregate is not None:
        return False, "the score has no bounds, so no drop is the smallest that can be shown"
    least = (100 if in_points else 1) * _smallest_drop_shown(s.profile, s.task, bounds, len(holdout), s.looks)
    shown = f"{least:.2f}" if in_points else f"{least:.2g}"
    after = f" after {s.looks} looks" if s.looks else ""
    found = f"{len(holdout)} holdout items can show a drop of {shown} {asked.unit} at best{after}"
    if asked.limit >= least:
        return False, found
    needed = _items_that_show(s.profile, s.task, bounds, len(holdout), s.looks, asked.limit / (100 if in_points else 1))
    return True, found if needed is None else f"{found}, about {needed:,} the {asked.text} that may be lost"


def _items_that_show(profile: Profile, task: Task, bounds: Bounds, items: int, looks: int, limit: float) -> int | None:
    """About how many holdout items show a drop below the limit if no answer changes, if any do."""
    if limit <= 0 or not is_within(bounds, RATE):
        return None
    while items < MOST_ITEMS:
        items = 1 + int(items * STEP)
        if _smallest_drop_shown(profile, task, bounds, items, looks) <= limit:
            # rounded up to two digits
            unit = int(10 ** max(0, len(str(items)) - 2))
            return -(-items // unit) * unit
    return None


def _smallest_drop_shown(profile: Profile, task: Task, bounds: Bounds, items: int, looks: int) -> float:
    """The upper bound of the drop when no item's score changed, at the level left after so many looks."""
    alpha = spend(profile.alpha, looks + 1)
    if task.score != "token_accuracy" and is_within(bounds, RATE):
        # a function's scores may be right or wrong, which shows smaller drops
        return smallest_drop_shown(items, last_level(profile, items, alpha))
    reach = bounds[1] - bounds[0]
    return bounded_mean_bounds(np.zeros(items), -reach, reach, alpha)[1]


def _asks_accuracy_without_data(s: Situation) -> tuple[bool, str]:
    asked = [b.metric for b in s.profile.budgets if b.metric in ACCURACY_METRICS]
    without = s.task is None or s.task.holdout is None
    return bool(asked) and without, ", ".join(asked) if asked else "no accuracy budget"


def _asks_more_than_quantization(s: Situation) -> tuple[bool, str]:
    names = dict.fromkeys(probe.technique for probe in s.probes.probes)
    first = [best for name in names for best in s.probes.of(name)[:1]]
    ratios = [probe.ratio for probe in first if probe.ratio is not None]
    sizes = [probe.size_ratio for probe in first if probe.size_ratio is not None]
    where = "" if any(probe.whole for probe in first) else " on the dominant layers"
    asked: list[str] = []
    if not ratios:
        return False, "nothing was probed"
    for budget in s.profile.budgets:
        best = min(ratios, default=1.0) if budget.metric == "latency_ms" else min(sizes, default=1.0)
        if budget.relative and budget.metric in ("latency_ms", "size_mb") and budget.limit < 0.8 * best:
            asked.append(f"{budget} where quantization reached {best:.2f}x{where}")
    return bool(asked), "; ".join(asked) or "quantization is within reach of the budgets"


def _is_out_of_reach(s: Situation) -> tuple[bool, str]:
    smallest = s.probes.smallest
    if smallest is None:
        return False, "the smallest structure was not measured"
    missed = target_of(s.baseline).missed(smallest.latency, smallest.size)
    reached = f"latency {smallest.latency:.3g}x, size {smallest.size:.3g}x"
    return bool(missed), f"the smallest structure has {'; '.join(missed) or reached}"


def _mostly_in(s: Situation) -> tuple[str, ...] | None:
    """The fewest layers that take back half of the divergence in float; None where few do not."""
    found = s.probes.sensitivity
    if found is None:
        return None
    most = FEW * len(found.layers)
    sets = (one for one in found.mixed if one.divergence <= found.divergence / 2 and len(one.layers) <= most)
    return next((one.layers for one in sets), None)


def _lost(s: Situation) -> str:
    found = s.probes.sensitivity
    if found is None:
        return "no loss was measured"
    layers = _mostly_in(s)
    if layers is None:
        return f"no few of the {len(found.layers)} layers hold half of the divergence"
    named = ", ".join(layers[:MOST_NAMED]) + (f" and {len(layers) - MOST_NAMED} more" * (len(layers) > MOST_NAMED))
    return f"half of the divergence comes from {len(layers)} of {len(found.layers)} layers: {named}"


def _device_class(s: Situation) -> str:
    return s.profile.device.device_class


def _is(family: Family) -> Callable[[Situation], bool]:
    return lambda s: s.facts.family is family


def _features(s: Situation) -> tuple[str, ...]:
    return (*s.profile.device.features, *(["int8_dot_product"] if s.probes.int8_dot_product else []))


def _hardware(s: Situation) -> str:
    named = sorted({*_features(s)} & {"int8_dot_product", "fp16", "bf16", *SPARSE_UNITS})
    return ", ".join(named) or "no unit for narrow or sparse numbers"


def lacks_hardware(technique: Technique, s: Situation) -> bool:
    """True when a technique pays only on hardware units that this device lacks."""
    return bool(technique.hardware) and not technique.hardware & set(_features(s))


def _allowed_drop(s: Situation) -> float | None:
    return next((b.limit for b in s.profile.budgets if b.metric == "max_accuracy_drop_pp"), None)


def _asked_factor(s: Situation) -> float:
    """The factor by which the model has to become smaller or faster, by the strictest budget."""
    overshoot = s.baseline.structural.overshoot
    return overshoot if math.isfinite(overshoot) else 1.0


def _limits(*metrics: str) -> Callable[[Situation], bool]:
    return lambda s: any(budget.metric in metrics for budget in s.profile.budgets)


def _limited(s: Situation) -> str:
    return ", ".join(budget.metric for budget in s.profile.budgets if budget.structural) or "neither size nor time"


PLACE = Rule(
    "place",
    "Where does it run?",
    _device_class,
    (
        Branch(
            "on a phone or a board",
            lambda s: _device_class(s) in ("edge", "mobile"),
            "4 to 10 times smaller is usual there: structure follows as soon as int8 misses a budget.",
        ),
        Branch(
            "on a server",
            lambda s: _device_class(s) == "server",
            "2 to 4 times is usual there, which int8 alone often reaches.",
        ),
        otherwise("on a desktop or one's own machines", "a balance of both: as far as the budgets ask."),
    ),
    "ARCHITECTURE.md, The decision tree",
)
FAMILY = Rule(
    "family",
    "What is it?",
    lambda s: f"{s.facts.family} ({s.facts.evidence})",
    (
        Branch(
            "a convolutional network",
            _is(Family.CNN),
            "static int8 first, then blocks and channels that can go, then distillation.",
            Effect(usual=("quantization_aware_training",)),
        ),
        Branch(
            "a transformer",
            _is(Family.TRANSFORMER),
            "int8 of the large matrices first, then layers and FFN neurons that can go, with distillation; low rank of "
            "wide layers would follow. Unstructured pruning of attention saves nothing on dense hardware.",
            Effect(usual=("low_rank", "quantization_aware_training", "unstructured_pruning")),
        ),
        Branch(
            "a recurrent network",
            _is(Family.RNN),
            "int8 of the recurrent matrices first; narrower states would follow. Unstructured pruning saves nothing on "
            "dense hardware.",
            Effect(usual=("hidden_size_pruning", "low_rank", "quantization_aware_training", "unstructured_pruning")),
        ),
        Branch(
            "a multilayer perceptron",
            _is(Family.MLP),
            "int8 first, fewer values of weights, then neurons that can go, with distillation; low rank would follow.",
            Effect(usual=("low_rank", "palettes", "quantization_aware_training")),
        ),
        otherwise("a mixture", "what its layers have in common: int8, then what can go of blocks and channels."),
    ),
    "ARCHITECTURE.md, The decision tree",
)
HARDWARE = Rule(
    "hardware",
    "What does the hardware reward?",
    _hardware,
    (
        Branch(
            "sparse matrices",
            lambda s: any(name in SPARSE_UNITS for name in _features(s)),
            "two of four weights zero would be twice as fast in its units.",
            Effect(lacks_hardware, usual=("n_m_sparsity",)),
        ),
        Branch(
            "int8",
            lambda s: "int8_dot_product" in _features(s),
            "it multiplies int8 directly; how much that saves is probed. Zeros among the weights save nothing: "
            "structure has to go as a whole.",
            Effect(lacks_hardware),
        ),
        otherwise(
            "less work",
            "it has no unit for int8: whether int8 pays is probed, and less structure always does.",
            Effect(lacks_hardware),
        ),
    ),
    "ARCHITECTURE.md, The decision tree",
)
TOLERANCE = Rule(
    "tolerance",
    "How much accuracy may be lost?",
    lambda s: "no limit in points" if _allowed_drop(s) is None else f"{_allowed_drop(s):g} pp",
    (
        Branch("nothing is said", lambda s: _allowed_drop(s) is None, "the cheapest plan that fits is the answer."),
        Branch(
            "less than 2 points",
            lambda s: (_allowed_drop(s) or 0.0) < LITTLE,
            "quantization first; structure only where that does not do, and only with recovery.",
        ),
        Branch(
            "2 to 5 points",
            lambda s: (_allowed_drop(s) or 0.0) <= MODERATE,
            "quantization, then structure with recovery.",
        ),
        otherwise("more than 5 points", "everything on the shelf, structure without recovery included."),
    ),
    "ARCHITECTURE.md, The decision tree",
)
ASKED = Rule(
    "asked",
    "How much is asked?",
    lambda s: f"{_asked_factor(s):.3g} times less by the budget that asks most",
    (
        Branch("up to 4 times", lambda s: _asked_factor(s) <= ONE_STAGE, "one stage of recovery will do, if any."),
        Branch(
            "4 to 16 times",
            lambda s: _asked_factor(s) <= TWO_STAGES,
            "usual are two stages of distillation with a middle-sized teacher. In this package's measurements all "
            "structure at once did better in the same time, so that is what is tried.",
        ),
        otherwise(
            "more than 16 times",
            "few networks bear that; the smallest structure is measured before anything is trained.",
            Effect(warn=True),
        ),
    ),
    "ARCHITECTURE.md, The decision tree; Mirzadeh et al., Improved knowledge distillation via teacher assistant, "
    "AAAI 2020; "
    "benchmarks/recovery.py",
)
WHAT = Rule(
    "what",
    "What has to shrink?",
    _limited,
    (
        Branch(
            "size and time",
            lambda s: _limits(*SIZE_METRICS)(s) and _limits(*TIME_METRICS)(s),
            "what serves both comes first: int8, then structure.",
        ),
        Branch(
            "size alone",
            _limits(*SIZE_METRICS),
            "weights of eight bits, or four in linear layers, then few values in each layer, then structure.",
            Effect(usual=("palettes", "blockwise_weights")),
        ),
        Branch("time alone", _limits(*TIME_METRICS), "structure and int8; what only packs weights saves no time."),
        otherwise("nothing", "there is no budget on size or time."),
    ),
    "ARCHITECTURE.md, The decision tree",
)
SENSITIVITY = Rule(
    "sensitivity",
    "Does int8 lose accuracy here, and where?",
    _lost,
    (
        Branch(
            "in some layers",
            lambda s: _mostly_in(s) is not None,
            "these layers go back to float first, after what prepares the others; then rounding is learned.",
        ),
        Branch(
            "all over the network",
            lambda s: s.probes.sensitivity is not None,
            "the float file is prepared, then rounding is learned; few layers in float do not win it back.",
        ),
        otherwise("not seen so far", "int8 is tried as it is."),
    ),
    "ARCHITECTURE.md, The decision tree; measured by analysis/sensitivity.py",
)
CALIBRATION = Rule(
    "calibration",
    "Are there no data to calibrate on?",
    _calibration,
    (
        Branch(
            "inputs can be made",
            lambda s: _has_no_data(s) and s.no_inputs == "",
            "ranges come from inputs made from batch-norm statistics; what needs more than ranges needs data.",
            Effect(_needs_more_than_ranges, warn=True),
        ),
        Branch("yes", _has_no_data, "needs calibration data, and there are none.", Effect(needs(Effort.CALIBRATION))),
        otherwise("no", "ranges can be calibrated."),
    ),
    "Cai et al., ZeroQ, CVPR 2020; Nagel et al., Data-free quantization, ICCV 2019",
)
RULES: tuple[Rule, ...] = (
    yes_or_no(
        "fits",
        "Does it already fit?",
        _fits,
        Effect(finish=True),
        "the model as it is keeps every size and time budget: nothing to do.",
        "it has to get smaller or faster.",
    ),
    yes_or_no(
        "file",
        "Is the model a file?",
        _is_a_file,
        Effect(lambda technique, situation: isinstance(technique, ModelTechnique)),
        "the model is a file; changing its structure needs the PyTorch module, and so does training.",
        "its structure can be changed, and it can be trained.",
    ),
    PLACE,
    FAMILY,
    HARDWARE,
    SENSITIVITY,
    TOLERANCE,
    ASKED,
    WHAT,
    CALIBRATION,
    yes_or_no(
        "training",
        "Are there no training data?",
        _has_no_training_data,
        Effect(needs(Effort.TRAINING)),
        "needs training data, and there are none.",
        "accuracy can be won back by training.",
    ),
    yes_or_no(
        "unmeasured",
        "Is an accuracy budget set without data to confirm it?",
        _asks_accuracy_without_data,
        Effect(warn=True),
        "accuracy stays unmeasured, so the answer is at best undecided.",
        "accuracy can be measured.",
    ),
    yes_or_no(
        "resolution",
        "Is the accuracy budget finer than the data can show?",
        _accuracy_cannot_be_shown,
        Effect(warn=True),
        "no candidate can be confirmed, however good; give more test items or a wider budget.",
        "nothing speaks against it.",
        "Tango, Statistics in Medicine 17 (1998): the bound without a changed answer is z^2/(n+z^2); "
        "for shares of tokens Waudby-Smith and Ramdas, JRSS B 86 (2024)",
    ),
    yes_or_no(
        "beyond",
        "Is more asked than quantization reaches on this device?",
        _asks_more_than_quantization,
        Effect(warn=True),
        "quantization alone is not expected to reach the budgets.",
        "nothing says so.",
    ),
    yes_or_no(
        "reachable",
        "Are the budgets out of reach of everything that can be cut?",
        _is_out_of_reach,
        Effect(needs(Effort.TRAINING), warn=True),
        "size and time do not depend on training, so nothing is trained.",
        "nothing says so.",
    ),
)
