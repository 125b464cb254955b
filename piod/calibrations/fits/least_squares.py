"""Small linear least squares, by Householder reflections."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_INDEPENDENT = 1e-10
"""The part of a column that the columns before it must leave over."""


class RankDeficient(ArithmeticError):
    """The points do not determine every unknown."""


@dataclass(frozen=True)
class Solution:
    """``values``: the unknowns; ``covariance``: theirs, for errors of variance 1; ``sse``: the
    sum of squares that is left."""

    values: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    sse: float


def least_squares(matrix: Sequence[Sequence[float]], right: Sequence[float]) -> Solution:
    """The x for which |``matrix``·x − ``right``| is least.

    ``matrix`` has at least as many rows as columns. Raises RankDeficient.
    """
    columns = [list(column) for column in zip(*matrix, strict=True)]
    size = len(columns)
    columns.append(list(right))
    if not size <= len(right):
        raise RankDeficient(f"{len(right)} equations for {size} unknowns")
    diagonal: list[float] = []
    for k, column in enumerate(columns[:size]):
        length = math.hypot(*column[k:])
        # what stands above has been rotated out of it: the whole is as long as it was
        if not length > _INDEPENDENT * math.hypot(*column):
            raise RankDeficient(f"column {k} depends on those before it")
        head = -math.copysign(length, column[k])
        mirror = [column[k] - head, *column[k + 1 :]]
        squared = math.fsum(value * value for value in mirror)
        for other in columns[k + 1 :]:
            part = 2 * math.fsum(a * b for a, b in zip(mirror, other[k:], strict=True)) / squared
            for row, value in enumerate(mirror, start=k):
                other[row] -= part * value
        diagonal.append(head)
    inverse = [_back(columns, diagonal, _unit(i, size)) for i in range(size)]
    return Solution(
        values=tuple(_back(columns, diagonal, columns[size][:size])),
        covariance=tuple(
            tuple(math.fsum(c[i] * c[j] for c in inverse) for j in range(size)) for i in range(size)
        ),
        sse=math.fsum(value * value for value in columns[size][size:]),
    )


def _back(
    columns: Sequence[Sequence[float]], diagonal: Sequence[float], right: Sequence[float]
) -> list[float]:
    """The unknowns of the triangle above ``diagonal``, from the last to the first."""
    size = len(diagonal)
    values = [0.0] * size
    for row in reversed(range(size)):
        known = math.fsum(columns[later][row] * values[later] for later in range(row + 1, size))
        values[row] = (right[row] - known) / diagonal[row]
    return values


def _unit(index: int, size: int) -> list[float]:
    return [1.0 if i == index else 0.0 for i in range(size)]
