"""The form in which scores and losses get a model's outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from autocompress.core.outputs import as_given, first_of

A, B, C = (np.full((2, 3), float(i), np.float32) for i in range(3))
IDS = np.zeros(2, np.int64)


def given(**named: np.ndarray) -> Any:
    names = {name.replace("__", "."): array for name, array in named.items()}
    return as_given(names, lambda array: array.dtype.kind == "f")


def positions(**named: np.ndarray) -> Any:
    return given(**{name.removeprefix("p"): array for name, array in named.items()})


def test_a_single_output_is_the_array_itself() -> None:
    assert given(output=A) is A
    assert given(pred=A) is A


def test_logits_without_another_floating_output_are_the_array_itself() -> None:
    assert given(logits=A, ids=IDS) is A
    assert given(logits=A, boxes=B) == {"logits": A, "boxes": B}


def test_tuples_stay_tuples() -> None:
    assert given(output=A, output_1=B) == (A, B)
    assert positions(p0=A, p1__0=B, p1__1=C) == (A, (B, C))
    assert positions(p0__0=A, p2=B) == ((A,), None, B)


def test_everything_else_is_a_dict_by_name() -> None:
    assert given(logits=A, state__h=B) == {"logits": A, "state.h": B}
    assert positions(p0=A, p1__h=B) == {"0": A, "1.h": B}


@pytest.mark.parametrize(
    ("outputs", "first"),
    [(A, A), ((A, B), A), (((None, B), A), B), ({"boxes": A, "logits": B}, B), ({"boxes": A, "scores": B}, A)],
)
def test_built_in_scores_take_the_logits_or_else_the_first(outputs: Any, first: np.ndarray) -> None:
    assert first_of(outputs) is first
