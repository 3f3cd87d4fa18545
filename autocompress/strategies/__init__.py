"""The registered strategies: bisection, and random search as its baseline."""

from __future__ import annotations

from autocompress.core.strategy import Strategy
from autocompress.strategies.bisection import Bisection, fits_with_room
from autocompress.strategies.random import Random

STRATEGIES: tuple[type[Strategy], ...] = (Bisection, Random)

__all__ = ["STRATEGIES", "Bisection", "Random", "fits_with_room"]
