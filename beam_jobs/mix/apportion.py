"""How many tokens each group of domains may give, as if documents could be cut anywhere."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Amounts = NDArray[np.float64]
_BISECTIONS = 60


class Plan(NamedTuple):
    """`short` bool `[n_groups]` are the groups that give all they have and are not reckoned with further; `quotas`
    float64 `[n_groups]` are the others' shares of what the others give together, 0 for short ones."""

    short: NDArray[np.bool_]
    quotas: Amounts


def plan(available: Amounts, quotas: Amounts, tolerance: float, most: float, least: float) -> Plan:
    """Which groups fall short, so that at least `least` tokens can be kept: the scarcest ones, as few as will do.

    `available` float64 `[n_groups]` are tokens, `quotas` float64 `[n_groups]` sum to 1 over groups above 0; at most
    `most` tokens are kept together.
    """
    short = quotas <= 0
    while True:
        given = float(available[short & (quotas > 0)].sum())
        left = np.where(short, 0.0, quotas)
        left = left / left.sum() if left.any() else left
        reach = largest_total(available[~short], left[~short], tolerance, most - given)
        if given + reach >= least * (1 - 1e-9) or np.count_nonzero(~short) <= 1:
            return Plan(short, left)
        scarcity = np.divide(available, quotas, out=np.full(len(quotas), np.inf), where=~short)
        short[int(np.argmin(scarcity))] = True


def largest_total(available: Amounts, quotas: Amounts, tolerance: float, most: float) -> float:
    """The most tokens T ≤ `most` that groups can give with each share within `tolerance` of its quota.

    A group needs (quota - tolerance) · T tokens, and all together must reach T without any giving more than it has or
    than (quota + tolerance) · T. The sum of what they may give is concave in T and starts at 0, so that it is enough
    for every T up to the one where it last meets T itself: solved exactly, between the points where a group runs out.
    """
    if not len(available):
        return 0.0
    least_shares, largest_shares = quotas - tolerance, quotas + tolerance
    bounds = available[least_shares > 0] / least_shares[least_shares > 0]
    most = min([most, float(available.sum()), *bounds.tolist()])
    order = np.argsort(available / largest_shares, kind="stable")
    runs_out = (available / largest_shares)[order]
    exhausted = np.cumsum(available[order])
    unlimited = largest_shares.sum() - np.cumsum(largest_shares[order])  # share of those that have not run out
    for place in range(len(order) - 1):
        slope = 1 - float(unlimited[place])
        if slope > 1e-12:
            total = float(exhausted[place]) / slope
            if total <= runs_out[place + 1]:
                return max(0.0, min(most, total))
    return max(0.0, most)


def spread(available: Amounts, quotas: Amounts, tolerance: float, total: float) -> Amounts:
    """What each group gives to a feasible total: float64 `[n_groups]`, all as far from their quotas as they have to be."""
    low = np.maximum((quotas - tolerance) * total, 0)
    high = np.minimum((quotas + tolerance) * total, available)
    down, up = -total, total
    for _ in range(_BISECTIONS):
        middle = (down + up) / 2
        down, up = (middle, up) if np.clip(quotas * total + middle, low, high).sum() < total else (down, middle)
    return np.clip(quotas * total + up, low, high)


def fill(available: Amounts, quotas: Amounts, total: float) -> Amounts:
    """At most `total` tokens by quotas; what a group lacks, the others give: float64 `[n_groups]`."""
    given = np.zeros(len(available))
    level = np.divide(available, quotas, out=np.full(len(available), np.inf), where=quotas > 0)
    share = float(quotas.sum())
    for group in np.argsort(level, kind="stable"):
        if quotas[group] > 0:
            given[group] = min(available[group], total * quotas[group] / share)
            total, share = total - given[group], share - quotas[group]
    return given
