from __future__ import annotations

from datetime import UTC, datetime

import pytest

from flows.context import Context
from flows.monitor import confirmed_drift, judge, new_window, windows_due
from lake.bucket import Bucket
from lake.ledger import Ledger
from lake.ledger.versions import Version
from lake.settings import Settings
from tests.predictions import prediction, questions, write_log

RECIPE = """
name: docs
monitoring: {reference_requests: 40, window_requests: 20, permutations: 500, confirm_windows: 2}
"""


@pytest.fixture
def context(settings: Settings, bucket: Bucket, ledger: Ledger) -> Context:
    bucket.put("recipes/docs.yaml", RECIPE.encode())
    return Context(settings)


@pytest.fixture
def champion(ledger: Ledger) -> Version:
    ledger.versions.allocate(model="docs", training_key="k1", reason="drop", dataset_ids=("d1",), parent=None)
    ledger.versions.crown("docs", "v1")
    champion = ledger.versions.champion("docs")
    assert champion is not None
    return champion


def answer(bucket: Bucket, prompts: list[str], first: int, **changes: object) -> None:
    """Log answers of the champion to these prompts; `first` numbers the first request."""
    write_log(bucket, [prediction(first + place, prompt, **changes) for place, prompt in enumerate(prompts)])


def test_without_a_champion_there_is_nothing_to_judge(context: Context, bucket: Bucket) -> None:
    answer(bucket, questions("python", 60), 0)
    assert not new_window(context, "docs")
    assert confirmed_drift(context, "docs") is None


def test_a_window_is_due_once_it_is_complete(context: Context, bucket: Bucket, champion: Version) -> None:
    answer(bucket, questions("python", 59), 0)
    assert not new_window(context, "docs")
    answer(bucket, questions("python", 1), 59)
    assert new_window(context, "docs")
    reference, due = windows_due(context, champion)
    assert [row.request_id for row in reference] == [f"request-{n:05d}" for n in range(40)]
    assert [(number, len(window), window[0].request_id) for number, window in due] == [(0, 20, "request-00040")]


def test_only_what_the_champion_answered_live_counts(context: Context, bucket: Bucket, champion: Version) -> None:
    answer(bucket, questions("python", 59), 0)
    answer(bucket, questions("python", 30), 100, version="v2")
    answer(bucket, questions("python", 30), 200, shadow=True)
    answer(bucket, questions("python", 30), 300, at=datetime(2000, 1, 1, tzinfo=UTC))  # before it was trained
    assert not new_window(context, "docs")


def test_traffic_that_changes_is_confirmed_in_two_windows_and_judged_once(
    context: Context, bucket: Bucket, ledger: Ledger, champion: Version
) -> None:
    answer(bucket, questions("python", 60), 0)
    reference, due = windows_due(context, champion)
    calm = judge(context, champion, reference, due[0][1], due[0][0])
    assert (calm.drift_id, calm.drifted) == ("docs-v1-0000", False)
    assert not new_window(context, "docs")

    answer(bucket, questions("cooking", 40), 60)
    reference, due = windows_due(context, champion)
    assert [number for number, _ in due] == [1, 2]
    first = judge(context, champion, reference, due[0][1], due[0][0])
    assert (first.drifted, first.confirmed) == (True, False)
    assert confirmed_drift(context, "docs") is None
    second = judge(context, champion, reference, due[1][1], due[1][0])
    assert (second.drifted, second.confirmed) == (True, True)
    assert confirmed_drift(context, "docs") == second
    assert ledger.drift_windows.verdicts("docs", "v1") == [calm, first, second]
    assert bucket.exists(second.report_key)
    assert not new_window(context, "docs")


def test_a_calm_window_ends_a_confirmation(context: Context, bucket: Bucket, champion: Version) -> None:
    answer(bucket, questions("python", 40) + questions("cooking", 40) + questions("python", 20, first=40), 0)
    reference, due = windows_due(context, champion)
    assert [number for number, _ in due] == [1, 2]  # as many as confirm drift: window 0 is passed over
    assert judge(context, champion, reference, due[0][1], 1).drifted
    assert not judge(context, champion, reference, due[1][1], 2).drifted
    assert confirmed_drift(context, "docs") is None


def test_a_new_champion_has_a_reference_of_its_own(
    context: Context, bucket: Bucket, ledger: Ledger, champion: Version
) -> None:
    answer(bucket, questions("python", 60), 0)
    ledger.versions.allocate(model="docs", training_key="k2", reason="drop", dataset_ids=("d2",), parent="v1")
    ledger.versions.crown("docs", "v2")
    assert not new_window(context, "docs")
    answer(bucket, questions("cooking", 60), 60, version="v2")
    now = ledger.versions.champion("docs")
    assert now is not None
    reference, due = windows_due(context, now)
    assert {row.version for row in reference} == {"v2"}
    assert [number for number, _ in due] == [0]
