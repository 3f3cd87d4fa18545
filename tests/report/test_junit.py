from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from graded_checks import check_of, graded, model_in
from hypothesis import given
from hypothesis import strategies as st

from autocompress.core.artifact import Artifact
from autocompress.core.budget import GateRule
from autocompress.core.verdict import Standing
from autocompress.report.junit import junit


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return model_in(tmp_path)


def test_junit_has_a_case_for_each_budget_and_a_failure_for_each_that_failed(artifact: Artifact) -> None:
    lenient = GateRule(severity="warn", message="ask Ann")
    check = check_of(
        artifact, graded(), graded(Standing.EXCEEDED, why="largest tensors: a"), graded(Standing.EXCEEDED, lenient)
    )
    suite = ElementTree.fromstring(junit([check])).find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures")) == ("3", "1")
    failures = [case.find("failure") for case in suite.findall("testcase")]
    assert [failure is not None for failure in failures] == [False, True, False]
    assert failures[1] is not None
    assert failures[1].get("message") == "so it is. largest tensors: a"
    assert "ask Ann" in (suite.findall("testcase")[2].findtext("system-out") or "")


def test_junit_of_no_budget_fails(artifact: Artifact) -> None:
    suite = ElementTree.fromstring(junit([check_of(artifact)])).find("testsuite")
    assert suite is not None
    assert suite.get("failures") == "1"


@given(st.text(max_size=80))
def test_any_words_of_a_user_are_xml(words: str) -> None:
    broken = graded(Standing.EXCEEDED, GateRule(message=words))
    check = check_of(model_in(Path("/tmp")), broken, profile=words or "x")
    ElementTree.fromstring(junit([check]))
