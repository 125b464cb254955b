"""Small systems of linear equations, without numpy: its import costs a Pi Zero seconds."""

from __future__ import annotations

from collections.abc import Sequence


class Singular(ArithmeticError):
    """The equations have no single solution."""


def solve(matrix: Sequence[Sequence[float]], right: Sequence[float]) -> list[float]:
    """x of ``matrix``·x = ``right``, by elimination with row pivots.

    ``matrix`` is square. Raises Singular.
    """
    size = len(right)
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    for column in range(size):
        pivot = max(range(column, size), key=lambda row: abs(rows[row][column]))
        rows[column], rows[pivot] = rows[pivot], rows[column]
        head = rows[column]
        if head[column] == 0:
            raise Singular(f"column {column} has no pivot")
        for row in rows[column + 1 :]:
            factor = row[column] / head[column]
            for index in range(column, size + 1):
                row[index] -= factor * head[index]
    solution = [0.0] * size
    for index in reversed(range(size)):
        row = rows[index]
        known = sum(row[later] * solution[later] for later in range(index + 1, size))
        solution[index] = (row[size] - known) / row[index]
    return solution
