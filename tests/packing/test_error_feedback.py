"""Errors passed on: the layer's output keeps closer than with each weight rounded by itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.packing.error_feedback import rounded_with_feedback

Tensor = torch.Tensor


def whole(values: Tensor, column: int) -> Tensor:
    return values.round()


def inputs(columns: int, seed: int = 0) -> Tensor:
    """Inputs that hang together, as those of layers do."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(columns, columns, generator=generator)
    return torch.randn(500, columns, generator=generator) @ mixed


@settings(max_examples=20)
@given(st.integers(2, 90), st.integers(0, 1000))
def test_the_output_is_closer_than_with_each_weight_rounded_by_itself(columns: int, seed: int) -> None:
    given_inputs = inputs(columns, seed)
    moments = given_inputs.T @ given_inputs / len(given_inputs)
    matrix = 3 * torch.randn(16, columns, generator=torch.Generator().manual_seed(seed + 1)).double()
    found = rounded_with_feedback(matrix, moments, whole)

    def error(rounded: Tensor) -> float:
        moved = rounded - matrix
        return float(torch.einsum("rc,cd,rd->", moved, moments.double(), moved))

    assert torch.equal(found, found.round())
    assert error(found) <= 1.05 * error(matrix.round())


def test_independent_inputs_leave_each_weight_at_its_nearest_value() -> None:
    matrix = torch.randn(8, 70).double() * 4
    np.testing.assert_array_equal(rounded_with_feedback(matrix, torch.eye(70), whole), matrix.round())


def test_columns_that_are_never_multiplied_with_anything_are_rounded() -> None:
    matrix = torch.randn(4, 5).double()
    np.testing.assert_array_equal(rounded_with_feedback(matrix, torch.zeros(5, 5), whole), matrix.round())
    moments = torch.diag(torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0]))
    np.testing.assert_array_equal(rounded_with_feedback(matrix, moments, whole), matrix.round())


@pytest.mark.parametrize("columns", [3, 64, 65, 130])
def test_rounding_is_told_the_column_that_it_rounds(columns: int) -> None:
    matrix = torch.arange(columns).double().repeat(2, 1)
    given_inputs = inputs(columns)
    seen: list[int] = []

    def rounding(values: Tensor, column: int) -> Tensor:
        seen.append(column)
        return torch.full_like(values, float(column))

    found = rounded_with_feedback(matrix, given_inputs.T @ given_inputs, rounding)
    assert sorted(seen) == list(range(columns))
    np.testing.assert_array_equal(found, matrix)
