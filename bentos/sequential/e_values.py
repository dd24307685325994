"""E-variables for two streams of successes: is the challenger's rate above the champion's by more than a margin?

One block holds `n_a` requests of the champion of which `k_a` hit (failed, were slow), and `n_b`, `k_b` of the
challenger. Against a point alternative (t_a, t_b) the e-variable of the null p_b <= p_a + margin is

    E = prod over requests of p_t(y) / p_0(y),    p_0 = the projection of the alternative onto the null,

where (a, a + margin) on the null's edge minimises n_a KL(t_a | a) + n_b KL(t_b | a + margin). It is the reverse
information projection, so E[E] <= 1 under every point of the null, for any n_a and n_b (Turner, Ly & Grünwald, "Generic
E-variables for exact sequential k-sample tests that allow for optional stopping", JSPI 230, 2024, theorem 1; for a
null with a margin Turner & Grünwald, "Exact anytime-valid confidence intervals for contingency tables and beyond",
Statistics & Probability Letters 198, 2023). The same edge serves the null p_b >= p_a + margin with an alternative
below it. Products over blocks are e-processes as long as the alternative of a block is chosen from earlier blocks
alone. Each block's rates may differ from the last one's.

All functions are element-wise and broadcast.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Numbers = Floats | float  # one for all, or an array that broadcasts

# How far beyond the margin the alternatives lie. A factor of 1.8 apart, the nearest loses at most a tenth of the growth
# that the true one has: 1 - (1 - r)² with r within 1.8^±½ of 1, and a bit more above it.
UPLIFTS: Floats = np.geomspace(0.005, 0.9, 10)
# An alternative keeps so far away from certainty (relative to the null's own distance): one request cannot refute it.
_LEAST_SHARE = 0.1
_LEAST_RATE = 1e-3
_EDGE = 1e-15
_CONVERGED = 1e-13
_MOST_STEPS = 20


def smoothed_rate(hits: Numbers, n: Numbers, prior: float) -> Floats:
    """Estimate of a rate from `hits` of `n`, `prior` while nothing is known.

    Half a hit is added, as Krichevsky and Trofimov do, so that the logarithmic loss of one surprise stays small.
    """
    estimate: Floats = np.minimum((hits + 0.5) / (n + 0.5 / prior), 1 - 0.5 / (n + 2))
    return estimate


def alternative(rate: Numbers, margin: Numbers, uplift: Numbers) -> Floats:
    """The challenger's rate under the alternative: champion's `rate` + margin + uplift (below the margin: negative)."""
    edge = np.clip(rate + margin, 0.0, 1.0)
    lowest = np.maximum(_LEAST_SHARE * edge, _LEAST_RATE)
    highest = 1 - np.maximum(_LEAST_SHARE * (1 - edge), _LEAST_RATE)
    found: Floats = np.clip(rate + margin + uplift, lowest, highest)
    return found


def projection(n_a: Numbers, n_b: Numbers, t_a: Numbers, t_b: Numbers, margin: Numbers) -> Floats:
    """The champion's rate `a` of the point (a, a + margin) nearest to (t_a, t_b) in the weighted KL divergence.

    The root of the divergence's slope, which is a sum of four hyperbolas and grows between two poles. Each step puts one
    hyperbola through either pole, with the slope's value and growth, and goes to their root ("the middle way", Li,
    "Solving secular equations stably and efficiently", LAPACK working note 89, 1993). Exact at once for margin 0.
    """
    width = 1 - np.abs(margin)
    under_a, under_b = np.maximum(-margin, 0.0), np.maximum(margin, 0.0)  # a = y + under_a, b = y + under_b
    hits_a, misses_a, hits_b, misses_b = n_a * t_a, n_a * (1 - t_a), n_b * t_b, n_b * (1 - t_b)
    y = np.clip((hits_a + hits_b - n_b * margin) / (n_a + n_b) - under_a, _EDGE * width, (1 - _EDGE) * width)
    for _ in range(_MOST_STEPS):
        z = width - y
        a, b, not_a, not_b = y + under_a, y + under_b, z + under_b, z + under_a
        slope = misses_a / not_a + misses_b / not_b - hits_a / a - hits_b / b
        left = (hits_a / a**2 + hits_b / b**2) * y**2
        right = (misses_a / not_a**2 + misses_b / not_b**2) * z**2
        level = slope + left / y - right / z
        sum_ = level * width + left + right
        root = 2 * left * width / (sum_ + np.sqrt(np.maximum(sum_**2 - 4 * level * left * width, 0.0)))
        moved, y = np.abs(root - y), np.clip(root, _EDGE * width, (1 - _EDGE) * width)
        if float(np.max(moved, initial=0.0)) < _CONVERGED:
            break
    found: Floats = y + under_a
    return found


def log_e_value(
    n_a: Numbers, k_a: Numbers, n_b: Numbers, k_b: Numbers, t_a: Numbers, t_b: Numbers, margin: Numbers, *, worse: bool
) -> Floats:
    """Log e-value of one block against p_b <= p_a + margin (`worse`) or p_b >= p_a + margin (not `worse`).

    0 where the alternative lies in the null, and where a block lacks one of the two: it then tells nothing.
    """
    beyond = t_b > t_a + margin if worse else t_b < t_a + margin
    usable = np.logical_and(beyond, np.logical_and(np.greater(n_a, 0), np.greater(n_b, 0)))
    weight_a, weight_b = np.where(usable, n_a, 1.0), np.where(usable, n_b, 1.0)
    a = projection(weight_a, weight_b, t_a, t_b, margin)
    b = a + margin
    log_e = (
        k_a * np.log(t_a / a)
        + (n_a - k_a) * np.log((1 - t_a) / (1 - a))
        + k_b * np.log(t_b / b)
        + (n_b - k_b) * np.log((1 - t_b) / (1 - b))
    )
    found: Floats = np.where(usable, log_e, 0.0)
    return found


def log_mixture(log_e: Floats) -> Floats:
    """Log of the mean of e-processes over the last axis: an e-process again."""
    top = log_e.max(axis=-1)
    mixed: Floats = top + np.log(np.exp(log_e - top[..., None]).mean(axis=-1))
    return mixed
