"""Chooses how symbols are coded: groups, tables, and models of kernels where they pay."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autocompress.download.acz_decoder import MOST_MODELS, MOST_TABLES, KernelModel
from autocompress.download.frequency_tables import Counts, clustered, tables_for
from autocompress.download.kernel_models import LEAST_SYMBOLS, Kernel, Modelled, Weights, kernel_tables, model_for
from autocompress.download.segments import Layout, Part
from autocompress.download.symbol_coder import Symbols, classes_of

# tables of a kind of symbols, and while its layouts are tried; all tables of a file fit a byte
MOST_OF_A_KIND, TRIED = 64, 8


@dataclass(eq=False)
class Choice:
    """The levels of all tables, and all models of kernels."""

    levels: list[bytes]
    models: list[KernelModel]


def choose_tables(parts: list[Part]) -> Choice:
    """Choose layout, classes and model of each part.

    Parts of a kind share tables. Where a model of kernels is shorter than the tables, parts share a model.
    """
    choice = Choice([], [])
    kinds = {kind: [part for part in parts if part.kind == kind] for kind in dict.fromkeys(one.kind for one in parts)}
    kernels = {kind: _kernels(own)[:MOST_MODELS] for kind, own in kinds.items()}
    sets = len(kinds) + sum(map(len, kernels.values()))
    most = min(MOST_OF_A_KIND, MOST_TABLES // max(1, sets))
    for kind, own in kinds.items():
        _choose_layouts(own, most)
        left = _without_modelled(own, kernels[kind], choice, most)
        if left:
            _take_tables(left, choice, most)
    return choice


def coded_symbols(part: Part) -> tuple[Symbols, Symbols]:
    """The symbols of a part in the order in which they are coded, and the table of each."""
    classes = classes_of(part.classes, part.layout.run, len(part.symbols))
    model = part.model
    if model is None:
        return part.symbols, classes
    places = range(min(model.places, len(part.symbols)))
    symbols = [part.symbols[place :: model.places] for place in places]
    return np.concatenate(symbols), np.concatenate(
        [kernel_tables(model, classes, part.symbols, place) for place in places]
    )


def _kernels(parts: list[Part]) -> list[Kernel]:
    """The kernels that enough symbols are of."""
    sizes: dict[Kernel, int] = {}
    for part in parts:
        if part.kernel is not None:
            sizes[part.kernel[0]] = sizes.get(part.kernel[0], 0) + len(part.symbols)
    return [kernel for kernel, size in sizes.items() if size >= LEAST_SYMBOLS]


def _without_modelled(parts: list[Part], kernels: list[Kernel], choice: Choice, most: int) -> list[Part]:
    """The parts that stay, after those for which a model of kernels is shorter have taken one."""
    left = parts
    bits = _plain_bits(left, most) if kernels else 0.0
    for kernel in kernels:
        own = [part for part in left if part.kernel is not None and part.kernel[0] == kernel]
        others = [part for part in left if part not in own]
        found, bits_of_others = _modelled(own, kernel, most), _plain_bits(others, most)
        if len(choice.models) < MOST_MODELS and found.bits + bits_of_others < bits:
            _take_model(own, found, choice)
            left, bits = others, bits_of_others
    return left


def _plain_bits(parts: list[Part], most: int) -> float:
    return tables_for(_all_counts(parts), most).bits if parts else 0.0


def _channels(part: Part) -> Layout:
    assert part.kernel is not None
    return part.kernel[1]


def _modelled(parts: list[Part], kernel: Kernel, most: int) -> Modelled:
    symbols: list[tuple[Symbols, NDArray[np.intp]]] = []
    first = 0
    for part in parts:
        channels = _channels(part)
        symbols.append((part.symbols, channels.groups_of(0, len(part.symbols)) + first))
        first += channels.groups
    counts = np.concatenate([part.counts(_channels(part)) for part in parts])
    return model_for(Weights(kernel, symbols, counts, parts[0].digits.base, parts[0].kind == "int8"), most)


def _take_model(parts: list[Part], found: Modelled, choice: Choice) -> None:
    tables = (np.frombuffer(found.model.tables, dtype=np.uint8) + len(choice.levels)).astype(np.uint8)
    model = found.model._replace(tables=tables.tobytes())
    choice.models.append(model)
    choice.levels += found.levels
    at = 0
    for part in parts:
        part.layout, part.model = _channels(part), model
        part.classes = found.classes[at : at + part.layout.groups].astype(np.uint8).tobytes()
        at += part.layout.groups


def _take_tables(parts: list[Part], choice: Choice, most: int) -> None:
    chosen = tables_for(_all_counts(parts), most)
    at = 0
    for part in parts:
        classes = chosen.classes[at : at + part.layout.groups] + len(choice.levels)
        part.classes = classes.astype(np.uint8).tobytes()
        at += part.layout.groups
    choice.levels += chosen.levels


def _all_counts(parts: list[Part]) -> Counts:
    return np.concatenate([part.counts(part.layout) for part in parts])


def _choose_layouts(parts: list[Part], most: int) -> None:
    """Give each part the layout in which its symbols are shortest, each tried for all parts at once."""
    tries = max(len(part.layouts) for part in parts)
    costs: list[list[float]] = [[] for _ in parts]
    for which in range(tries):
        for part in parts:
            part.layout = part.layouts[min(which, len(part.layouts) - 1)]
        if tries == 1:
            return
        chosen = clustered(_all_counts(parts), min(most, TRIED))
        for cost, bits in zip(costs, chosen.bits_of_parts([part.layout.groups for part in parts]), strict=True):
            cost.append(bits)
    for part, cost in zip(parts, costs, strict=True):
        part.layout = part.layouts[min(int(np.argmin(cost)), len(part.layouts) - 1)]
