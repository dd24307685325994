"""Two-sample test on embeddings: maximum mean discrepancy with a permutation test (Gretton et al., JMLR 13, 2012)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_CHUNK = 1_000  # permutations at once: 1,000 x 1,000 rows of float64 are 8 MB


def mmd_permutation_test(
    reference: NDArray[np.floating], current: NDArray[np.floating], permutations: int, seed: int
) -> tuple[float, float]:
    """Unbiased MMD² of two samples `[n, d]` and `[m, d]`, and its p-value under exchange of their labels.

    The kernel is Gaussian, exp(-|x - y|² / median of |x - y|² over both samples), section 8 of the paper. The p-value
    is (1 + permutations with at least the observed MMD²) / (1 + permutations): never 0, and exact under the null
    hypothesis (Phipson and Smyth, 2010). Raises ValueError for fewer than 2 rows, other than 2 dimensions, or values
    that are not finite.
    """
    for name, sample in (("reference", reference), ("current", current)):
        if sample.ndim != 2 or len(sample) < 2 or not np.isfinite(sample).all():
            raise ValueError(f"{name} has shape {sample.shape}, expected finite values in [at least 2 rows, columns]")
    n, m = len(reference), len(current)
    kernel = _kernel(np.concatenate([reference, current]).astype(np.float64))
    row_sums = kernel.sum(axis=1)
    total = row_sums.sum()

    def statistic(member: NDArray[np.float64]) -> NDArray[np.float64]:
        """MMD² for each row of `member` `[p, n + m]`, which is 1 for members of the first sample and 0 for others.

        With K's diagonal 0: within = aᵀKa, across = aᵀK1 - aᵀKa, so that one matrix product serves all three sums.
        """
        within = np.einsum("pi,pi->p", member @ kernel, member)
        across = member @ row_sums - within
        others = total - within - 2 * across
        value: NDArray[np.float64] = within / (n * (n - 1)) + others / (m * (m - 1)) - 2 * across / (n * m)
        return value

    labels = np.zeros((1, n + m))
    labels[0, :n] = 1
    observed = float(statistic(labels)[0])
    rng = np.random.default_rng(seed)
    n_as_extreme = 0
    for start in range(0, permutations, _CHUNK):
        rows = min(_CHUNK, permutations - start)
        shuffled = rng.permuted(np.repeat(labels, rows, axis=0), axis=1)
        # Equal splits differ in the last bits of their sums; a tie counts against the finding.
        n_as_extreme += int((statistic(shuffled) >= observed - 1e-12).sum())
    return observed, (1 + n_as_extreme) / (1 + permutations)


def _kernel(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gaussian kernel `[n, n]` with a zero diagonal. Its width is a function of the pooled rows alone, whatever their
    labels: otherwise the permutation test would not be exact."""
    squares = (rows**2).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares - 2 * rows @ rows.T, 0)
    width = float(np.median(distances[np.triu_indices(len(rows), k=1)]))
    if width <= 0:  # at least half of the pairs are identical
        width = float(distances.mean()) or 1.0
    kernel: NDArray[np.float64] = np.exp(-distances / width)
    np.fill_diagonal(kernel, 0)
    return kernel
