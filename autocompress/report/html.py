"""report.html: a report in one self-contained file."""

from __future__ import annotations

import math
from typing import Any

from markupsafe import Markup

from autocompress.report.frame import front_rows, trials_frame
from autocompress.report.page_templates import page_template
from autocompress.report.pictures import picture
from autocompress.report.sensitivity_html import sensitivity_section
from autocompress.report.wording import (
    PREDICTED_HEADINGS,
    STAGE_HEADINGS,
    duration,
    front_cells,
    front_headings,
    predicted_cells,
    stage_cells,
)
from autocompress.run.result import Result


def html_report(result: Result) -> str:
    """The report of a run as HTML: answer, evidence, search space, trials, and how they were measured."""
    frame, rate = trials_frame(result.history, result.names), result.score_is_rate
    return page_template("report.html.j2").render(
        result=result,
        headings=STAGE_HEADINGS,
        stages=[stage_cells(row, rate=rate) for row in result.stages],
        front_headings=front_headings(rate=rate),
        front=[(front_cells(row, rate=rate), row) for row in front_rows(frame, result.baseline.entry)],
        trials=[{str(key): _cell(value) for key, value in row.items()} for row in frame.to_dict("records")],
        predicted_headings=PREDICTED_HEADINGS,
        predictions=[(row.recipe, predicted_cells(row)) for row in result.predictions],
        picture=Markup(picture(result, frame)),
        sensitivities=[Markup(sensitivity_section(one)) for one in result.sensitivities],
        duration=duration,
    )


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.4g}"
    return str(value)
