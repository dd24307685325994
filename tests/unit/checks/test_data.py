from __future__ import annotations

import re
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from checks.data import check, report_of
from checks.data_drift import measure_drift
from checks.frames import clean_frame, raw_frame
from checks.judge import judge
from checks.metrics_table import REQUIRED, read_metrics
from lake.bucket import Bucket
from lake.errors import RecipeError, StorageError
from lake.recipe import Recipe, parse_recipe
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
    """Write the metrics in two parts; the dataset that goes with them. Rows may have columns beyond those of `document`."""
    prefix = "datasets/docs/d1/"
    names = list(rows[0]) if rows else REQUIRED
    for part, some in enumerate((rows[::2], rows[1::2])):
        columns = {name: [row[name] for row in some] for name in names}
        bucket.put_table(f"{prefix}metrics/part-{part:05d}.parquet", pa.table(columns))
    return told_of(rows, **changes)


def told_of(rows: list[Row], **changes: Any) -> Dataset:
    """The dataset of these rows."""
    reasons = pd.Series([row["reason"] for row in rows if row["reason"]], dtype=str).value_counts()
    n_kept = len(rows) - int(reasons.sum())
    told = {
        "dataset_id": "d1",
        "model": "docs",
        "drop_id": "drop-1",
        "prefix": "datasets/docs/d1/",
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
    """The whole gate, with its pages."""
    return check(dataset_of(bucket, rows, **changes), recipe, bucket.address, "c1", "reports/docs/check/c1/")


def judged(
    rows: list[Row], recipe: Recipe = RECIPE, before: list[Row] | None = None, then: Row | None = None, **changes: Any
) -> CheckReport:
    """What the gate finds, without files. `before` are rows of an earlier drop, `then` what was told of it."""
    dataset = told_of(rows, **changes)
    history = [told_of(before, **(then or {}))] if before else []
    metrics, earlier = pd.DataFrame(rows), pd.DataFrame([row for row in before or () if row["reason"] is None])
    drift = measure_drift(metrics, dataset, earlier, history, recipe.check)
    return report_of(dataset, judge(metrics, dataset, recipe, drift), drift.skipped, "c1", "reports/")


def recipe_of(check: str = "{}", prepare: str = "{}") -> Recipe:
    return parse_recipe(f"name: docs\ncheck: {check}\nprepare: {prepare}", "docs.yaml")


def test_a_good_drop_passes_and_leaves_pages(bucket: Bucket) -> None:
    rejects = [rejected(1000 + n, reason) for n, reason in enumerate(["too_short", "near_duplicate"] * 40)]
    report = checked(bucket, [*documents(), *rejects])
    assert report.passed, report.failures
    assert (report.failures, report.warnings) == ((), ())
    assert report.suites == {"raw": {"met": 10}, "clean": {"met": 14}}
    assert report.skipped == ("drift: this is the first drop",)
    assert report.n_expectations == 24
    assert report.data_docs_key == "reports/docs/check/c1/validation.html"
    assert {ref.key for ref in bucket.list("reports/")} == {
        f"reports/docs/check/c1/{name}" for name in ("validation.html", "suite.html", "report.md", "report.png")
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
        "rate of documents rejected for other reasons: expected at most 0.6, got 0.75 (too_short 75)",
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
def test_every_expectation_can_fail_and_says_what_it_got(name: str) -> None:
    drop, told = FAILING[name]
    report = judged(**drop)
    assert not report.passed
    assert report.failures == (told,)


def test_what_cleaning_may_do_now_and_then_is_allowed() -> None:
    assert judged(changed(0.09, lang="de")).passed


def test_a_recipe_without_languages_expects_none() -> None:
    prepare = RECIPE.prepare.model_copy(update={"languages": ()})
    report = judged(changed(0.5, lang="de"), RECIPE.model_copy(update={"prepare": prepare}))
    assert report.passed
    assert report.n_expectations == 22


def test_a_small_drop_may_lack_a_split() -> None:
    report = judged(documents(30), n_documents={"train": 30})
    assert report.passed, report.failures


def test_a_drop_of_nothing_fails_in_words() -> None:
    report = judged([], n_documents={})
    assert not report.passed
    assert "kept documents: expected at least 20, got 0" in report.failures
    assert "median length: expected at least 20 words, got none, as no document was kept" in report.failures


def test_a_drop_of_rejects_alone_fails_in_words() -> None:
    report = judged([rejected(n, "too_short") for n in range(30)], n_documents={})
    assert "kept documents: expected at least 20, got 0" in report.failures
    assert "rate of documents rejected for other reasons: expected at most 0.6, got 1 (too_short 30)" in report.failures


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
    assert "23 of 24 expectations met" in summary
    assert '<li class="failed">✗ 95th percentile of length: expected at most 5000 words, got 9000</li>' in summary


def test_metrics_of_all_parts_are_read(bucket: Bucket) -> None:
    rows = [*documents(5), rejected(9, "too_short")]
    dataset = dataset_of(bucket, rows)
    frame = read_metrics(bucket, dataset)
    assert sorted(frame["id"]) == sorted(row["id"] for row in rows)
    assert set(frame.columns) == set(REQUIRED)
    assert frame.loc[frame["reason"].notna(), "id"].tolist() == ["doc-9"]


def test_damaged_metrics_are_named(bucket: Bucket) -> None:
    dataset = dataset_of(bucket, documents(30))
    bucket.put("datasets/docs/d1/metrics/part-00001.parquet", b"PAR1 not quite")
    with pytest.raises(StorageError, match=r"metrics/part-00001.parquet: expected a Parquet file"):
        check(dataset, RECIPE, bucket.address, "c1", "reports/docs/check/c1/")


def test_missing_columns_are_named(bucket: Bucket) -> None:
    dataset = dataset_of(bucket, documents(30))
    table = bucket.get_table("datasets/docs/d1/metrics/part-00001.parquet").drop_columns(["n_words", "lang"])
    bucket.put_table("datasets/docs/d1/metrics/part-00001.parquet", table)
    report = check(dataset, RECIPE, bucket.address, "c1", "reports/docs/check/c1/")
    assert f"metrics: expected the columns {', '.join(REQUIRED)}, got none called lang, n_words" in report.failures


def test_words_where_numbers_belong_are_named(bucket: Bucket) -> None:
    dataset = dataset_of(bucket, documents(30))
    table = bucket.get_table("datasets/docs/d1/metrics/part-00001.parquet")
    place = table.schema.get_field_index("n_words")
    words = pa.array(["many"] * len(table))
    bucket.put_table("datasets/docs/d1/metrics/part-00001.parquet", table.set_column(place, "n_words", words))
    report = check(dataset, RECIPE, bucket.address, "c1", "reports/docs/check/c1/")
    assert [told.partition(", got")[0] for told in report.failures] == ["metrics column n_words: expected numbers"]


def test_only_kept_documents_are_judged_as_kept(bucket: Bucket) -> None:
    dataset = dataset_of(bucket, [document(1), rejected(2, "too_short")])
    metrics = read_metrics(bucket, dataset)
    clean = clean_frame(metrics, dataset, RECIPE)
    assert (clean["id"].tolist(), clean["kept"].tolist()) == (["doc-1"], [1])
    assert raw_frame(metrics, dataset, RECIPE)["reject_rate"].tolist() == [0.5, 0.5]


def unreadable(number: int) -> Row:
    return rejected(number, "bad_json") | {"lang": ""}


WITH_DOMAINS = "{mix: {domains: {wiki: {sources: ['w/*']}, code: {sources: ['c/*']}}, quotas: {wiki: 0.5}}}"


def modern(n: int = N_DOCUMENTS, **changes: Any) -> list[Row]:
    """Documents with the columns that came later; half of the tokens are of domain wiki."""
    return [
        document(k) | {"place_id": f"p{k}", "domain": ("wiki", "code")[k % 2], "n_tokens": 150 + k // 2 % 60} | changes
        for k in range(n)
    ]


# What is only warned of by default: recipe, drop, and what is told.
WARNING: dict[str, tuple[Recipe, dict[str, Any], str]] = {
    "unreadable": (
        recipe_of("{max_reject_rate: 1}"),
        {"rows": [*documents(25), *map(unreadable, range(1000, 1075))]},
        "rate of what is not readable: expected at most 0.5, got 0.75 (bad_json 75)",
    ),
    "short": (
        recipe_of("{max_reject_rate: 1}"),
        {"rows": [*documents(25), *(rejected(n, "too_short") | {"lang": "en"} for n in range(1000, 1075))]},
        "rate of documents empty or too short: expected at most 0.5, got 0.75 (too_short 75)",
    ),
    "foreign": (
        recipe_of("{max_reject_rate: 1}"),
        {"rows": [*documents(25), *(rejected(n, "wrong_language") | {"lang": "de"} for n in range(1000, 1075))]},
        "rate of documents read in other languages than en: expected at most 0.5, got 0.75",
    ),
    "given ids": (
        RECIPE,
        {"rows": [row | {"id": "same"} for row in modern(3)] + modern()[3:]},
        "given ids: expected every id once, got 3 of 300 others, such as 'same', 'same', 'same'",
    ),
    "median tokens": (RECIPE, {"rows": modern(n_tokens=5)}, "median length: expected at least 20 tokens, got 5"),
    "p95 tokens": (
        RECIPE,
        {"rows": modern(n_tokens=20_000)},
        "95th percentile of length: expected at most 10000 tokens, got 20000",
    ),
    "one domain": (
        recipe_of("{max_domain_share: 0.4}"),
        {"rows": modern()},
        "share of the largest domain: expected at most 0.4, got 0.5",
    ),
    "quota": (
        recipe_of(prepare=WITH_DOMAINS),
        {"rows": modern(domain="code")},
        "share of domain wiki: expected 50.0% of the tokens, give or take 2.0%, got 0",
    ),
}


@pytest.mark.parametrize("name", WARNING)
def test_a_warning_is_told_and_lets_the_drop_pass(name: str) -> None:
    recipe, drop, told = WARNING[name]
    report = judged(recipe=recipe, **drop)
    assert (report.passed, report.failures, report.warnings) == (True, (), (told,))
    assert sum(counts.get("warned", 0) for counts in report.suites.values()) == 1


def test_what_is_too_short_speaks_no_language() -> None:
    rows = [*documents(25), *(rejected(n, "too_short") | {"lang": "pcm"} for n in range(1000, 1075))]
    told = judged(rows, recipe_of("{max_reject_rate: 1}")).warnings
    assert told == ("rate of documents empty or too short: expected at most 0.5, got 0.75 (too_short 75)",)


def test_severity_is_the_recipes() -> None:
    strict = recipe_of("{severity: {median_tokens: fail, given_ids: fail}}")
    assert len(judged(modern(n_tokens=5), strict).failures) == 1
    lenient = recipe_of("{min_documents: 1000, severity: {documents: warn}}")
    report = judged(documents(), lenient)
    assert report.passed
    assert report.warnings == ("kept documents: expected at least 1000, got 300",)


def test_a_name_that_is_none_is_refused_with_those_that_are() -> None:
    with pytest.raises(RecipeError, match=r"check.severity: expected names among metrics_columns, .*, not dupes"):
        recipe_of("{severity: {dupes: warn}}")
    with pytest.raises(RecipeError, match=r"check.severity.letters: expected .*'warn' or 'fail'"):
        recipe_of("{severity: {letters: block}}")
    assert recipe_of("{severity: {letters: warn}}").check.severity_of("letters") == "warn"


def test_quotas_that_are_met_within_their_tolerance_pass() -> None:
    report = judged(modern(), recipe_of(prepare=WITH_DOMAINS))
    assert (report.failures, report.warnings) == ((), ())


def test_a_place_can_be_read_but_once() -> None:
    report = judged([*modern()[:-1], modern(1)[0] | {"id": "another"}])
    assert report.failures == ("document ids: expected every id once, got 2 of 300 others, such as 'p0', 'p0'",)


def test_the_rate_of_a_reason_can_be_bound() -> None:
    rows = [*documents(90), *(rejected(n, "too_short") for n in range(1000, 1010))]
    report = judged(rows, recipe_of("{max_reason_rate: {too_short: 0.05, bad_json: 0}}"))
    assert report.failures == ("rate of too_short: expected at most 0.05, got 0.1",)


@pytest.mark.parametrize(("wanted", "share"), [("title", 0.5), ("views:string", 0), ("a:b", 0.9), ("nix", 0)])
def test_the_inputs_columns_can_be_required(wanted: str, share: float) -> None:
    columns = {"text:string": 300, "title:string": 150, "views:int": 300, "a:b:string": 270}
    report = judged(documents(), recipe_of(f"{{required_columns: ['{wanted}', 'text', 'views:int']}}"), columns=columns)
    assert [told.partition(" (")[0] for told in report.failures] == [
        f"share of records with column {wanted}: expected at least 0.95, got {share:g}"
    ]


def test_the_same_again_has_not_drifted() -> None:
    report = judged(modern(), before=modern(250))
    assert report.suites["drift"] == {"met": 4}
    assert report.skipped == ("schema: the input's columns are not known of both sides",)


DRIFTED: dict[str, tuple[dict[str, Any], str]] = {
    "length": ({"rows": modern(n_tokens=300)}, "drift of lengths (PSI): expected at most 0.25"),
    "language": (
        {"rows": modern()[:200] + [row | {"lang": "de"} for row in modern()[200:]]},
        "drift of languages (PSI): expected at most 0.25",
    ),
    "domain": ({"rows": modern(domain="law")}, "drift of domains (PSI): expected at most 0.25"),
    "rejects": (
        {"rows": modern() + [row | {"reason": "repetitive", "id": f"r{n}"} for n, row in enumerate(modern(120))]},
        "change of the reject rate: expected at most 0.2, got 0.285714",
    ),
    "new": (
        {"rows": modern(), "columns": {"text:string": 300, "views:int": 300, "extra:string": 300}},
        "input columns that no earlier drop had: expected at most 0, got 1 (extra)",
    ),
    "missing": (
        {"rows": modern(), "columns": {"text:string": 300}},
        "input columns that every earlier drop had and this one lacks: expected at most 0, got 1 (views)",
    ),
    "types": (
        {"rows": modern(), "columns": {"text:string": 300, "views:int": 10, "views:string": 290}},
        "input columns of another type than before: expected at most 0, got 1 (views (was int, is string))",
    ),
}


@pytest.mark.parametrize("name", DRIFTED)
def test_what_has_moved_is_told(name: str) -> None:
    drop, told = DRIFTED[name]
    columns = {"text:string": 300, "views:int": 300}
    report = judged(before=modern(), then={"columns": columns}, **{"columns": columns, **drop})
    assert report.suites["drift"]["warned"] == 1 and "failed" not in report.suites["drift"]
    assert [warning[: len(told)] for warning in report.warnings] == [told]


def test_too_little_is_not_compared() -> None:
    report = judged(modern(), before=modern(150))
    assert "drift" not in report.suites
    assert report.skipped == ("drift: history has 150 kept documents, at least 200 are compared",)
    lenient = recipe_of("{min_drift_documents: 100}")
    assert "drift" in judged(modern(), lenient, before=modern(150)).suites


def test_datasets_of_the_first_version_are_compared_in_what_they_have() -> None:
    report = judged(modern(), before=documents())
    assert report.suites["drift"] == {"met": 3}
    assert "domain drift: not known of both sides" in report.skipped


def test_the_report_for_the_prefect_ui_holds_no_markup_of_the_data(bucket: Bucket) -> None:
    report = checked(bucket, changed(0.5, lang="[x](http://evil)<img src=a>|"))
    told = bucket.get("reports/docs/check/c1/report.md").decode()
    assert "failed" in told and "language" in told and not report.passed
    unescaped = re.sub(r"\\.", "", told)
    assert not re.search(r"[<>]|\]\(", unescaped) and "evil" in unescaped
    assert bucket.get("reports/docs/check/c1/report.png")[:8] == b"\x89PNG\r\n\x1a\n"
