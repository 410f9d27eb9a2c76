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
    return {measure: _compared(first[measure], second[measure]) for measure in first if measure in second}


def _compared(first: dict[str, float], second: dict[str, float]) -> Comparison:
    differences = np.array([score - second[query] for query, score in first.items()], np.float64)
    wins, losses = int((differences > TIE).sum()), int((differences < -TIE).sum())
    ties = len(differences) - wins - losses
    return Comparison(round(float(differences.mean()), 4), randomised(differences), wins, ties, losses)


def randomised(differences: NDArray[np.float64]) -> float:
    """Return the p-value of paired differences: how likely it is that their mean is as far from 0 by chance."""
    drawn = np.random.default_rng(SEED)
    observed = abs(differences.sum()) - TIE
    extreme = 0
    for _ in range(PERMUTATIONS // AT_ONCE):
        signs = drawn.integers(0, 2, (AT_ONCE, len(differences)), np.int8) * 2.0 - 1
        extreme += int((np.abs(signs @ differences) >= observed).sum())
    return round((extreme + 1) / (PERMUTATIONS + 1), 5)
