from __future__ import annotations

import re
from datetime import UTC, datetime

import numpy as np
import pytest

from checks.drift import detect, is_confirmed
from checks.embeddings import embed
from lake.bucket import Bucket
from lake.errors import TidemillError
from lake.recipe import Monitoring
from lake.records import DriftVerdict, PredictionLog
from tests.predictions import prediction, questions

RULES = Monitoring(reference_requests=40, window_requests=30, max_p_value=0.005, permutations=500, confirm_windows=2)


def asked(prompts: list[str]) -> list[PredictionLog]:
    return [prediction(number, prompt) for number, prompt in enumerate(prompts)]


REFERENCE = asked(questions("python", 40))


def judged(bucket: Bucket, prompts: list[str], previous: list[DriftVerdict], drift_id: str = "d1") -> DriftVerdict:
    return detect("docs", "v1", REFERENCE, asked(prompts), RULES, previous, bucket.address, drift_id)


def verdict(number: int, drifted: bool, confirmed: bool = False) -> DriftVerdict:
    return DriftVerdict(
        drift_id=f"docs-v1-{number:04d}",
        model="docs",
        version="v1",
        method="mmd_permutation",
        statistic=0.1,
        p_value=0.001 if drifted else 0.5,
        n_reference=40,
        n_current=30,
        drifted=drifted,
        confirmed=confirmed,
        report_key="reports/none.html",
        decided_at=datetime(2030, 5, 1, 12, number, tzinfo=UTC),
    )


def test_other_questions_on_the_same_subject_are_no_drift(bucket: Bucket) -> None:
    found = judged(bucket, questions("python", 30, first=40), [verdict(0, drifted=True)])
    assert found.p_value > 0.05
    assert not found.drifted
    assert not found.confirmed


def test_another_subject_is_drift_and_the_second_window_confirms_it(bucket: Bucket) -> None:
    prompts = questions("python", 15, first=40) + questions("cooking", 15)
    first = judged(bucket, prompts, [verdict(0, drifted=False)], "d1")
    assert first.drifted
    assert not first.confirmed
    assert first.p_value <= 0.005
    assert first.statistic > 0
    assert (first.n_reference, first.n_current) == (40, 30)
    second = judged(bucket, questions("cooking", 30, first=20), [verdict(0, drifted=False), first], "d2")
    assert second.drifted
    assert second.confirmed


def test_a_window_judged_again_does_not_confirm_itself(bucket: Bucket) -> None:
    first = judged(bucket, questions("cooking", 30), [], "d1")
    assert not judged(bucket, questions("cooking", 30), [first], "d1").confirmed


def test_the_report_is_readable_without_a_network(bucket: Bucket) -> None:
    found = judged(bucket, questions("cooking", 30), [])
    assert found.report_key == "reports/docs/drift/d1/report.html"
    page = bucket.get(found.report_key).decode()
    assert "Topic of prompts: MMD of MiniLM embeddings, 500 permutations" in page
    assert "latency_ms" in page
    loads = re.findall(r"""<(?:script|link|img|iframe)\b[^>]*(?:src|href)\s*=\s*["']?((?:https?:)?//[^"'\s>]+)""", page)
    assert loads == []


@pytest.mark.parametrize(("n_reference", "n_current", "which"), [(1, 30, "reference"), (40, 1, "current")])
def test_too_little_traffic_is_refused(bucket: Bucket, n_reference: int, n_current: int, which: str) -> None:
    reference, current = REFERENCE[:n_reference], asked(questions("python", n_current))
    with pytest.raises(TidemillError, match=f"drift d1, {which} window: expected at least 2 requests, got 1"):
        detect("docs", "v1", reference, current, RULES, [], bucket.address, "d1")


@pytest.mark.parametrize(
    ("earlier", "drifted", "confirm_windows", "expected"),
    [
        ([], True, 1, True),
        ([], False, 1, False),
        ([], True, 2, False),
        ([True], True, 2, True),
        ([True], False, 2, False),
        ([True, False], True, 2, False),
        ([False, True], True, 2, True),
        ([True, True], True, 3, True),
        ([True, False, True], True, 3, False),
        ([True], True, 3, False),
    ],
)
def test_drift_is_confirmed_by_consecutive_windows(
    earlier: list[bool], drifted: bool, confirm_windows: int, expected: bool
) -> None:
    previous = [verdict(number, each) for number, each in enumerate(earlier)]
    assert is_confirmed(drifted, previous, confirm_windows) is expected


def test_embeddings_are_unit_vectors_in_the_order_of_the_texts() -> None:
    texts = ["How do I sort a list?", "a" * 2000, "", "How can one order a list?", "The oven is hot."]
    vectors = embed(texts)
    assert vectors.shape == (5, 384)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(5), abs=1e-5)
    alone = np.concatenate([embed([text]) for text in texts])
    assert vectors == pytest.approx(alone, abs=1e-5)
    assert vectors[0] @ vectors[3] > 0.7 > 0.4 > vectors[0] @ vectors[4]


def test_embeddings_are_remembered_and_cannot_be_written() -> None:
    first = embed(["one", "two"])
    assert embed(["one", "two"]) is first
    with pytest.raises(ValueError, match="read-only"):
        first[0, 0] = 1
