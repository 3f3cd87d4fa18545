"""How often an accuracy gate is wrong: simulated gates whose true drop is known.

    python benchmarks/verdicts.py [--gates 4000] [--score-gates 200]

Each item of a candidate is lost, won or unchanged, independently, at stated rates. A false pass is "met" where the
true drop lies at the limit of one point; power is "met" where nothing is lost in truth. Three gates: this package's on
all items at once, the same read in chunks that end when the answer is clear, and the point estimate (observed drop <=
limit). Then the best of 30 candidates that all lose one point: a third of the items selects, up to four are
confirmed on the rest. Then scores that are neither right nor wrong (`score_kinds.py`): met where the true drop lies
at the limit and where nothing is lost, and the widths of bounds. Writes benchmarks/results/verdicts.json. Some minutes
on two cores.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from score_kinds import compare_widths, replay_kinds

from autocompress.run.confirm import MAX_LOOKS
from autocompress.statistics.bounds import drop_bounds, spend
from autocompress.statistics.sequential import readings

RESULTS = Path(__file__).parent / "results" / "verdicts.json"
LIMIT = 0.01
ALPHA = 0.05
ITEMS = (500, 1_000, 10_000)
CHANGED = (0.01, 0.04, 0.08)
CANDIDATES = 30
INTS = NDArray[np.int64]


def rates(changed: float, drop: float) -> tuple[float, float]:
    """Shares of items lost and won that change so many answers and lose so much."""
    return (changed + drop) / 2, (changed - drop) / 2


def counts(random: np.random.Generator, gates: int, sizes: list[int], changed: float, drop: float) -> INTS:
    """Items lost and won among the first of each of `sizes`, shape `(gates, looks, 2)`."""
    lost, won = rates(changed, drop)
    steps = np.diff([0, *sizes])
    drawn = [random.multinomial(step, [lost, won, 1 - lost - won], gates)[:, :2] for step in steps]
    return np.cumsum(np.stack(drawn, axis=1), axis=1)


bounds = functools.cache(drop_bounds)


def read_until_clear(seen: INTS, looks: Sequence[tuple[int, float]]) -> tuple[str, int]:
    """The answer and the items read; `seen` has shape `(looks, 2)`."""
    for (lost, won), (n, level) in zip(seen.tolist(), looks, strict=True):
        low, high = bounds(lost, won, n, level)
        if high <= LIMIT:
            return "met", n
        if low > LIMIT:
            return "not met", n
    return "undecided", looks[-1][0]


def one_setting(random: np.random.Generator, gates: int, n: int, changed: float, drop: float) -> dict[str, Any]:
    """Shares of gates that pass, and the items that reading in chunks took."""
    looks = readings(n, ALPHA)
    seen = counts(random, gates, [size for size, _ in looks], changed, drop)
    last = seen[:, -1].tolist()
    chunks = [read_until_clear(one, looks) for one in seen]
    return {
        "items": n,
        "changed": changed,
        "true_drop_pp": 100 * drop,
        "at_once": float(np.mean([bounds(lost, won, n, ALPHA)[1] <= LIMIT for lost, won in last])),
        "in_chunks": float(np.mean([answer == "met" for answer, _ in chunks])),
        "items_read": float(np.mean([read for _, read in chunks])),
        "point_estimate": float(np.mean([(lost - won) / n <= LIMIT for lost, won in last])),
    }


def best_of_many(random: np.random.Generator, gates: int, n: int, changed: float) -> dict[str, Any]:
    """Candidates that all lose one point: how often one of them passes."""
    validation, holdout = n // 3, n - n // 3
    naive = passed = 0
    for _ in range(gates):
        chosen = counts(random, CANDIDATES, [validation], changed, LIMIT)[:, 0]
        drops = (chosen[:, 0] - chosen[:, 1]) / validation
        naive += bool(drops.min() <= LIMIT)
        for look, place in enumerate(np.argsort(drops, kind="stable")[:MAX_LOOKS], start=1):
            if drops[place] > LIMIT:
                break
            looks = readings(holdout, spend(ALPHA, look))
            seen = counts(random, 1, [size for size, _ in looks], changed, LIMIT)[0]
            if read_until_clear(seen, looks)[0] == "met":
                passed += 1
                break
    return {
        "items": n,
        "changed": changed,
        "best_of": CANDIDATES,
        "confirmed": passed / gates,
        "point_estimate": naive / gates,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gates", type=int, default=4000)
    parser.add_argument("--score-gates", type=int, default=200)
    given = parser.parse_args()
    gates, score_gates = given.gates, given.score_gates
    random = np.random.default_rng(0)
    error = 3 * math.sqrt(ALPHA * (1 - ALPHA) / gates)
    print(f"false passes may be {ALPHA:.3f}, within {error:.3f} by chance\n")
    print(
        "| items | changed | true drop | at once | in chunks | items read | point estimate |\n"
        "|---|---|---|---|---|---|---|"
    )
    rows = []
    for drop in (LIMIT, 0.0):
        for n in ITEMS:
            for changed in CHANGED:
                row = one_setting(random, gates, n, changed, drop)
                rows.append(row)
                print(
                    f"| {n:,} | {changed:.0%} | {100 * drop:.0f} pp | {row['at_once']:.3f} | {row['in_chunks']:.3f} "
                    f"| {row['items_read']:,.0f} | {row['point_estimate']:.3f} |"
                )
    print("\n| items | changed | best of 30, confirmed | best of 30, point estimate |\n|---|---|---|---|")
    many = []
    for n in ITEMS:
        for changed in CHANGED:
            row = best_of_many(random, gates, n, changed)
            many.append(row)
            print(f"| {n:,} | {changed:.0%} | {row['confirmed']:.3f} | {row['point_estimate']:.3f} |")
    error = 3 * math.sqrt(ALPHA * (1 - ALPHA) / score_gates)
    print(f"\n{score_gates} gates for each kind of score: {ALPHA:.3f}, within {error:.3f} by chance\n")
    content = {
        "gates": gates,
        "alpha": ALPHA,
        "single": rows,
        "best_of_many": many,
        "score_gates": score_gates,
        "score_kinds": replay_kinds(score_gates),
        "widths_pp": compare_widths(),
    }
    RESULTS.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
