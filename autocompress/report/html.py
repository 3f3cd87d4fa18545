"""report.html: one file that stands alone."""

from __future__ import annotations

import io
import math
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from autocompress.report.frame import trials_frame
from autocompress.report.wording import STAGE_HEADINGS, duration, stage_cells
from autocompress.result import Result


def html_report(result: Result) -> str:
    """The report of a run: answer, evidence, ladder with reasons, every trial, and how it was measured."""
    template = resources.files("autocompress.report").joinpath("templates", "report.html.j2").read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    return environment.from_string(template).render(
        result=result,
        headings=STAGE_HEADINGS,
        stages=[stage_cells(row, rate=result.score_is_rate) for row in result.stages],
        trials=[{key: _cell(value) for key, value in row.items()} for row in _rows(result)],
        picture=Markup(_picture(result)),
        duration=duration,
    )


def _rows(result: Result) -> list[dict[str, Any]]:
    frame = trials_frame(result.history)
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.4g}"
    return str(value)


def _picture(result: Result) -> str:
    """Size against latency of everything measured, as SVG; empty when nothing has both."""
    from matplotlib.figure import Figure

    frame = trials_frame(result.history).dropna(subset=["size_ratio", "latency_ratio"])
    rows = [row for row in result.stages if row.latency_ratio is not None]
    if not rows:
        return ""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.scatter(frame["latency_ratio"], frame["size_ratio"], c="#8a8f98", s=28, label="trials", zorder=3)
    for row, colour in zip(rows, ("#1f4e79", "#2e7d32"), strict=False):
        axes.scatter([row.latency_ratio or 1.0], [row.size_ratio], c=colour, s=64, label=row.name, zorder=4)
    limits = {budget.metric: budget.limit for budget in result.profile.budgets if budget.relative}
    if "latency_ms" in limits:
        axes.axvline(limits["latency_ms"], color="#b23b3b", linewidth=1, linestyle="--")
    if "size_mb" in limits:
        axes.axhline(limits["size_mb"], color="#b23b3b", linewidth=1, linestyle="--")
    axes.set(xlabel="latency, share of the float baseline", ylabel="size, share of the baseline")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
