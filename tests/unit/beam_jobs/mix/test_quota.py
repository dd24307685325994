"""Quotas: shares within tolerance, the best documents first, as much as can be kept, and a reason where it fails."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from beam_jobs.mix.quota import QuotaReport, Selection, select
from lake.recipe import Mix

NAMES = ("technology", "humanities", "life")


def mix_of(*quotas: float, **more: Any) -> Mix:
    names = NAMES[: len(quotas)]
    domains = {name: {"sources": [f"{name}/*"]} for name in names}
    return Mix.model_validate({"domains": domains, "quotas": dict(zip(names, quotas, strict=True)), **more})


def selected(mix: Mix, *groups: list[int], values: list[float] | None = None) -> Selection:
    """Groups are the token counts of the documents of each of `mix.labels`."""
    domains = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    n_tokens = np.array([n for group in groups for n in group], np.int64)
    return select(domains, n_tokens, np.zeros(len(domains)) if values is None else np.array(values), mix)


def report(selection: Selection) -> dict[str, QuotaReport]:
    return {each.domain: each for each in selection.report}


def test_the_example_of_the_recipe() -> None:
    mix = mix_of(0.30, 0.25, 0.20)
    found = report(selected(mix, [10] * 6_000, [10] * 2_000, [10] * 1_000, [10] * 5_000))
    assert [found[name].quota for name in (*NAMES, "rest")] == pytest.approx([0.30, 0.25, 0.20, 0.25])
    assert all(each.met and not each.why for each in found.values())
    # Life has 10,000 tokens: with a share of at least 0.18 it allows 55,555 in all.
    assert found["life"].n_kept == 1_000
    assert sum(each.n_kept_tokens for each in found.values()) == pytest.approx(55_555, abs=10)
    assert sum(each.share for each in found.values()) == pytest.approx(1)


def test_the_best_of_a_domain_are_kept_and_of_equals_the_first() -> None:
    mix = mix_of(0.5, 0.5, max_tokens=60)
    found = selected(mix, [10] * 6, [10] * 6, [], values=[0, 1, 0, 2, 0, 0, *[5] * 6])
    assert np.flatnonzero(found.keep).tolist() == [0, 1, 3, 6, 7, 8]


def test_max_tokens_is_a_bound() -> None:
    found = selected(mix_of(0.5, 0.5, max_tokens=1_000), [7] * 500, [7] * 500, [])
    kept = sum(each.n_kept_tokens for each in found.report)
    assert 986 <= kept <= 1_000
    assert all(each.met for each in found.report)


def test_a_scarce_domain_shrinks_the_others_to_its_share() -> None:
    found = report(selected(mix_of(0.5, 0.5), [10] * 1_000, [10] * 400, []))
    assert found["humanities"].n_kept == 400
    assert found["technology"].n_kept == 433  # 400 / 0.48 - 400
    assert found["technology"].met


def test_a_domain_without_documents_does_not_empty_the_drop() -> None:
    found = report(selected(mix_of(0.3, 0.25, 0.2), [10] * 400, [10] * 300, [], [10] * 300))
    assert found["life"].why == "the drop has none of it"
    assert not found["life"].met
    # The others make up for it, in their proportion.
    assert found["technology"].share == pytest.approx(0.30 / 0.80, abs=0.021)
    assert found["technology"].why == "makes up for life"
    assert found["technology"].n_kept + found["humanities"].n_kept + found["rest"].n_kept > 800


def test_a_domain_with_next_to_nothing_does_not_nearly_empty_it() -> None:
    found = report(selected(mix_of(0.5, 0.5), [10] * 1_000, [10] * 3, []))
    assert (found["humanities"].n_kept, found["humanities"].met) == (3, False)
    assert found["humanities"].why == "all 30 tokens of it are kept, too few for its share"
    assert found["technology"].n_kept == 1_000
    strict = report(selected(mix_of(0.5, 0.5, min_kept=0.001), [10] * 1_000, [10] * 3, []))
    assert strict["technology"].n_kept == 3
    assert strict["technology"].met


def test_min_kept_of_one_fills_up_to_max_tokens() -> None:
    found = report(selected(mix_of(0.5, 0.5, min_kept=1, max_tokens=1_000), [10] * 1_000, [10] * 30, []))
    assert (found["humanities"].n_kept, found["technology"].n_kept) == (30, 70)


def test_a_quota_of_zero_keeps_nothing_not_even_for_later() -> None:
    found = selected(mix_of(0.6, 0.4), [10] * 30, [10] * 20, [10] * 50)
    rest = report(found)["rest"]
    assert (rest.n_kept, rest.n_reserved, rest.met) == (0, 0, True)
    assert report(found)["technology"].n_kept == 30


def test_without_quotas_everything_is_kept_or_the_best_up_to_max_tokens() -> None:
    mix = Mix.model_validate({"domains": {"a": {"sources": ["a/*"]}}})
    assert selected(mix, [3, 4], [5]).keep.all()
    capped = selected(mix.model_copy(update={"max_tokens": 8}), [3, 4], [5], values=[0, 1, 2])
    assert capped.keep.tolist() == [False, False, True]  # the second best would be beyond it
    assert capped.reserve.tolist() == [True, True, False]


def test_what_is_left_out_is_kept_for_later_best_first_up_to_a_bound() -> None:
    mix = mix_of(0.5, 0.5, max_reserve_tokens=100)
    found = selected(mix, [10] * 100, [10] * 20, [], values=[*range(100), *range(20)])
    assert found.keep[100:].all()
    n_kept = int(found.keep[:100].sum())
    assert np.flatnonzero(found.keep).tolist()[:n_kept] == list(range(100 - n_kept, 100))
    assert np.flatnonzero(found.reserve).tolist() == list(range(90 - n_kept, 100 - n_kept))
    assert not (found.keep & found.reserve).any()
    assert not selected(mix_of(0.5, 0.5, max_reserve_tokens=0), [10] * 9, [10] * 2, []).reserve.any()


def test_documents_too_large_for_the_tolerance_come_as_close_as_they_can() -> None:
    found = report(selected(mix_of(0.5, 0.5), [100], [130], []))
    assert found["technology"].n_kept == found["humanities"].n_kept == 1
    assert found["technology"].why == "single documents are too large for the tolerance"


@pytest.mark.parametrize("groups", [([], [], []), ([0, 0], [0], []), ([], [], [10] * 5)])
def test_nothing_to_choose_from(groups: tuple[list[int], ...]) -> None:
    found = selected(mix_of(0.5, 0.5), *groups)
    assert not found.keep.any() or sum(groups[0] + groups[1]) == 0
    assert all(each.n_kept_tokens == 0 for each in found.report)
    assert {each.why for each in found.report if not each.met} == (
        {"the drop has none of it"} if groups[2] else {"the drop has no tokens"}
    )


def test_arrays_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="2 domains, 1 token counts, 2 values: one each expected"):
        select(np.zeros(2, np.int64), np.zeros(1, np.int64), np.zeros(2), mix_of(0.5, 0.5))


DOCUMENTS = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 60), st.integers(0, 9)), max_size=60)
QUOTAS = st.lists(st.integers(0, 33), min_size=3, max_size=3).map(lambda parts: [part / 100 for part in parts])


def arrays(documents: list[tuple[int, int, int]]) -> tuple[Any, Any, Any]:
    domains, n_tokens, values = np.array(documents, np.int64).reshape(-1, 3).T
    return domains, n_tokens, values.astype(float)


@given(DOCUMENTS, QUOTAS, st.sampled_from([0.0, 0.02, 0.1]), st.sampled_from([None, 50, 700]), st.integers(0, 300))
@settings(max_examples=100, deadline=None)
def test_whatever_is_asked_for_a_selection_is_sound(
    documents: list[tuple[int, int, int]], quotas: list[float], tolerance: float, cap: int | None, reserve: int
) -> None:
    mix = mix_of(*quotas, tolerance=tolerance, max_tokens=cap, max_reserve_tokens=reserve)
    domains, n_tokens, values = arrays(documents)
    found = select(domains, n_tokens, values, mix)
    again = select(domains, n_tokens, values, mix)
    assert (found.keep == again.keep).all()
    assert (found.reserve == again.reserve).all()
    assert not (found.keep & found.reserve).any()
    assert n_tokens[found.keep].sum() <= (cap or np.inf)
    assert n_tokens[found.reserve].sum() <= reserve
    for group, each in enumerate(found.report):
        of_group = domains == group
        assert (each.n_documents, each.n_tokens) == (of_group.sum(), n_tokens[of_group].sum())
        assert each.n_kept == found.keep[of_group].sum()
        assert each.n_kept_tokens == n_tokens[of_group & found.keep].sum()
        assert each.met == (not each.why)
        # Down to one cut: kept, then reserved, then left out, in descending value and order of arrival.
        order = np.flatnonzero(of_group)[np.argsort(-values[of_group], kind="stable")]
        state = np.where(found.keep, 0, np.where(found.reserve, 1, 2))[order]
        assert (np.diff(state) >= 0).all()


def feasible_totals(documents: list[tuple[int, int, int]], mix: Mix) -> list[int]:
    """Tokens of every choice of cuts within the tolerance, by brute force."""
    domains, n_tokens, values = arrays(documents)
    quotas = [*mix.quotas.values(), 1 - sum(mix.quotas.values())]
    ends = []
    for group in range(len(quotas)):
        order = np.argsort(-values[domains == group], kind="stable")
        ends.append([0, *np.cumsum(n_tokens[domains == group][order]).tolist()])
    totals = []
    for sums in product(*ends):
        total = sum(sums)
        if total and all(
            abs(part / total - quota) <= mix.tolerance + 1e-9 for part, quota in zip(sums, quotas, strict=True)
        ):
            totals.append(total)
    return totals


@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_it_is_as_large_as_the_best_of_all_choices_but_for_a_few_documents(seed: int) -> None:
    chance = np.random.default_rng(seed)
    documents = [(int(chance.integers(4)), int(chance.integers(5, 15)), int(chance.integers(9))) for _ in range(40)]
    mix = mix_of(0.30, 0.25, 0.20, tolerance=0.05, min_kept=0.01)
    totals = feasible_totals(documents, mix)
    assume(totals)
    domains, n_tokens, values = arrays(documents)
    found = select(domains, n_tokens, values, mix)
    assert all(each.met for each in found.report)
    assert n_tokens[found.keep].sum() >= max(totals) - 2 * 14


@given(st.integers(0, 10_000), QUOTAS, st.sampled_from([0.01, 0.02, 0.05]))
@settings(max_examples=60, deadline=None)
def test_with_small_documents_every_quota_is_met_and_one_more_document_breaks_it(
    seed: int, quotas: list[float], tolerance: float
) -> None:
    chance = np.random.default_rng(seed)
    sizes = chance.integers(300, 2_000, 4)
    domains = np.repeat(np.arange(4), sizes)
    n_tokens, values = chance.integers(1, 20, len(domains)), chance.random(len(domains))
    mix = mix_of(*quotas, tolerance=tolerance, min_kept=0.001)
    found = select(domains, n_tokens, values, mix)
    assert all(each.met for each in found.report)
    wanted = np.array([each.quota for each in found.report])
    sums = np.array([each.n_kept_tokens for each in found.report], float)
    for group in np.flatnonzero(wanted > 0):
        left = np.flatnonzero((domains == group) & ~found.keep)
        if len(left):
            best = left[np.argmax(values[left])]
            more = sums + n_tokens[best] * (np.arange(4) == group)
            assert np.abs(more / more.sum() - wanted).max() > tolerance
