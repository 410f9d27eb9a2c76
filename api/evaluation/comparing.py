"""Whether one ranking is better than another: Fisher's randomisation test, paired by query.

If neither is better, each query's difference might as well have the other sign. The test draws signs at random and
counts how often the mean difference is at least as far from 0 as the one that was seen (Smucker, Allan and Carterette,
"A comparison of statistical significance tests for information retrieval evaluation", CIKM 2007). The observed one is
counted with the drawn ones (Phipson and Smyth 2010), so that p is never 0.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from api.evaluation.measuring import Scores

PERMUTATIONS = 20_000
AT_ONCE = 500
SEED = 2007
TIE = 1e-9
"""What sums of the same numbers may differ by in floating point; the scores have six digits."""


class Comparison(msgspec.Struct, frozen=True):
    """One measure of two rankings, query by query; positive: the first is better."""

    difference: float
    """Of the means."""
    p: float
    """Two-sided."""
    wins: int
    """Queries for which the first is better."""
    ties: int
    losses: int


def compare(first: Scores, second: Scores) -> dict[str, Comparison]:
    """Compare two rankings of the same queries by each measure that both have."""
    measures = [measure for measure in first if measure in second]
    columns = [[score - second[name][query] for query, score in first[name].items()] for name in measures]
    differences = np.array(columns, np.float64).T
    compared = zip(differences.T, randomised(differences), strict=True)
    return {measure: _comparison(*pair) for measure, pair in zip(measures, compared, strict=True)}


def _comparison(differences: NDArray[np.float64], p: float) -> Comparison:
    wins, losses = int((differences > TIE).sum()), int((differences < -TIE).sum())
    return Comparison(round(float(differences.mean()), 4), p, wins, len(differences) - wins - losses, losses)


def randomised(differences: NDArray[np.float64]) -> list[float]:
    """Return for each column how likely it is that its mean is as far from 0 by chance; shape ``(queries, measures)``.

    All columns get the same signs.
    """
    drawn = np.random.default_rng(SEED)
    observed = np.abs(differences.sum(axis=0)) - TIE
    extreme = np.zeros(differences.shape[1], np.int64)
    for _ in range(PERMUTATIONS // AT_ONCE):
        signs = drawn.integers(0, 2, (AT_ONCE, len(differences)), np.int8) * 2.0 - 1
        extreme += (np.abs(signs @ differences) >= observed).sum(axis=0)
    return [round(float(p), 5) for p in (extreme + 1) / (PERMUTATIONS + 1)]
