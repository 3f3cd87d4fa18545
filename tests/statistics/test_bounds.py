import math
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from autocompress.statistics.bounds import (
    drop_bounds,
    items_needed,
    least_values,
    median_bounds,
    rate_bounds,
    smallest_drop_shown,
    spend,
)

ALPHAS = st.sampled_from([0.001, 0.01, 0.025, 0.05, 0.1, 0.2])
REPEATS = 4000

relaxed = settings(deadline=None, max_examples=100)


@st.composite
def pairs(draw: st.DrawFn, most: int = 5000) -> tuple[int, int, int]:
    """(lost, gained, n)."""
    n = draw(st.integers(1, most))
    lost = draw(st.integers(0, n))
    return lost, draw(st.integers(0, n - lost)), n


def monte_carlo_error(rate: float) -> float:
    """Three standard errors of a rate seen in `REPEATS` simulations."""
    return 3 * math.sqrt(rate * (1 - rate) / REPEATS)


# drops of a rate


@pytest.mark.parametrize(
    ("lost", "gained", "n", "interval"),
    [
        # Fagerland, Lydersen and Laake, Statistical Analysis of Contingency Tables (2017), chapter 8: Tango's
        # interval for the data of Cavo et al. (2012) and of Bentur et al. (2009)
        (6, 16, 161, (-0.1240, -0.0054)),
        (1, 7, 21, (-0.517, -0.026)),
    ],
)
def test_published_intervals_are_reproduced(lost: int, gained: int, n: int, interval: tuple[float, float]) -> None:
    # two-sided 95 % is 97.5 % on each side
    assert drop_bounds(lost, gained, n, 0.025) == pytest.approx(interval, abs=6e-4 if n < 100 else 6e-5)


@relaxed
@given(pairs(most=500), ALPHAS)
def test_at_the_bound_the_score_statistic_is_the_quantile(pair: tuple[int, int, int], alpha: float) -> None:
    lost, gained, n = pair
    _, upper = drop_bounds(lost, gained, n, alpha)
    assume(upper < 0.999)

    def minus_log_likelihood(gain: float) -> float:
        # gain and gain + upper are the rates of the two kinds of change
        kept = 1.0 - 2.0 * gain - upper
        return -sum(
            count * math.log(max(rate, 1e-300))
            for count, rate in ((lost, gain + upper), (gained, gain), (n - lost - gained, kept))
        )

    low, high = max(0.0, -upper), (1.0 - upper) / 2.0
    found = optimize.minimize_scalar(minus_log_likelihood, (low, high), bounds=(low, high), options={"xatol": 1e-10})
    # the maximum may lie at an end, which the search never reaches
    gain = min((found.x, low, high), key=minus_log_likelihood)
    variance = 2.0 * gain + upper * (1.0 - upper)
    statistic = (lost - gained - n * upper) / math.sqrt(n * variance)
    assert statistic == pytest.approx(-stats.norm.isf(alpha), abs=2e-3)


@relaxed
@given(pairs(), ALPHAS)
def test_bounds_enclose_what_was_observed(pair: tuple[int, int, int], alpha: float) -> None:
    lost, gained, n = pair
    lower, upper = drop_bounds(lost, gained, n, alpha)
    observed = (lost - gained) / n
    assert -1.0 <= lower <= observed <= upper <= 1.0
    assert lower < upper


@relaxed
@given(pairs(), ALPHAS)
def test_losses_and_gains_swapped_turn_the_interval_round(pair: tuple[int, int, int], alpha: float) -> None:
    lost, gained, n = pair
    lower, upper = drop_bounds(lost, gained, n, alpha)
    assert drop_bounds(gained, lost, n, alpha) == pytest.approx((-upper, -lower), abs=1e-9)


@relaxed
@given(pairs(), ALPHAS)
def test_one_more_loss_moves_both_bounds_up(pair: tuple[int, int, int], alpha: float) -> None:
    lost, gained, n = pair
    assume(lost + gained < n)
    before, after = drop_bounds(lost, gained, n, alpha), drop_bounds(lost + 1, gained, n, alpha)
    assert after[0] >= before[0] - 1e-9
    assert after[1] >= before[1] - 1e-9


@relaxed
@given(pairs(), st.tuples(ALPHAS, ALPHAS))
def test_more_confidence_widens_the_interval(pair: tuple[int, int, int], alphas: tuple[float, float]) -> None:
    strict, loose = sorted(alphas)
    outer, inner = drop_bounds(*pair, strict), drop_bounds(*pair, loose)
    assert outer[0] <= inner[0] + 1e-9
    assert outer[1] >= inner[1] - 1e-9


@relaxed
@given(st.integers(1, 10**6), ALPHAS)
def test_without_any_change_the_bounds_have_a_closed_form(n: int, alpha: float) -> None:
    z2 = stats.norm.isf(alpha) ** 2
    lower, upper = drop_bounds(0, 0, n, alpha)
    assert upper == pytest.approx(z2 / (n + z2), rel=1e-6, abs=1e-11)
    assert lower == pytest.approx(-z2 / (n + z2), rel=1e-6, abs=1e-11)
    assert smallest_drop_shown(n, alpha) == pytest.approx(upper, rel=1e-6, abs=1e-11)


@pytest.mark.parametrize("n", [1, 7, 1000])
def test_when_every_answer_is_lost_the_drop_may_be_whole(n: int) -> None:
    lower, upper = drop_bounds(n, 0, n, 0.05)
    assert upper == 1.0
    assert lower < 1.0


def test_without_items_nothing_is_known() -> None:
    assert drop_bounds(0, 0, 0, 0.05) == (-1.0, 1.0)
    assert smallest_drop_shown(0, 0.05) == 1.0


@cache
def _bounds(lost: int, gained: int, n: int, alpha: float) -> tuple[float, float]:
    return drop_bounds(lost, gained, n, alpha)


@pytest.mark.parametrize("alpha", [0.05, 0.0125])
@pytest.mark.parametrize(
    ("n", "loss", "gain"),
    [(1000, 0.03, 0.03), (1000, 0.06, 0.02), (500, 0.02, 0.05), (2000, 0.10, 0.08), (6700, 0.035, 0.025)],
)
def test_each_bound_of_a_drop_holds_as_often_as_promised(n: int, loss: float, gain: float, alpha: float) -> None:
    generator = np.random.default_rng(11)
    counts = generator.multinomial(n, [loss, gain, 1 - loss - gain], size=REPEATS)
    bounds = np.array([_bounds(int(lost), int(gained), n, alpha) for lost, gained, _ in counts])
    held_below = float((bounds[:, 0] <= loss - gain).mean())
    held_above = float((bounds[:, 1] >= loss - gain).mean())
    # the score interval is an approximation: its coverage itself swings a little around the promise
    slack = monte_carlo_error(alpha) + 0.1 * alpha
    for held in (held_below, held_above):
        assert held >= 1 - alpha - slack
        assert held <= 1 - alpha + slack + 0.01


@pytest.mark.parametrize(("n", "rate"), [(50, 0.02), (200, 0.005), (2000, 0.0005)])
def test_the_upper_bound_of_a_drop_holds_where_changes_are_rare(n: int, rate: float) -> None:
    # the case a Wald interval gets wrong: often not one answer changes, and its interval is a point
    generator = np.random.default_rng(5)
    counts = generator.multinomial(n, [rate, rate / 2, 1 - 1.5 * rate], size=REPEATS)
    uppers = np.array([_bounds(int(lost), int(gained), n, 0.05)[1] for lost, gained, _ in counts])
    assert (counts[:, :2].sum(axis=1) == 0).mean() > 0.1
    assert (uppers >= rate / 2).mean() >= 0.95 - monte_carlo_error(0.05)


# how many items it takes


@relaxed
@given(pairs(most=3000), st.floats(-0.05, 0.2), ALPHAS)
def test_the_items_needed_decide_and_one_fewer_does_not(pair: tuple[int, int, int], limit: float, alpha: float) -> None:
    lost, gained, n = pair
    needed = items_needed(lost, gained, n, limit, alpha)
    assume(needed is not None)
    assert needed is not None
    assert needed >= n

    def decided(total: int) -> bool:
        scale = total / n
        # the bounds take fractions of items as well
        lower, upper = drop_bounds(lost * scale, gained * scale, total, alpha)  # type: ignore[arg-type]
        return upper <= limit if lost - gained < limit * n else lower > limit

    assert decided(needed)
    assert needed == n or not decided(needed - 1)


@pytest.mark.parametrize(("lost", "gained", "limit"), [(30, 10, 0.02), (0, 0, 0.0), (5, 10, -0.005)])
def test_no_number_of_items_decides_a_drop_that_lies_at_the_limit(lost: int, gained: int, limit: float) -> None:
    assert items_needed(lost, gained, 1000, limit, 0.05) is None


def test_a_number_of_items_beyond_all_reason_is_not_given() -> None:
    assert items_needed(300, 200, 1000, 0.1 + 1e-7, 0.05) is None


def test_without_items_the_number_needed_is_unknown() -> None:
    assert items_needed(0, 0, 0, 0.01, 0.05) is None


def test_the_rule_of_thumb_of_the_design_holds() -> None:
    # "1.645 sqrt(d / n): 0.5 points at 6,700 items and 6 %"
    assert drop_bounds(201, 201, 6700, 0.05)[1] == pytest.approx(0.005, abs=2e-4)
    assert items_needed(201, 201, 6700, 0.005, 0.05) == pytest.approx(6700, rel=0.1)


# other bounds


@relaxed
@given(pairs(most=2000), ALPHAS)
def test_bounds_of_a_rate_are_those_of_the_exact_binomial_test(pair: tuple[int, int, int], alpha: float) -> None:
    successes, _, n = pair
    exact = stats.binomtest(successes, n).proportion_ci(1 - 2 * alpha, method="exact")
    assert rate_bounds(successes, n, alpha) == pytest.approx((exact.low, exact.high), abs=1e-9)


def test_bounds_of_a_rate_are_open_without_items() -> None:
    assert rate_bounds(0, 0, 0.05) == (0.0, 1.0)


@relaxed
@given(st.integers(1, 60), ALPHAS)
def test_bounds_of_a_median_are_the_innermost_order_statistics_that_are_safe(n: int, alpha: float) -> None:
    values = np.arange(n, dtype=np.float64)
    lower, upper = median_bounds(np.random.default_rng(0).permutation(values), alpha)
    # the value of rank r (from 0) exceeds the median when at most r values lie below it
    safe = [rank for rank in range(n) if sum(math.comb(n, k) for k in range(rank + 1)) <= alpha * 2**n]
    assert lower == (safe[-1] if safe else -math.inf)
    assert upper == (n - 1 - safe[-1] if safe else math.inf)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4])
def test_fewer_than_five_values_bound_no_median(n: int) -> None:
    assert median_bounds(np.ones(n), 0.05) == (-math.inf, math.inf)


def test_five_values_bound_a_median_by_their_extremes() -> None:
    assert median_bounds(np.array([3.0, 1.0, 5.0, 2.0, 4.0]), 0.05) == (1.0, 5.0)


@pytest.mark.parametrize("n", [5, 9, 16, 40])
def test_each_bound_of_a_median_holds_at_least_as_often_as_promised(n: int) -> None:
    generator = np.random.default_rng(n)
    # skewed, as latencies are
    samples = generator.lognormal(0.0, 1.5, size=(REPEATS, n))
    bounds = np.array([median_bounds(row, 0.05) for row in samples])
    assert (bounds[:, 0] <= 1.0).mean() >= 0.95 - monte_carlo_error(0.05)
    assert (bounds[:, 1] >= 1.0).mean() >= 0.95 - monte_carlo_error(0.05)
    assert (bounds[:, 0] <= 1.0).mean() < 1.0


@relaxed
@given(st.lists(st.floats(-1e6, 1e6), min_size=5, max_size=40), ALPHAS)
def test_values_turned_round_turn_the_bounds_of_their_median_round(values: list[float], alpha: float) -> None:
    lower, upper = median_bounds(np.array(values), alpha)
    assert median_bounds(-np.array(values), alpha) == (-upper, -lower)


# looks


@relaxed
@given(st.floats(1e-6, 0.5), st.integers(1, 200))
def test_all_looks_together_spend_no_more_than_alpha(alpha: float, looks: int) -> None:
    spent = [spend(alpha, look) for look in range(1, looks + 1)]
    assert sum(spent) <= alpha * (1 + 1e-12)
    # what is left for looks to come is about 6 / (pi^2 looks)
    assert alpha - sum(spent) == pytest.approx(alpha * 6 / math.pi**2 / (looks + 0.5), rel=0.1)
    assert all(later < earlier for earlier, later in pairwise(spent))


def test_the_first_look_gets_most_and_the_second_a_quarter_of_that() -> None:
    assert spend(0.05, 1) == pytest.approx(0.030396, abs=1e-6)
    assert spend(0.05, 2) == pytest.approx(0.007599, abs=1e-6)


@pytest.mark.parametrize("alpha", [0.2, 0.05, 1 - 0.95, 0.0304, 0.025, 0.01, 1 / 128, 0.0019])
def test_the_least_number_of_values_is_the_least_with_bounds(alpha: float) -> None:
    least = least_values(alpha)
    assert np.isfinite(median_bounds(np.ones(least), alpha)).all()
    assert not np.isfinite(median_bounds(np.ones(least - 1), alpha)).any()


@pytest.mark.parametrize("look", [0, -1])
def test_looks_are_counted_from_one(look: int) -> None:
    with pytest.raises(ValueError, match="counted from 1"):
        spend(0.05, look)
