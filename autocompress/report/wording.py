"""Words and numbers that the terminal and the HTML report share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

# the gate has no rows of these kinds and starts without what makes them
if TYPE_CHECKING:
    from autocompress.report.frame import FrontRow
    from autocompress.run.predicted_vs_measured import Predicted
    from autocompress.run.result import StageRow

STAGE_HEADINGS = (
    "", "MB", "parameters", "non-zero", "score", "mean ms", "p50", "p95", "latency", "size",
)  # fmt: skip


def stage_cells(row: StageRow, *, rate: bool) -> Sequence[str]:
    """The cells of a row of the stage table; a dash stands for not measured."""
    return (
        row.name,
        f"{row.size_mb:.3f}",
        f"{row.parameters:,}",
        f"{row.nonzero / row.parameters:.1%}" if row.parameters else "-",
        score_text(row.score, rate=rate),
        milliseconds(row.mean_ms),
        milliseconds(row.p50_ms),
        milliseconds(row.p95_ms),
        times(row.latency_ratio),
        times(row.size_ratio),
    )


def front_headings(*, rate: bool) -> Sequence[str]:
    """The headings of the cells of `front_cells`."""
    return ("no.", "latency", "size", "score", "lost, pp" if rate else "lost")


def front_cells(row: FrontRow, *, rate: bool) -> Sequence[str]:
    """The cells of a row of the Pareto front; a dash stands for not measured."""
    lost = "-" if row.score_drop is None else f"{100 * row.score_drop:.2f}" if rate else f"{row.score_drop:.4g}"
    return str(row.number), times(row.latency_ratio), times(row.size_ratio), score_text(row.score, rate=rate), lost


PREDICTED_HEADINGS = (
    "no.", "latency predicted", "measured", "size predicted", "measured", "training predicted", "took",
)  # fmt: skip


def predicted_cells(row: Predicted) -> Sequence[str]:
    """The cells of a row of the predictions; a dash stands for not predicted or not measured."""
    shares = [times(value) for value in (row.predicted_latency, row.latency, row.predicted_size, row.size)]
    seconds = ["-" if value is None else duration(value) for value in (row.predicted_seconds, row.seconds)]
    return (str(row.number), *shares, *seconds)


def score_text(score: float | None, *, rate: bool) -> str:
    """The score as text: percent for rates, the plain number for others."""
    if score is None:
        return "-"
    return f"{100 * score:.2f}%" if rate else f"{score:.4g}"


def milliseconds(value: float | None) -> str:
    """A time with three significant digits."""
    return "-" if value is None else f"{value:.3g}"


def bound_text(value: float | None, digits: int = 3) -> str:
    """A bound as text, `unbounded` where there is none."""
    return "unbounded" if value is None or not math.isfinite(value) else f"{value:.{digits}g}"


def times(ratio: float | None) -> str:
    """A share of the baseline as text."""
    return "-" if ratio is None else f"{ratio:.2f}x"


def duration(seconds: float) -> str:
    """A duration as text: `42 s`, `3 min 5 s`, `1 h 2 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def compact(count: int) -> str:
    """A count with three digits and its unit: 118M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= 0.9995 * size:
            return f"{count / size:#.3g}".rstrip(".") + unit
    return str(count)
