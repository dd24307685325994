from __future__ import annotations

import re
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from checks.data import METRICS, check, metrics_frame, read_metrics
from lake.bucket import Bucket, BucketAddress
from lake.errors import StorageError
from lake.recipe import Recipe
from lake.records import CheckReport, Dataset

RECIPE = Recipe(name="docs")
N_DOCUMENTS = 300  # enough that every split is expected to have some

Row = dict[str, Any]


def document(number: int, **changes: Any) -> Row:
    """Metrics of one kept document that meets every expectation."""
    return {
        "id": f"doc-{number}",
        "reason": None,
        "n_characters": 900,
        "n_words": 120 + number % 60,
        "lang": "en",
        "letters_share": 0.8,
        "repetition": 0.1,
        "pii_leaks": 0,
        **changes,
    }


def rejected(number: int, reason: str) -> Row:
    """Metrics of a rejected document, none of which a kept one might have."""
    return document(number) | {
        "reason": reason,
        "n_characters": 3,
        "n_words": 1,
        "lang": "xx",
        "letters_share": 0.0,
        "repetition": 1.0,
        "pii_leaks": 7,
    }


def documents(n: int = N_DOCUMENTS) -> list[Row]:
    return [document(number) for number in range(n)]


def changed(share: float, **changes: Any) -> list[Row]:
    """Documents of which the given share has other values."""
    n = round(N_DOCUMENTS * share)
    return [document(number, **(changes if number < n else {})) for number in range(N_DOCUMENTS)]


def dataset_of(bucket: Bucket, rows: list[Row], **changes: Any) -> Dataset:
    """Write the metrics in two parts; the dataset that goes with them."""
    prefix = "datasets/docs/d1/"
    for part, some in enumerate((rows[::2], rows[1::2])):
        columns = {name: [row[name] for row in some] for name in METRICS}
        bucket.put_table(f"{prefix}metrics/part-{part:05d}.parquet", pa.table(columns))
    reasons = pd.Series([row["reason"] for row in rows if row["reason"]], dtype=str).value_counts()
    n_kept = len(rows) - int(reasons.sum())
    told = {
        "dataset_id": "d1",
        "model": "docs",
        "drop_id": "drop-1",
        "prefix": prefix,
        "history_ids": (),
        "n_objects": 1,
        "n_read": len(rows),
        "n_kept": n_kept,
        "rejected": {str(reason): int(count) for reason, count in reasons.items()},
        "redacted": {},
        "n_documents": {"train": max(1, n_kept - 20), "validation": 10, "test": 10},
        "n_characters": {"train": 1, "validation": 1, "test": 1},
    }
    return Dataset.model_validate(told | changes)


def checked(bucket: Bucket, rows: list[Row], recipe: Recipe = RECIPE, **changes: Any) -> CheckReport:
    return check(dataset_of(bucket, rows, **changes), recipe, bucket.address, "c1", "reports/docs/check/c1/")


def test_a_good_drop_passes_and_leaves_pages(bucket: Bucket) -> None:
    rejects = [rejected(1000 + n, reason) for n, reason in enumerate(["too_short", "near_duplicate"] * 40)]
    report = checked(bucket, [*documents(), *rejects])
    assert report.passed, report.failures
    assert report.failures == ()
    assert report.n_expectations == 15
    assert report.data_docs_key == "reports/docs/check/c1/validation.html"
    assert {ref.key for ref in bucket.list("reports/")} == {
        f"reports/docs/check/c1/{name}.html" for name in ("validation", "suite")
    }


# One drop for every expectation: what is wrong with it, and what is told.
FAILING: dict[str, tuple[dict[str, Any], str]] = {
    "kept documents": ({"rows": documents(10)}, "kept documents: expected at least 20, got 10"),
    "metrics": (
        {"rows": documents(), "n_kept": 310},
        "documents with metrics: expected 310, one for each kept document, got 300",
    ),
    "ids": (
        {"rows": changed(0.01, id="doc-77")},
        "document ids: expected every id once, got 4 of 300 others, such as 'doc-77', 'doc-77', 'doc-77'",
    ),
    "empty": (
        {"rows": changed(0.01, n_characters=0)},
        "document length: expected 1 to 40000 characters, got 3 of 300 others, such as 0.0, 0.0, 0.0",
    ),
    "long": (
        {"rows": changed(0.01, n_characters=50_000)},
        "document length: expected 1 to 40000 characters, got 3 of 300 others, such as 50000.0, 50000.0, 50000.0",
    ),
    "median": ({"rows": changed(0.6, n_words=5)}, "median length: expected at least 20 words, got 5"),
    "p95": ({"rows": changed(0.1, n_words=9_000)}, "95th percentile of length: expected at most 5000 words, got 9000"),
    "duplicates": (
        {"rows": documents(25) + [rejected(n, "exact_duplicate") for n in range(1000, 1375)]},
        "duplicate rate: expected at most 0.9, got 0.9375",
    ),
    "rejects": (
        {"rows": documents(25) + [rejected(n, "too_short") for n in range(1000, 1075)]},
        "rate of documents rejected for other reasons: expected at most 0.6, got 0.75",
    ),
    "leaks": (
        {"rows": changed(0.1, pii_leaks=2)},
        "documents with personal data left in: expected a rate of at most 0.0, got 0.1",
    ),
    "letters": ({"rows": changed(0.01, letters_share=0.25)}, "share of letters: expected at least 0.5, got 0.25"),
    "repetition": (
        {"rows": changed(0.01, repetition=0.75)},
        "share of repeated text: expected at most 0.5, got 0.75",
    ),
    "train": (
        {"rows": documents(), "n_documents": {"train": 0, "validation": 10, "test": 10}},
        "documents in split train: expected at least 1, got 0",
    ),
    "validation": (
        {"rows": documents(), "n_documents": {"train": 290, "test": 10}},
        "documents in split validation: expected at least 1, got 0",
    ),
    "test": (
        {"rows": documents(), "n_documents": {"train": 290, "validation": 10}},
        "documents in split test: expected at least 1, got 0",
    ),
    "language": (
        {"rows": changed(0.2, lang="de")},
        "language: expected en for at least 90% of documents, got 60 of 300 others, such as 'de', 'de', 'de'",
    ),
}


@pytest.mark.parametrize("name", FAILING)
def test_every_expectation_can_fail_and_says_what_it_got(bucket: Bucket, name: str) -> None:
    drop, told = FAILING[name]
    report = checked(bucket, **drop)
    assert not report.passed
    assert report.failures == (told,)


def test_what_cleaning_may_do_now_and_then_is_allowed(bucket: Bucket) -> None:
    assert checked(bucket, changed(0.09, lang="de")).passed


def test_a_recipe_without_languages_expects_none(bucket: Bucket) -> None:
    prepare = RECIPE.prepare.model_copy(update={"languages": ()})
    report = checked(bucket, changed(0.5, lang="de"), RECIPE.model_copy(update={"prepare": prepare}))
    assert report.passed
    assert report.n_expectations == 14


def test_a_small_drop_may_lack_a_split(bucket: Bucket) -> None:
    report = checked(bucket, documents(30), n_documents={"train": 30})
    assert report.passed, report.failures


def test_a_drop_of_nothing_fails_in_words(bucket: Bucket) -> None:
    report = checked(bucket, [], n_documents={})
    assert not report.passed
    assert "kept documents: expected at least 20, got 0" in report.failures
    assert "median length: expected at least 20 words, got none, as no document was kept" in report.failures


def test_a_drop_of_rejects_alone_fails_in_words(bucket: Bucket) -> None:
    report = checked(bucket, [rejected(n, "too_short") for n in range(30)], n_documents={})
    assert "kept documents: expected at least 20, got 0" in report.failures
    assert "rate of documents rejected for other reasons: expected at most 0.6, got 1" in report.failures


def test_the_pages_load_nothing_from_elsewhere(bucket: Bucket) -> None:
    checked(bucket, changed(0.1, lang="<script>alert(1)</script>", n_words=9_000))
    for name in ("validation", "suite"):
        page = bucket.get(f"reports/docs/check/c1/{name}.html").decode()
        assert not re.search(r"""(src|href|url\()\s*=?\s*["'(]?\s*(https?:)?//""", page), name
        assert "<script" not in page
        assert "<link" not in page
        assert "@import" not in page
        links = re.findall(r'<a\b[^>]*href="([^"]*)"', page)
        assert [link for link in links if not link.startswith("#")] == [], name
        assert "duplicate rate: expected at most 0.9" in page  # what it is about is still there


def test_the_page_begins_with_a_summary(bucket: Bucket) -> None:
    report = checked(bucket, changed(0.1, n_words=9_000))
    page = bucket.get(report.data_docs_key).decode()
    summary = page[: page.index("Expectation Validation Result")]
    assert "<h1>docs, dataset d1</h1>" in summary
    assert "14 of 15 expectations met" in summary
    assert "<li>95th percentile of length: expected at most 5000 words, got 9000</li>" in summary


def test_metrics_of_all_parts_are_read(bucket: Bucket, address: BucketAddress) -> None:
    rows = [*documents(5), rejected(9, "too_short")]
    dataset = dataset_of(bucket, rows)
    frame = read_metrics(bucket, dataset)
    assert sorted(frame["id"]) == sorted(row["id"] for row in rows)
    assert list(frame.columns) == METRICS
    assert frame.loc[frame["reason"].notna(), "id"].tolist() == ["doc-9"]


def test_damaged_metrics_are_named(bucket: Bucket) -> None:
    dataset = dataset_of(bucket, documents(30))
    bucket.put("datasets/docs/d1/metrics/part-00001.parquet", b"PAR1 not quite")
    with pytest.raises(StorageError, match=r"metrics/part-00001.parquet: expected Parquet with the columns id, reason"):
        check(dataset, RECIPE, bucket.address, "c1", "reports/docs/check/c1/")


def test_missing_columns_are_named(bucket: Bucket) -> None:
    dataset = dataset_of(bucket, documents(30))
    bucket.put_table("datasets/docs/d1/metrics/part-00001.parquet", pa.table({"id": ["a"]}))
    with pytest.raises(StorageError, match=r"metrics/part-00001.parquet: expected Parquet with the columns id, reason"):
        check(dataset, RECIPE, bucket.address, "c1", "reports/docs/check/c1/")


def test_only_kept_documents_are_judged(bucket: Bucket) -> None:
    dataset = dataset_of(bucket, [document(1), rejected(2, "too_short")])
    frame = metrics_frame(read_metrics(bucket, dataset), dataset).set_index("reason", drop=False)
    assert frame["kept"].tolist() == [1, 0]
    blanked = frame[frame["kept"] == 0].iloc[0]
    assert blanked[["n_characters", "n_words", "letters_share", "repetition", "leaks", "id", "lang"]].isna().all()
    assert frame["reject_rate"].tolist() == [0.5, 0.5]
