"""The report's picture: latency, size and accuracy of every candidate, with the Pareto front."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from autocompress.report.frame import undominated
from autocompress.run.result import Result, StageRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BASELINE, ANSWER, BUDGET, FRONT = "#1c2128", "#2e7d32", "#b23b3b", "#1f4e79"
# colours of sizes and in how many steps: a smooth scale would be drawn as an embedded bitmap
SIZES, SIZE_STEPS = "viridis_r", 10
# half the width and height of a number, and its distance from its point, in typographic points
LABEL_WIDTH, LABEL_HEIGHT, LABEL_APART = 8.0, 7.0, 9.0
LABEL_PLACES = ((1, 1), (-1, 1), (1, -1), (-1, -1))


def picture(result: Result, frame: pd.DataFrame) -> str:
    """Plots of accuracy lost and of size against latency, as SVG; empty when no latency was measured.

    The left plot is there when scores were measured. A line joins the candidates that no other dominates in the plot's
    two values; rings mark the Pareto front in size, latency and score together.
    """
    # the gate has no pictures and starts without what draws them
    from matplotlib.figure import Figure

    # what the answer went through is no candidate of its own
    ends = dict.fromkeys((result.stages[0], result.stages[-1]))
    rows = [row for row in ends if row.latency_ratio is not None]
    if not rows:
        return ""
    timed = frame.dropna(subset=["size_ratio", "latency_ratio"])
    scored = timed.dropna(subset=["score_drop"])
    panels = 2 if len(scored) and all(row.score is not None for row in rows) else 1
    figure = Figure(figsize=(4.9 * panels + 0.6 * (panels == 1), 4.2), layout="constrained")
    every = list(figure.subplots(1, panels, squeeze=False, gridspec_kw={"wspace": 0.08})[0])
    if panels == 2:
        _against_drop(every[0], result, rows, scored)
    _against_size(every[-1], result, rows, timed)
    handles, names = every[-1].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=5, frameon=False, fontsize=8)
    # the layout comes first and stays, since the places of labels depend on it
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes, points, column in zip(every, [scored, timed][-panels:], ["drop", "size_ratio"][-panels:], strict=True):
        _number_the_front(axes, _with_drop(points, result), column)
    return as_svg(figure)


def as_svg(figure: Figure) -> str:
    """A figure as SVG to put into a page; the same figure gives the same text."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _unit(result: Result) -> tuple[float, str]:
    return (100.0, "accuracy lost, percentage points") if result.score_is_rate else (1.0, "score lost")


def _with_drop(frame: pd.DataFrame, result: Result) -> pd.DataFrame:
    return frame.assign(drop=frame["score_drop"] * _unit(result)[0])


def _against_drop(axes: Axes, result: Result, rows: list[StageRow], frame: pd.DataFrame) -> None:
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    scale, label = _unit(result)
    points = _with_drop(frame, result)
    shown = axes.scatter(
        points["latency_ratio"],
        points["drop"],
        c=points["size_ratio"],
        cmap=colormaps[SIZES].resampled(SIZE_STEPS),
        norm=Normalize(0.0, max(1.0, float(points["size_ratio"].max()))),
        s=34,
        zorder=3,
    )
    axes.figure.colorbar(shown, ax=axes, label="colour: size, share of the float baseline", shrink=0.9, pad=0.02)
    _front(axes, points, "drop")
    before = rows[0].score or 0.0
    _marks(axes, rows, [scale * (before - (row.score or 0.0)) for row in rows])
    limits = _limits(result, rows[0])
    _budgets(axes, limits.get("latency_ms"), limits.get("drop"))
    axes.set(xlabel="latency, share of the float baseline", ylabel=label)
    _tidy(axes)


def _against_size(axes: Axes, result: Result, rows: list[StageRow], frame: pd.DataFrame) -> None:
    axes.scatter(frame["latency_ratio"], frame["size_ratio"], c="#8a8f98", s=30, label="candidates", zorder=3)
    _front(axes, frame, "size_ratio")
    _marks(axes, rows, [row.size_ratio for row in rows])
    limits = _limits(result, rows[0])
    _budgets(axes, limits.get("latency_ms"), limits.get("size_mb"))
    axes.set(xlabel="latency, share of the float baseline", ylabel="size, share of the float baseline")
    axes.set_ylim(bottom=0)
    _tidy(axes)


def _front(axes: Axes, frame: pd.DataFrame, column: str) -> None:
    """Draw a ring around each member of the Pareto front, and a line along those undominated in this plot."""
    chosen = frame[frame["pareto"]]
    if chosen.empty:
        return
    axes.scatter(
        chosen["latency_ratio"],
        chosen[column],
        facecolors="none",
        edgecolors=FRONT,
        s=80,
        label="Pareto front",
        zorder=4,
    )
    values = chosen[["latency_ratio", column]].to_numpy(dtype=np.float64)
    leading = values[undominated(values)]
    leading = leading[np.argsort(leading[:, 0])]
    # nothing was measured between two members, so the line steps at the measured values and does not interpolate
    axes.step(leading[:, 0], leading[:, 1], where="post", color=FRONT, linewidth=1.1, zorder=2)


def _marks(axes: Axes, rows: list[StageRow], values: list[float]) -> None:
    looks: list[dict[str, Any]] = [
        {"marker": "s", "c": BASELINE, "s": 44, "label": "baseline"},
        {"marker": "*", "c": ANSWER, "s": 170, "label": "answer", "edgecolors": "white", "linewidths": 0.8},
    ]
    for row, value, look in zip(rows, values, looks, strict=False):
        axes.scatter([row.latency_ratio or 1.0], [value], zorder=5, **look)


def _limits(result: Result, baseline: StageRow) -> dict[str, float]:
    """The budgets in the units of the axes: shares of the baseline, and points or score lost."""
    found: dict[str, float] = {}
    bases = {"latency_ms": baseline.p50_ms, "size_mb": baseline.size_mb}
    for budget in result.profile.budgets:
        base = bases.get(budget.metric)
        if budget.metric in bases and (budget.relative or base):
            found[budget.metric] = budget.limit if budget.relative else budget.limit / (base or 1.0)
        elif budget.metric == "min_accuracy" and baseline.score is not None and result.score_is_rate:
            found.setdefault("drop", 100.0 * baseline.score - budget.limit)
        elif budget.metric == ("max_accuracy_drop_pp" if result.score_is_rate else "max_score_drop"):
            found["drop"] = budget.limit
    return found


def _budgets(axes: Axes, latency: float | None, other: float | None) -> None:
    look: dict[str, Any] = {"color": BUDGET, "linewidth": 1, "linestyle": "--", "zorder": 1}
    if latency is not None:
        axes.axvline(latency, label="budgets", **look)
    if other is not None:
        axes.axhline(other, label="budgets" if latency is None else None, **look)


def _tidy(axes: Axes) -> None:
    axes.set_xlim(left=0)
    axes.margins(0.08)
    with_light_grid(axes)


def with_light_grid(axes: Axes) -> None:
    """Leave out the frame above and on the right, and draw a light grid behind everything."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color="#eef0f3", zorder=0)
    axes.set_axisbelow(True)


def _number_the_front(axes: Axes, frame: pd.DataFrame, column: str) -> None:
    """Write the trial's number beside members of the front, where it covers no point and no other number."""
    pixels = axes.figure.dpi / 72
    points = [axes.transData.transform(pair) for pair in frame[["latency_ratio", column]].to_numpy(dtype=np.float64)]
    points += [
        axes.transData.transform(pair) for mark in axes.collections[-2:] for pair in np.asarray(mark.get_offsets())
    ]
    texts: list[tuple[float, float]] = []
    for row in frame[frame["pareto"]].sort_values("latency_ratio").to_dict("records"):
        at = axes.transData.transform((row["latency_ratio"], row[column]))
        for side, above in LABEL_PLACES:
            x, y = at[0] + side * LABEL_APART * pixels, at[1] + above * LABEL_APART * pixels
            near = any(abs(x - a) < LABEL_WIDTH * pixels and abs(y - b) < LABEL_HEIGHT * pixels for a, b in points)
            near |= any(
                abs(x - a) < 2 * LABEL_WIDTH * pixels and abs(y - b) < 2 * LABEL_HEIGHT * pixels for a, b in texts
            )
            if not near:
                texts.append((x, y))
                axes.annotate(
                    str(row["number"]),
                    (row["latency_ratio"], row[column]),
                    xytext=(side * LABEL_APART, above * LABEL_APART),
                    textcoords="offset points",
                    fontsize=7,
                    color=FRONT,
                    ha="center",
                    va="center",
                )
                break
