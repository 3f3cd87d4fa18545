"""The sensitivity of layers as HTML: a section of a run's report, and a page of its own."""

from __future__ import annotations

from markupsafe import Markup

from autocompress.core.sensitivity import Sensitivity
from autocompress.report.page_templates import page_template
from autocompress.report.pictures import as_svg, with_light_grid
from autocompress.report.sensitivity import LAYER_HEADINGS, SET_HEADINGS, in_one_sentence, layer_cells, set_cells

BAR, SETS = "#1f4e79", "#2e7d32"
# bars that can be read in one picture
MOST_BARS = 24


def sensitivity_section(sensitivity: Sensitivity) -> str:
    """The section: a sentence, the picture, the sets of layers in float, every layer."""
    return page_template("sensitivity.html.j2").render(
        sensitivity=sensitivity,
        sentence=in_one_sentence(sensitivity),
        layer_headings=LAYER_HEADINGS,
        layers=[layer_cells(sensitivity, layer) for layer in sensitivity.layers],
        set_headings=SET_HEADINGS,
        sets=[(set_cells(sensitivity, mixed), " ".join(mixed.layers)) for mixed in sensitivity.mixed],
        picture=Markup(sensitivity_picture(sensitivity)),
    )


def sensitivity_page(sensitivity: Sensitivity) -> str:
    """The section in a self-contained file of its own."""
    page = page_template("sensitivity_page.html.j2")
    return page.render(technique=sensitivity.technique, section=Markup(sensitivity_section(sensitivity)))


def sensitivity_picture(sensitivity: Sensitivity) -> str:
    """What each layer wins back alone, and what sets of them win against their latency, as SVG.

    The right plot is there where sets were timed; empty without any finite divergence.
    """
    from matplotlib.figure import Figure

    full = sensitivity.divergence
    if not 0 < full < float("inf") or not sensitivity.layers:
        return ""
    timed = [mixed for mixed in sensitivity.mixed if mixed.latency is not None]
    shown = sensitivity.layers[:MOST_BARS]
    figure = Figure(figsize=(9.8 if timed else 5.5, 1.2 + 0.22 * max(len(shown), 8)), layout="constrained")
    every = list(figure.subplots(1, 2 if timed else 1, squeeze=False)[0])
    won = [100 * (full - layer.divergence) / full for layer in shown]
    every[0].barh(range(len(shown)), won, color=BAR)
    every[0].set_yticks(range(len(shown)), [layer.name for layer in shown], fontsize=7)
    every[0].invert_yaxis()
    every[0].set(xlabel="divergence won back with this layer alone in float, %")
    if timed:
        every[1].plot(
            [mixed.latency or 0.0 for mixed in timed],
            [100 * (full - mixed.divergence) / full for mixed in timed],
            marker="o",
            color=SETS,
        )
        for mixed in timed:
            every[1].annotate(
                str(len(mixed.layers)),
                (mixed.latency or 0.0, 100 * (full - mixed.divergence) / full),
                xytext=(6, -10),
                textcoords="offset points",
                fontsize=8,
            )
        every[1].set(
            xlabel="latency, share of the float baseline",
            ylabel="divergence won back with so many layers in float, %",
            xlim=(0, 1.05),
            ylim=(0, 105),
        )
    for axes in every:
        with_light_grid(axes)
    return as_svg(figure)
