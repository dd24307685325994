"""The largest selection of a drop in which every domain has its share of the tokens, best documents first."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from beam_jobs.mix.apportion import Plan, fill, largest_total, plan, spread
from lake.recipe import Mix

REST = "rest"  # all domains without a quota of their own
# Where cutting between documents breaks a tolerance, a narrower one is aimed at: by this share of it less, then more.
_NARROWER = (0.0, *(2.0**-power for power in range(10, -1, -1)))
_LOOKAHEAD, _MAX_SHRINKING = 8, 2_000
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class QuotaReport:
    """What became of one domain, or of the rest. `share` is of all kept tokens; `why` is empty when it is met."""

    domain: str
    quota: float
    share: float
    met: bool
    why: str
    n_documents: int
    n_tokens: int
    n_kept: int
    n_kept_tokens: int
    n_reserved: int
    n_reserved_tokens: int


@dataclass(frozen=True)
class Selection:
    """`keep` and `reserve` bool `[n]`: documents of this drop, and those kept for later ones; the others are left out."""

    keep: NDArray[np.bool_]
    reserve: NDArray[np.bool_]
    report: tuple[QuotaReport, ...]


def select(domains: Counts, n_tokens: Counts, values: NDArray[np.float64], mix: Mix) -> Selection:
    """Choose the documents of one drop. Deterministic, O(n log n).

    `domains` int64 `[n]` are places in `mix.labels`, `n_tokens` int64 `[n]`, `values` float64 `[n]`. Of each domain the
    documents are kept in descending value, ties in order, down to one cut. What is kept is as large as can be while
    each share is within the tolerance; `mix.min_kept` says what happens where a domain has too little for that. Raises
    ValueError on arrays that do not fit.
    """
    if not len(domains) == len(n_tokens) == len(values):
        raise ValueError(
            f"{len(domains)} domains, {len(n_tokens)} token counts, {len(values)} values: one each expected"
        )
    names, quotas, group_of = _groups(mix)
    group = group_of[domains]
    order = np.lexsort((-values, group))  # stable: ties stay in order
    starts = np.searchsorted(group[order], np.arange(len(names) + 1))
    ends = [np.concatenate([[0], np.cumsum(n_tokens[order[start:stop]])]) for start, stop in pairwise(starts)]
    drop = _Drop(ends, quotas, mix)
    taken = drop.cuts()
    reserved = drop.reserved(taken)
    place = np.arange(len(order)) - starts[group[order]]  # in its group
    keep, reserve = np.zeros(len(order), bool), np.zeros(len(order), bool)
    keep[order] = place < taken[group[order]]
    reserve[order] = (place < reserved[group[order]]) & ~keep[order]
    return Selection(keep, reserve, drop.report(names, taken, reserved))


def _groups(mix: Mix) -> tuple[list[str], NDArray[np.float64], Counts]:
    """Names and quotas of the groups that quotas are kept by, and the group of each of `mix.labels`."""
    names = [label for label in mix.labels if label in mix.quotas]
    quotas = [mix.quotas[name] for name in names]
    if len(names) < len(mix.labels):
        rest = 1 - math.fsum(quotas)
        quotas.append(rest if rest > 1e-9 else 0.0)
        names.append(REST)
    group_of = [names.index(label) if label in mix.quotas else len(names) - 1 for label in mix.labels]
    return names, np.array(quotas, np.float64), np.array(group_of, np.int64)


class _Drop:
    """The groups' documents, best first: `ends[g][k]` are the tokens of the first `k` documents of group `g`."""

    def __init__(self, ends: list[Counts], quotas: NDArray[np.float64], mix: Mix) -> None:
        self.ends, self.quotas, self.mix = ends, quotas, mix
        self.available = np.array([float(end[-1]) for end in ends])
        usable = float(self.available[quotas > 0].sum())
        self.most = min(usable, mix.max_tokens or usable)
        self.plan: Plan = plan(self.available, quotas, mix.tolerance, self.most, mix.min_kept * self.most)

    def cuts(self) -> Counts:
        """How many documents of each group are kept: int64 `[n_groups]`."""
        whole = np.where(self.plan.short & (self.quotas > 0), [len(end) - 1 for end in self.ends], 0)
        most = self.most - float(self.sums(whole).sum())
        best, best_error = whole, np.inf
        for narrower in _NARROWER:
            tolerance = self.mix.tolerance * (1 - narrower)
            budgets = self._budgets(tolerance, most)
            for rounded in (self._below(budgets), self._nearest(budgets)):
                cuts = np.where(self.plan.short, whole, rounded)
                error = self._error(cuts)
                if error <= self.mix.tolerance:
                    return self._grown(cuts)
                if error < best_error:
                    best, best_error = cuts, error
        return self._shrunk(best)

    def reserved(self, taken: Counts) -> Counts:
        """Up to which document each group's rest is kept for later drops: int64 `[n_groups]`, at least `taken`."""
        kept = self.sums(taken)
        budgets = fill(np.where(self.quotas > 0, self.available - kept, 0), self.quotas, self.mix.max_reserve_tokens)
        return np.maximum(self._below(np.where(self.quotas > 0, kept + budgets, 0)), taken)

    def sums(self, cuts: Counts) -> NDArray[np.float64]:
        return np.array([float(end[cut]) for end, cut in zip(self.ends, cuts, strict=True)])

    def _budgets(self, tolerance: float, most: float) -> NDArray[np.float64]:
        open_ = ~self.plan.short
        available, quotas = self.available[open_], self.plan.quotas[open_]
        budgets = np.zeros(len(self.quotas))
        total = largest_total(available, quotas, tolerance, most)
        budgets[open_] = spread(available, quotas, tolerance, total)
        return budgets

    def _below(self, budgets: NDArray[np.float64]) -> Counts:
        found = [
            np.searchsorted(end, budget + 1e-6, "right") - 1 for end, budget in zip(self.ends, budgets, strict=True)
        ]
        return np.array(found, np.int64)

    def _nearest(self, budgets: NDArray[np.float64]) -> Counts:
        below = self._below(budgets)
        above = np.minimum(below + 1, [len(end) - 1 for end in self.ends])
        return np.where(self.sums(above) - budgets < budgets - self.sums(below), above, below)

    def _error(self, cuts: Counts) -> float:
        """The largest distance of a share from its quota; infinite for nothing at all, or too much."""
        sums = self.sums(cuts)
        open_sums = sums[~self.plan.short]
        total = float(open_sums.sum())
        if total <= 0 or float(sums.sum()) > self.most:
            return np.inf
        # Rounded, so that a share of exactly quota and tolerance is within it.
        return round(float(np.abs(open_sums / total - self.plan.quotas[~self.plan.short]).max()), 9)

    def _shrunk(self, cuts: Counts) -> Counts:
        """For few and large documents: fewer of the group that is the most over its share, until all are within bounds.

        The cuts as they were, where that leads to nothing within bounds and above what has to be kept.
        """
        fewer = cuts
        for _ in range(_MAX_SHRINKING):
            sums = self.sums(fewer)
            over = sums - self.plan.quotas * sums[~self.plan.short].sum()
            can_shrink = ~self.plan.short & (fewer > 0)
            if not can_shrink.any() or sums.sum() < self.mix.min_kept * self.most:
                return cuts
            if self._error(fewer) <= self.mix.tolerance:
                return self._grown(fewer)
            fewer = fewer - _one(int(np.argmax(np.where(can_shrink, over, -np.inf))), len(cuts))
        return cuts

    def _grown(self, cuts: Counts) -> Counts:
        """More documents, one at a time, of the group that lacks most and may have more. Where none may, a few steps
        ahead are tried: the documents of two groups may fit where that of one does not."""
        grown, ahead = cuts, cuts
        steps = patience = _LOOKAHEAD * len(cuts)
        while steps > 0:
            sums = self.sums(ahead)
            lacks = self.plan.quotas * sums[~self.plan.short].sum() - sums
            can_grow = np.flatnonzero(~self.plan.short & (ahead < [len(end) - 1 for end in self.ends]))
            if not len(can_grow):
                return grown
            by_lack = can_grow[np.argsort(-lacks[can_grow], kind="stable")]
            choices = [ahead + _one(int(group), len(cuts)) for group in by_lack]
            ahead = next((choice for choice in choices if self._error(choice) <= self.mix.tolerance), choices[0])
            steps -= 1
            if self._error(ahead) <= self.mix.tolerance:
                grown, steps = ahead, patience
        return grown

    def report(self, names: list[str], taken: Counts, reserved: Counts) -> tuple[QuotaReport, ...]:
        kept, reserved_tokens = self.sums(taken), self.sums(reserved) - self.sums(taken)
        total = max(float(kept.sum()), 1.0)
        found = []
        for group, name in enumerate(names):
            share, quota = float(kept[group]) / total, float(self.quotas[group])
            met = abs(share - quota) <= self.mix.tolerance + 1e-9
            found.append(
                QuotaReport(
                    domain=name,
                    quota=quota,
                    share=share,
                    met=met,
                    why="" if met else self._why(group, share, names),
                    n_documents=len(self.ends[group]) - 1,
                    n_tokens=int(self.available[group]),
                    n_kept=int(taken[group]),
                    n_kept_tokens=int(kept[group]),
                    n_reserved=int(reserved[group] - taken[group]),
                    n_reserved_tokens=int(reserved_tokens[group]),
                )
            )
        return tuple(found)

    def _why(self, group: int, share: float, names: list[str]) -> str:
        short = [names[other] for other in np.flatnonzero(self.plan.short & (self.quotas > 0))]
        if not self.available.any():
            return "the drop has no tokens"
        if not self.available[group]:
            return "the drop has none of it"
        if names[group] in short:
            return f"all {int(self.available[group])} tokens of it are kept, too few for its share"
        if short and share > self.quotas[group]:
            return f"makes up for {', '.join(short)}"
        return "single documents are too large for the tolerance"


def _one(group: int, n_groups: int) -> Counts:
    return np.asarray(np.arange(n_groups) == group, np.int64)
