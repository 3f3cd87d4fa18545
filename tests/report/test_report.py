import csv
import html
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from autocompress.analysis import layer_probes as probing
from autocompress.api import autocompress
from autocompress.core.budget import Budget
from autocompress.core.objective import EFFORT
from autocompress.core.plan import Plan, Stage, Step
from autocompress.core.profile import Profile, Protocol
from autocompress.core.search_space import Reason
from autocompress.core.trial import Outcome, Trial
from autocompress.core.verdict import Status
from autocompress.report.files import write_files
from autocompress.report.frame import COLUMNS, trials_frame
from autocompress.report.html import html_report
from autocompress.report.wording import compact, duration
from autocompress.run.result import SCHEMA, Result
from autocompress.system.workspace import RESULT_FILES
from autocompress.testing.fakes import FakeDevice, Scripted, Stand, Variant, ramp, task_of
from autocompress.testing.networks import labelled, small_model

HOSTILE = '<script>alert("1")</script><img src=x onerror=alert(2)> & </style></td></svg>{{ 7*7 }}'
KEYS = {
    "schema", "status", "plan", "plan_name", "plan_text", "artifact", "baseline_sha256", "verdict", "binding", "stages",
    "prediction_flips", "explanation", "profile", "objective", "confidence", "machine", "data", "data_check",
    "score_is_rate", "download_bytes",
    "seconds", "out_of_time", "facts", "search_space", "predictions", "sensitivities", "trials",
}  # fmt: skip


class Page(HTMLParser):
    """What a browser makes of a page: its elements with attributes, and the text outside style and picture."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._inside: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("style", "svg"):
            self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if not self._inside:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    @property
    def tags(self) -> set[str]:
        return {tag for tag, _ in self.elements}


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A whole run in earnest: a small LSTM, the real device, no budget on time."""
    budgets = (Budget("size_mb", 0.6, relative=True), Budget("max_accuracy_drop_pp", 30.0))
    profile = Profile("here", protocol=Protocol(max_seconds=0.3, precision=0.5), budgets=budgets)
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        # what the probes find is not what this is about
        patch.setattr(probing, "PROBE_SECONDS", 0.1)
        return autocompress(small_model("lstm"), profile, labelled("lstm", 120), out=folder)


@pytest.fixture(scope="module")
def page(real: Result) -> Page:
    """The report that the run left."""
    return Page((real.folder / "report.html").read_text("utf-8"))


@pytest.fixture
def missed(tmp_path: Path) -> Result:
    """A scripted run whose candidates fail, are too slow and are too often wrong."""
    named = {"fails": Variant(error="no, never"), "slow": Variant(latency_ms=9.0), "wrong": Variant(wrong_below=0.5)}
    budgets = {"latency_ms": "0.6x", "max_accuracy_drop_pp": 1.0}
    task = task_of(ramp(200), ramp(300))
    return Stand(tmp_path, [Scripted("scripted", named)], budgets, task).result()


def hostile_copy(result: Result) -> Result:
    """The result with everything that users name, or libraries say, made hostile."""
    plan = Plan(finish=(Step(HOSTILE, Stage.PRECISION, {HOSTILE: HOSTILE}),))
    findings = tuple(replace(finding, sentence=HOSTILE) for finding in result.verdict.findings)
    return replace(
        result,
        plan=plan,
        plan_name=HOSTILE,
        names={plan.hash: HOSTILE},
        verdict=replace(result.verdict, findings=findings),
        profile=replace(result.profile, name=HOSTILE, objective=replace(EFFORT, name=HOSTILE)),
        machine=HOSTILE,
        data=HOSTILE,
        explanation=[HOSTILE],
        history=[Trial(0, plan, Outcome.FAILED, reason=HOSTILE)],
        search_space=replace(result.search_space, refusals={HOSTILE: Reason(HOSTILE, HOSTILE, HOSTILE)}),
        facts=replace(result.facts, evidence=HOSTILE),
        stages=[replace(stage, name=HOSTILE) for stage in result.stages],
        certificate=dict(result.certificate or {}) | {"versions": {HOSTILE: HOSTILE}, "issued": HOSTILE},
    )


# report.html


def test_the_report_says_the_status_and_every_budget_with_its_evidence(real: Result, page: Page) -> None:
    assert f"Budgets {real.status}" in page.text
    assert f"Budgets {real.status} {real.plan_name} exact settings {real.plan} Profile" in page.text
    assert len(real.verdict.findings) == 2
    for finding in real.verdict.findings:
        assert f"{finding.budget} {finding.standing} {finding.sentence}" in page.text
    for sentence in real.explanation:
        assert sentence in page.text


def test_the_report_gives_every_recipe_and_every_refusal_with_its_reason(real: Result, page: Page) -> None:
    assert {"int8_static", "low_rank"} <= set(real.search_space.refusals)
    for name, reason in real.search_space.refusals.items():
        assert f"{name} refused {reason.sentence} {reason.fact}".strip() in page.text
    assert real.search_space.recipes
    for recipe in real.search_space.recipes:
        assert f"{recipe.name} tried {recipe.reason.sentence}" in page.text
    for answer in real.search_space.decisions:
        assert f"{answer.question} {answer.answer} {answer.found} {answer.sentence}" in page.text


def test_the_report_lists_every_trial_and_how_it_was_measured(real: Result, page: Page) -> None:
    assert real.history
    for trial in real.history:
        assert f"{trial.number} {real.names[trial.plan.hash]} {trial.plan} {trial.reason} {trial.outcome}" in page.text
    assert real.certificate is not None
    assert real.certificate["artifact_sha256"] in page.text
    assert real.machine in page.text
    assert real.data in page.text
    assert f"{real.facts.macs:,} multiply-accumulates" in page.text


def test_the_report_stands_alone(page: Page) -> None:
    assert not {"script", "link", "img", "iframe", "object"} & page.tags
    for tag, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "data"):
            # inside a picture, names of its own parts
            assert (attributes.get(name) or "#").startswith("#"), (tag, attributes)


def test_the_report_has_a_picture_of_size_against_latency(real: Result, page: Page) -> None:
    assert [tag for tag, _ in page.elements].count("svg") == 1
    untimed = replace(real, stages=[replace(stage, latency_ratio=None) for stage in real.stages])
    assert "svg" not in Page(html_report(untimed)).tags


def test_the_same_result_gives_the_same_words(real: Result, page: Page) -> None:
    assert Page(html_report(real)).text == page.text


def test_a_hostile_name_is_shown_and_does_nothing(real: Result, page: Page) -> None:
    hostile = Page(html_report(hostile_copy(real)))
    assert hostile.tags <= page.tags
    assert not any(name.startswith("on") for _, attributes in hostile.elements for name in attributes)
    shown = " ".join(HOSTILE.split())
    # plan and its name, profile, objective, machine, data, explanation, facts, refusal, findings, trial and its name,
    # certificate
    assert hostile.text.count(shown) >= 13
    assert "49" not in hostile.text.replace(shown, "").split()


def test_the_report_of_a_miss_says_what_became_of_every_trial(missed: Result) -> None:
    page = Page(html_report(missed))
    assert missed.status is Status.NOT_MET
    assert "Budgets not met" in page.text
    assert {str(trial.outcome) for trial in missed.history} == {"failed", "stopped"}
    for trial in missed.history:
        assert trial.reason in page.text
    assert "Certificate" not in page.text


def test_the_report_of_a_run_without_budgets_and_trials_says_so(tmp_path: Path) -> None:
    page = Page(html_report(Stand(tmp_path, [], {}).result()))
    assert "Budgets undecided" in page.text
    assert "none were set" in page.text
    assert page.text.endswith("none")


def test_a_score_that_is_no_rate_is_not_shown_in_percent(tmp_path: Path) -> None:
    task = replace(task_of(ramp(50), ramp(50)), score=lambda outputs, targets: np.full(len(targets), -0.25))
    result = Stand(tmp_path, [Scripted("scripted", {"good": Variant()})], {"max_score_drop": 0.1}, task).result()
    assert "-0.25" in Page(html_report(result)).text
    assert "-25.00%" not in Page(html_report(result)).text


def test_a_score_that_is_no_rate_is_not_shown_in_percent_without_a_budget_on_it_either(tmp_path: Path) -> None:
    task = replace(task_of(ramp(50), ramp(50)), score=lambda outputs, targets: np.full(len(targets), -0.25))
    result = Stand(tmp_path, [Scripted("scripted", {"good": Variant()})], {"size_mb": "0.9x"}, task).result()
    assert "-25.00%" not in Page(html_report(result)).text


# trials.csv


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text("utf-8"))))


def test_trials_csv_has_a_row_per_trial_and_these_columns(real: Result) -> None:
    rows = rows_of(real.folder / "trials.csv")
    assert list(rows[0]) == list(COLUMNS)
    assert [row["plan_hash"] for row in rows] == [trial.plan.hash for trial in real.history]
    assert [row["name"] for row in rows] == [real.names[trial.plan.hash] for trial in real.history]
    last = real.history[-1]
    assert float(rows[-1]["size_mb"]) == last.measurement.readings["size_mb"].value
    assert float(rows[-1]["latency_p50_ms"]) == last.measurement.readings["latency_ms"].statistic("p50")
    assert 0 < float(rows[-1]["size_ratio"]) < 0.6
    assert float(rows[-1]["latency_ratio"]) > 0


def test_what_was_not_measured_is_empty_in_trials_csv(missed: Result) -> None:
    write_files(missed)
    rows = rows_of(missed.folder / "trials.csv")
    measured = [[column for column in ("size_mb", "latency_p50_ms", "score") if row[column]] for row in rows]
    assert measured == [[], ["size_mb", "latency_p50_ms"], ["size_mb", "latency_p50_ms", "score"]]
    assert [row["stopped_by"] for row in rows] == ["", "latency_ms", "max_accuracy_drop_pp"]
    assert float(rows[1]["latency_ratio"]) == 0.9
    assert float(rows[2]["score_drop"]) == 0.5


def test_the_frame_of_no_trials_has_the_columns_too() -> None:
    frame = trials_frame([])
    assert tuple(frame.columns) == COLUMNS
    assert frame.empty


def test_commas_quotes_and_lines_survive_trials_csv(tmp_path: Path) -> None:
    reason = 'a, "b"\nc; ünïcode'
    frame = trials_frame([Trial(7, Plan(), Outcome.FAILED, reason=reason, seconds={"build": 1.0, "size": 0.5})])
    path = tmp_path / "trials.csv"
    frame.to_csv(path, index=False)
    read = pd.read_csv(path)
    assert read["reason"][0] == reason
    assert (read["number"][0], read["seconds"][0], read["outcome"][0]) == (7, 1.5, "failed")


# result.json and the other files


def test_result_json_has_these_keys_and_says_what_the_result_says(real: Result) -> None:
    data = json.loads((real.folder / "result.json").read_text("utf-8"))
    assert set(data) == KEYS
    assert data["schema"] == SCHEMA == 2
    assert data["status"] == real.status
    assert data == json.loads(json.dumps(real.to_json()))
    assert set(data["search_space"]) == {"recipes", "refusals", "decisions", "warnings"}
    assert set(data["trials"][0]) == {"number", "name", "plan", "plan_hash", "outcome", "reason", "seconds"}
    assert set(data["search_space"]["refusals"]) == set(real.search_space.refusals)


def test_a_run_leaves_every_file_and_all_speak_of_the_same_artifact(real: Result) -> None:
    assert {name for name in RESULT_FILES if (real.folder / name).is_file()} == set(RESULT_FILES)
    result, certificate = (
        json.loads((real.folder / name).read_text("utf-8")) for name in ("result.json", "certificate.json")
    )
    assert real.artifact is not None
    assert real.artifact.path == real.folder / "model.onnx"
    assert result["artifact"] == {"file": "model.onnx", "sha256": real.artifact.hash}
    assert certificate["artifact_sha256"] == real.artifact.hash
    assert certificate["baseline_sha256"] == result["baseline_sha256"] == real.baseline.hash
    assert certificate["plan"] == result["plan"] == Plan.read(real.folder / "plan.yaml").to_json()


def test_no_unfinished_file_is_left(real: Result) -> None:
    assert [path.name for path in real.folder.iterdir() if path.name.startswith(".")] == []


def test_a_file_that_cannot_be_written_whole_leaves_the_one_before(missed: Result) -> None:
    good = {"look": 1}
    write_files(replace(missed, certificate=certificate_of(missed, good)))
    before = (missed.folder / "certificate.json").read_text("utf-8")
    assert json.loads(before)["look"] == 1
    with pytest.raises(ValueError, match="JSON"):
        write_files(replace(missed, certificate=certificate_of(missed, {"look": float("nan")})))
    assert (missed.folder / "certificate.json").read_text("utf-8") == before
    assert not [path for path in missed.folder.iterdir() if path.name.startswith(".")]


def certificate_of(result: Result, content: dict[str, object]) -> dict[str, object]:
    usual = {"artifact_sha256": "", "baseline_sha256": result.baseline.hash, "candidates_tried": 4, "issued": ""}
    return {**usual, "versions": {}, **content}


def test_an_answer_without_certificate_leaves_none_of_an_earlier_one(missed: Result) -> None:
    path = missed.folder / "certificate.json"
    path.write_text("{}")
    write_files(missed)
    assert not path.exists()
    assert json.loads((missed.folder / "result.json").read_text("utf-8"))["status"] == "not met"


def test_an_undecided_result_is_written_like_any_other(tmp_path: Path) -> None:
    device = FakeDevice(blocks=2)
    techniques: Sequence[Scripted] = [Scripted("scripted", {"good": Variant()})]
    result = Stand(tmp_path, techniques, {"latency_ms": "0.6x"}, device=device).result()
    write_files(result)
    data = json.loads((tmp_path / "result.json").read_text("utf-8"))
    assert data["status"] == "undecided"
    assert data["verdict"]["findings"][0]["low"] is None
    assert "unbounded" in html.unescape((tmp_path / "report.html").read_text("utf-8"))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (185, "3 min 5 s"), (3600, "1 h 0 min"), (3725, "1 h 2 min")],
)
def test_a_duration_is_written_in_two_units_at_most(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.00k"),
        (999_400, "999k"),
        (999_600, "1.00M"),
        (118_013_952, "118M"),
        (1_814_073_344, "1.81G"),
    ],
)
def test_counts_are_written_with_three_digits_and_a_unit(count: int, text: str) -> None:
    assert compact(count) == text
