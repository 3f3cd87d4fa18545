"""Kinds of scores for `verdicts.py`: draws whose true drop is known, gates replayed on them, and widths of bounds.

A gate reads items as the package does (`look_until_clear`) and judges what it read (`judge`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from autocompress.core.aggregate import AGGREGATES, Aggregate
from autocompress.core.budget import Budget
from autocompress.core.measurement import Measurement, Reading
from autocompress.core.profile import Profile, Protocol
from autocompress.core.verdict import Status
from autocompress.statistics.betting import bounded_mean_bounds
from autocompress.statistics.bootstrap import mean_bounds, replicates
from autocompress.statistics.judging import judge, look_until_clear

ALPHA = 0.05
POPULATION = 400_000
FLOATS = NDArray[np.float64]
# draws the scores, or the records of an aggregate, of so many items before and after, at a true drop
Draw = Callable[[np.random.Generator, int, float], tuple[FLOATS, FLOATS]]


@dataclass(frozen=True)
class Kind:
    """A kind of score: how items are drawn, how many there are, the limit, and the score's bounds where it has any."""

    draw: Draw
    items: int
    limit: float
    bounds: tuple[float, float] | None = None
    aggregate: Aggregate | None = None


def rare_losses(random: np.random.Generator, n: int, drop: float) -> tuple[FLOATS, FLOATS]:
    """A few items lose all of 0.85, the others next to nothing."""
    before = np.full(n, 0.85)
    lost = random.random(n) < drop / 0.85
    return before, np.where(lost, 0.0, before + random.uniform(-0.002, 0.002, n))


def overlaps(random: np.random.Generator, n: int, drop: float) -> tuple[FLOATS, FLOATS]:
    """Intersection over union: 0.8 on average, changed at random by up to half of the way to 0 or 1."""
    before = random.beta(8, 2, n)
    noise = 0.5 * np.minimum(before, 1 - before) * random.uniform(-1, 1, n)
    return before, before * (1 - drop / 0.8) + noise


def tokens(random: np.random.Generator, n: int, drop: float) -> tuple[FLOATS, FLOATS]:
    """Shares of 24 tokens: nine in ten are right before, some of either kind change."""
    before = random.binomial(24, 0.9, n)
    lost, won = random.binomial(before, (drop + 0.01) / 0.9), random.binomial(24 - before, 0.1)
    return before / 24, (before - lost + won) / 24


def heavy_tails(random: np.random.Generator, n: int, drop: float) -> tuple[FLOATS, FLOATS]:
    """Errors whose change has Student's distribution with 3 degrees of freedom: no third moment."""
    before = -random.lognormal(0, 1, n)
    return before, before - drop - 0.3 * random.standard_t(3, n)


def skewed_tails(random: np.random.Generator, n: int, drop: float) -> tuple[FLOATS, FLOATS]:
    """Errors that seldom grow a great deal: the change has a log-normal distribution, skewness 33."""
    before = -random.lognormal(0, 1, n)
    change = random.lognormal(0, 1.5, n) - math.exp(1.5**2 / 2)
    return before, before - drop - 0.1 * change


def psnr(random: np.random.Generator, n: int, drop: float) -> tuple[FLOATS, FLOATS]:
    """Peak signal-to-noise ratio of images in dB, with skewed changes of a third of a dB."""
    before = random.normal(32, 3, n)
    return before, before - drop - 0.15 * (random.gamma(4, 1, n) - 4)


def classes(random: np.random.Generator, n: int, drop: float) -> tuple[FLOATS, FLOATS]:
    """Predicted and right classes of five unequally frequent ones; a share `drop` more is wrong after."""
    right = random.choice(5, n, p=[0.4, 0.3, 0.15, 0.1, 0.05])
    wrong = (right + random.integers(1, 5, n)) % 5
    # items near the border turn both ways, so that answers change without a loss too
    ease = random.random(n)
    after_ease = np.where(random.random(n) < 0.05, random.random(n), ease)
    before, after = (np.where(side, right, wrong) for side in (ease < 0.85, after_ease < 0.85 - drop))
    return np.stack([before, right], 1).astype(float), np.stack([after, right], 1).astype(float)


def ranks(random: np.random.Generator, n: int, drop: float) -> tuple[FLOATS, FLOATS]:
    """Outputs and targets that correlate, with more noise after than before."""
    target = random.normal(size=n)
    output = target + 0.5 * random.normal(size=n)
    # the same noise, in part drawn anew, and `drop` more of it
    anew = target + 0.5 * (0.95 * (output - target) / 0.5 + math.sqrt(1 - 0.95**2) * random.normal(size=n))
    return np.stack([output, target], 1), np.stack([anew + drop * random.normal(size=n), target], 1)


def losses(random: np.random.Generator, n: int, drop: float) -> tuple[FLOATS, FLOATS]:
    """Summed token losses of texts of 5 to 60 tokens, which differ in difficulty, and their numbers of tokens."""
    length = random.integers(5, 61, n)
    before = length * random.gamma(9, 1 / 3, n)
    after = before + length * random.normal(drop, 0.1, n)
    return np.stack([before, length], 1), np.stack([after, length], 1)


KINDS: Mapping[str, Kind] = {
    "rare total losses": Kind(rare_losses, 5_000, 0.005, (0.0, 1.0)),
    "IoU-like": Kind(overlaps, 5_000, 0.005, (0.0, 1.0)),
    "token accuracy": Kind(tokens, 5_000, 0.005, (0.0, 1.0)),
    "PSNR-like": Kind(psnr, 2_000, 0.05),
    "heavy tails": Kind(heavy_tails, 2_000, 0.05),
    "heavy tails, skewed": Kind(skewed_tails, 2_000, 0.05),
    # of aggregates the limit is the change of the items that makes it: an accuracy, a noise, a token loss
    "macro_f1": Kind(classes, 1_000, 0.02, aggregate=AGGREGATES["macro_f1"]),
    "spearman": Kind(ranks, 300, 0.3, aggregate=AGGREGATES["spearman"]),
    "negative_perplexity": Kind(losses, 1_000, 0.02, aggregate=AGGREGATES["negative_perplexity"]),
}


def true_drop(kind: Kind, drop: float) -> float:
    """The drop of the score in the whole population; for an aggregate, of 400,000 items."""
    if kind.aggregate is None:
        return drop
    before, after = kind.draw(np.random.default_rng(1), POPULATION, drop)
    return kind.aggregate.value(before) - kind.aggregate.value(after)


def replayed(kind: Kind, random: np.random.Generator, gates: int, drop: float, limit: float) -> dict[str, Any]:
    """Shares of gates that pass and fail, and the items that were read on average."""
    # figures of all items together are read to the end anyway; reading 250 first would only take time here
    protocol = Protocol(items="as_needed" if kind.aggregate is None else "all")
    profile = Profile("replay", protocol=protocol, budgets=(Budget("max_score_drop", limit),))
    passed = failed = read = 0
    for _ in range(gates):
        sides = kind.draw(random, kind.items, drop)

        def take(count: int, sides: tuple[FLOATS, FLOATS] = sides) -> Measurement:
            before, after = ({"score": reading_of(kind, side[:count])} for side in sides)
            return Measurement(after, before)

        measurement, level = look_until_clear(profile, kind.items, ALPHA, take)
        status = judge(profile.budgets, measurement, ALPHA, accuracy_alpha=level).status
        passed += status is Status.MET
        failed += status is Status.NOT_MET
        score = measurement.readings["score"]
        read += score.items or len(score.samples)
    return {"passed": passed / gates, "failed": failed / gates, "items_read": read / gates}


def reading_of(kind: Kind, rows: FLOATS) -> Reading:
    """The reading that the scorer would make of these items."""
    if kind.aggregate is None:
        return Reading("score", rows, bounds=kind.bounds)
    return Reading(kind.aggregate.name, replicates(rows, kind.aggregate.value), len(rows))


# widths of bounds


def empirical_bernstein(drops: FLOATS, alpha: float) -> float:
    """The upper bound by Waudby-Smith and Ramdas (2024), theorem 2, with bets for this number of items."""
    values, count = (drops + 1) / 2, np.arange(1, len(drops) + 1)
    mean = (0.5 + np.cumsum(values)) / (count + 1)
    spread = (0.25 + np.cumsum((values - mean) ** 2)) / (count + 1)
    mean, spread = np.r_[0.5, mean[:-1]], np.r_[0.25, spread[:-1]]
    bets = np.minimum(np.sqrt(2 * math.log(1 / alpha) / (spread * len(drops))), 0.5)
    paid = (values - mean) ** 2 * (-np.log1p(-bets) - bets)
    return float(2 * ((bets * values).sum() + math.log(1 / alpha) + paid.sum()) / bets.sum() - 1)


def bets_for_so_many(drops: FLOATS, alpha: float) -> float:
    """The upper bound by predictable bets for this number of items, which does not hold where reading stops earlier.

    Waudby-Smith and Ramdas (2024), section 4, with half of the greatest variance as the first guess.
    """
    count = np.arange(1, len(drops) + 1)
    mean = np.cumsum(drops) / (count + 1)
    spread = np.r_[0.25, ((0.25 + np.cumsum((drops - mean) ** 2)) / (count + 1))[:-1]]
    bets = np.sqrt(2 * math.log(1 / alpha) / (spread * len(drops)))

    def gained(believed: float) -> float:
        return float(np.log1p(np.minimum(bets, 0.9 / (1 - believed)) * (believed - drops)).sum()) + math.log(alpha)

    return float(optimize.brentq(gained, -0.99, 1 - 1e-9))


def widths(name: str, n: int, draws: int) -> dict[str, Any]:
    """Mean distance of the upper 95 % bounds from the observed drop, in points, where nothing is lost in truth."""
    kind, random = KINDS[name], np.random.default_rng(2)
    found = []
    for _ in range(draws):
        before, after = kind.draw(random, n, 0.001)
        drops = before - after
        bounds = (
            bounded_mean_bounds(drops, -1.0, 1.0, ALPHA)[1],
            bets_for_so_many(drops, ALPHA),
            empirical_bernstein(drops, ALPHA),
            mean_bounds(drops, ALPHA)[1],
        )
        found.append([100 * (bound - float(drops.mean())) for bound in bounds])
    mixture, for_n, bernstein, asymptotic = np.mean(found, axis=0).tolist()
    return {
        "kind": name,
        "items": n,
        "betting_mixture": mixture,
        "bets_for_n": for_n,
        "empirical_bernstein": bernstein,
        "bootstrap_t": asymptotic,
    }


def replay_kinds(gates: int) -> list[dict[str, Any]]:
    """Each kind at a true drop that lies at the limit and at none; rare losses also as they once passed too often."""
    print(
        "| score | items | limit | wrongly met | wrongly not met | met where nothing is lost | items read then |\n"
        "|---|---|---|---|---|---|---|"
    )
    rows = []
    for place, (name, kind) in enumerate(KINDS.items()):
        random = np.random.default_rng(100 + place)
        limit = true_drop(kind, kind.limit)
        at_limit, none = (replayed(kind, random, gates, drop, limit) for drop in (kind.limit, 0.0))
        rows.append({"kind": name, "items": kind.items, "limit": limit, "at_limit": at_limit, "no_drop": none})
        print(
            f"| {name} | {kind.items:,} | {limit:.3g} | {at_limit['passed']:.3f} | {at_limit['failed']:.3f} "
            f"| {none['passed']:.3f} | {none['items_read']:,.0f} |",
            flush=True,
        )
    above = replayed(KINDS["rare total losses"], np.random.default_rng(99), gates, 0.0068, 0.005)
    print(f"\nrare total losses of 0.68 points in truth, limit 0.5: wrongly met {above['passed']:.3f}")
    return [*rows, {"kind": "rare total losses", "items": 5_000, "limit": 0.005, "true_drop": 0.0068, **above}]


def compare_widths() -> list[dict[str, Any]]:
    """Widths of the bounds of kinds in known bounds at several numbers of items."""
    print("\n| score | items | betting mixture | bets for so many items | empirical Bernstein | bootstrap-t |")
    print("|---|---|---|---|---|---|")
    rows = []
    for name in (name for name, kind in KINDS.items() if kind.bounds is not None):
        for n in (500, 2_000, 10_000):
            row = widths(name, n, 10)
            rows.append(row)
            print(
                f"| {name} | {n:,} | {row['betting_mixture']:.2f} | {row['bets_for_n']:.2f} "
                f"| {row['empirical_bernstein']:.2f} | {row['bootstrap_t']:.2f} |",
                flush=True,
            )
    return rows
