"""Entries by layer: no other choice of the same bytes has a smaller sum, compared with trying all."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocompress.packing.allocation import Offer, allocated

COUNTS = (2, 4, 8)


@st.composite
def offers(draw: st.DrawFn) -> dict[str, list[Offer]]:
    """Some layers of which more entries cost more bytes and diverge less."""
    found = {}
    for layer in range(draw(st.integers(1, 4))):
        size, worst = draw(st.integers(1, 50)), draw(st.floats(0.1, 10))
        found[f"layer{layer}"] = [Offer(count, size * (place + 1), worst / count) for place, count in enumerate(COUNTS)]
    return found


@given(offers(), st.integers(1, 600))
def test_the_sum_is_nearly_the_least_that_fits(layers: dict[str, list[Offer]], most_bytes: int) -> None:
    names = list(layers)
    fitting = [
        sum(one.divergence for one in chosen)
        for chosen in product(*layers.values())
        if sum(one.stored_bytes for one in chosen) <= most_bytes
    ]
    found = allocated(layers, most_bytes)
    taken = [next(one for one in layers[name] if one.entries == found[name]) for name in names]
    if not fitting:
        assert set(found.values()) == {2}
        return
    assert sum(one.stored_bytes for one in taken) <= most_bytes
    # a multiplier finds the corners of the curve, and what is left is spent one layer after the other
    largest = max(max(one.divergence for one in some) for some in layers.values())
    assert sum(one.divergence for one in taken) <= min(fitting) + largest


def test_bytes_go_to_the_layer_that_needs_them() -> None:
    layers = {
        "calm": [Offer(2, 10, 0.02), Offer(4, 20, 0.01)],
        "touchy": [Offer(2, 10, 5.0), Offer(4, 20, 1.0), Offer(8, 30, 0.1)],
    }
    assert allocated(layers, 40) == {"calm": 2, "touchy": 8}
    assert allocated(layers, 50) == {"calm": 4, "touchy": 8}


@pytest.mark.parametrize("divergence", [0.0, float("inf")])
def test_layers_that_nothing_is_known_of_take_the_fewest_bytes(divergence: float) -> None:
    layers = {"one": [Offer(2, 10, divergence), Offer(4, 20, divergence)]}
    assert allocated(layers, 15) == {"one": 2}
