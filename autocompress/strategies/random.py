"""Random search over the search space: the baseline for strategies."""

from __future__ import annotations

import random
from collections.abc import Sequence

from autocompress.core.plan import Plan
from autocompress.core.search_space import SearchSpace
from autocompress.core.strategy import Strategy
from autocompress.core.trial import Trial


class Random(Strategy):
    """A strategy that draws uniformly from the untried plans.

    The same seed and history give the same plan.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed

    def propose(self, search_space: SearchSpace, history: Sequence[Trial]) -> Plan | None:
        """See `Strategy.propose`."""
        tried = {trial.plan.planned.hash for trial in history}
        left = [plan for recipe in search_space.recipes for plan in recipe.plans() if plan.hash not in tried]
        return random.Random(f"{self._seed}/{len(tried)}").choice(left) if left else None
