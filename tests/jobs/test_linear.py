"""Small linear systems."""

from __future__ import annotations

import pytest

from piod.jobs.linear import Singular, solve


def test_it_solves_what_needs_a_change_of_rows() -> None:
    matrix = [[0.0, 2.0, 1.0], [1.0, -1.0, 0.0], [3.0, 0.0, 4.0]]
    wanted = [1.5, -2.0, 0.25]
    right = [sum(a * x for a, x in zip(row, wanted, strict=True)) for row in matrix]
    assert solve(matrix, right) == pytest.approx(wanted, abs=1e-12)


def test_equations_without_a_single_solution_are_refused() -> None:
    with pytest.raises(Singular):
        solve([[1.0, 2.0], [2.0, 4.0]], [1.0, 2.0])
