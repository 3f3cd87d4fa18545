"""The sensitivity of layers in the terminal, in a page of its own, and in the report of a run."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from autocompress.core.probes import Probes
from autocompress.core.sensitivity import LayerSensitivity, Mixed, Sensitivity
from autocompress.report.files import write_files
from autocompress.report.html import html_report
from autocompress.report.sensitivity import in_one_sentence, print_sensitivity
from autocompress.report.sensitivity_html import sensitivity_page, sensitivity_picture
from autocompress.report.terminal import Summary, print_result
from autocompress.testing.fakes import Scripted, Stand, Variant

LONG = "encoder.layers.11.a_module_with_quite_a_long_name.attention.output.dense"
MEASURED = Sensitivity(
    "int8_static",
    {"per_channel": False},
    0.4,
    64,
    (
        LayerSensitivity("<b>first</b>", "Conv", 0.1, 0.01, 0.04, 1000, 4000),
        LayerSensitivity(LONG, "MatMul", 0.3, None, None, 2000, 8000),
        LayerSensitivity("last", "Conv", 0.5, 0.02, 0.01, 10, 40),
    ),
    (Mixed(("<b>first</b>",), 0.1, 0.5, 0.3), Mixed(("<b>first</b>", LONG), 0.02, 0.6, 0.4)),
    left_out=("somewhere",),
)


def printed(sensitivity: Sensitivity, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    print_sensitivity(console, sensitivity)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_table_says_what_each_layer_wins_and_costs() -> None:
    lines = printed(MEASURED, 200).splitlines()
    assert lines[0] == "int8_static (per_channel=False): the outputs diverge by 0.4 on 64 items"
    row = next(line.split() for line in lines if line.startswith("<b>first</b>"))
    assert row == ["<b>first</b>", "Conv", "75.0%", "0.01", "0.04", "0.03", "3.0"]
    assert next(line for line in lines if LONG in line).split()[1:] == ["MatMul", "25.0%", "-", "-", "-", "6.0"]
    # an error that offset another's, and a layer that is faster in float
    assert next(line for line in lines if line.startswith("last")).split()[2:] == ["-25.0%", "0.02", "0.01", "0", "0.0"]
    assert "left out, since the time did not suffice: 1 layer" in lines
    sets = [line.split()[:4] for line in lines if "x" in line and line.strip()[0].isdigit() and "left out" not in line]
    assert sets == [["1", "75.0%", "0.50x", "0.30x"], ["2", "95.0%", "0.60x", "0.40x"]]


@pytest.mark.parametrize("width", [80, 40])
def test_long_names_are_folded_and_never_cut(width: int) -> None:
    text = printed(MEASURED, width)
    assert "…" not in text
    assert "75.0%" in text


def test_one_sentence_names_the_worst_layer_and_the_largest_set() -> None:
    said = in_one_sentence(MEASURED)
    assert said == (
        "int8_static loses most in <b>first</b>: 75.0% of the divergence is won back with it in float, "
        "95.0% with 2 of 3"
    )
    assert in_one_sentence(replace(MEASURED, mixed=())).endswith("no set of layers is worth leaving in float")
    assert in_one_sentence(replace(MEASURED, layers=())) == "int8_static: no layer could be measured alone"


def test_the_page_shows_names_as_they_are_and_stands_alone() -> None:
    page = sensitivity_page(MEASURED)
    assert "<b>first" not in page
    assert "&lt;b&gt;first&lt;/b&gt;" in page
    assert "<svg" in page
    assert "{{" not in page
    assert not any(word in page for word in ("<script", "http-equiv", "<link"))
    assert "Sensitivity of layers" in page


@pytest.mark.parametrize("full", [0.0, float("inf")])
def test_without_a_finite_divergence_there_is_no_picture(full: float) -> None:
    nothing = replace(MEASURED, divergence=full)
    assert sensitivity_picture(nothing) == ""
    assert "-" in printed(nothing)
    assert "Sensitivity of layers" in sensitivity_page(nothing)


def test_a_run_that_measured_it_says_so_in_its_report_its_files_and_on_the_terminal(tmp_path: Path) -> None:
    stand = Stand(tmp_path, [Scripted("scripted", {"small": Variant(latency_ms=9.0)})], {"latency_ms": "0.6x"})
    stand.run.record.probes = Probes(sensitivities=(MEASURED,))
    result = stand.result()
    assert result.sensitivities == (MEASURED,)
    assert "Sensitivity of layers" in html_report(result)
    assert "Sensitivity of layers" not in html_report(replace(result, sensitivities=()))
    write_files(result)
    for summary in (Summary.of(result), Summary.read(tmp_path)):
        console = Console(file=io.StringIO(), width=200, highlight=False)
        print_result(console, summary)
        assert isinstance(console.file, io.StringIO)
        assert in_one_sentence(MEASURED) in console.file.getvalue()
