"""Strategies: ours first, plain random as the baseline that ours has to beat."""

from __future__ import annotations

from autocompress.strategies.boundary import Boundary, fits_with_room
from autocompress.strategies.random import Random
from autocompress.strategy import Strategy

STRATEGIES: tuple[type[Strategy], ...] = (Boundary, Random)

__all__ = ["STRATEGIES", "Boundary", "Random", "fits_with_room"]
