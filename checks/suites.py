"""The Great Expectations suites of one drop: what was read, what is kept, and what has changed since earlier drops."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import great_expectations.expectations as gxe
import pandas as pd
from great_expectations.expectations.expectation import Expectation

from checks.expectations import Named
from checks.metrics_table import NUMBERS, REQUIRED
from lake.recipe import Recipe

# A split by stable hash may come out empty by chance: with 10 documents expected, in e^-10 (1 in 22,000) of drops.
_EXPECTED_DOCUMENTS = 10
# Dead letters, and the odd record that lacks a field, are no other schema.
_COLUMN_SHARE = 0.95


def raw_suite(recipe: Recipe, frame: pd.DataFrame) -> list[Expectation]:
    """What the recipe expects of `checks.frames.raw_frame`."""
    rules, make = recipe.check, Named(recipe.check)
    expectations = [
        make(
            "metrics_columns",
            gxe.ExpectTableColumnsToMatchSet,
            f"metrics: expected the columns {', '.join(REQUIRED)}",
            column_set=list(REQUIRED),
            exact_match=False,
        ),
        *(
            make(
                "metrics_types",
                gxe.ExpectColumnValuesToBeInTypeList,
                f"metrics column {column}: expected numbers",
                column=column,
                type_list=["int64", "int32", "uint64", "float64", "float32"],
            )
            for column in NUMBERS
            if column in frame and frame[column].notna().any()
        ),
        *(
            make.at_least("input_columns", f"has_{column}", _COLUMN_SHARE, f"share of records with column {column}")
            for column in rules.required_columns
        ),
        make.at_most("unreadable_rate", "unreadable_rate", rules.max_unreadable_rate, "rate of what is not readable"),
        make.at_most("short_rate", "short_rate", rules.max_short_rate, "rate of documents empty or too short"),
        make.at_most(
            "reject_rate", "reject_rate", rules.max_reject_rate, "rate of documents rejected for other reasons"
        ),
        *(
            make.at_most("reason_rate", f"rate_{reason}", bound, f"rate of {reason}")
            for reason, bound in rules.max_reason_rate.items()
        ),
    ]
    if recipe.prepare.languages:
        listed = ", ".join(recipe.prepare.languages)
        what = f"rate of documents read in other languages than {listed}"
        expectations.append(make.at_most("foreign_rate", "foreign_rate", rules.max_foreign_rate, what))
    return expectations


def clean_suite(recipe: Recipe, frame: pd.DataFrame, n_kept: int) -> list[Expectation]:
    """What the recipe expects of `checks.frames.clean_frame`, whatever its task, and then for its task."""
    return [
        *_counts(recipe, n_kept),
        *_ids(recipe, frame),
        *_content(recipe),
        *_mix(recipe, frame),
        *_OF_TASK[recipe.task](recipe, frame),
    ]


def drift_suite(recipe: Recipe, frame: pd.DataFrame) -> list[Expectation]:
    """What the recipe expects of `checks.frames.drift_frame`: of the measures that were taken."""
    rules, make = recipe.check, Named(recipe.check)
    bounds: Mapping[str, tuple[str, float, str]] = {
        "length_psi": ("length_drift", rules.max_psi, "drift of lengths (PSI)"),
        "language_psi": ("language_drift", rules.max_psi, "drift of languages (PSI)"),
        "domain_psi": ("domain_drift", rules.max_psi, "drift of domains (PSI)"),
        "reject_rate_change": ("reject_rate_drift", rules.max_reject_rate_change, "change of the reject rate"),
        "n_new_columns": ("new_columns", 0, "input columns that no earlier drop had"),
        "n_missing_columns": ("missing_columns", 0, "input columns that every earlier drop had and this one lacks"),
        "n_changed_types": ("column_types", 0, "input columns of another type than before"),
    }
    return [
        make.at_most(name, column, bound, what) for column, (name, bound, what) in bounds.items() if column in frame
    ]


def _counts(recipe: Recipe, n_kept: int) -> list[Expectation]:
    rules, make = recipe.check, Named(recipe.check)
    expectations = [
        make.at_least("documents", "n_kept", rules.min_documents, "kept documents"),
        make(
            "complete_metrics",
            gxe.ExpectColumnSumToBeBetween,
            f"documents with metrics: expected {n_kept}, one for each kept document",
            column="kept",
            min_value=n_kept,
            max_value=n_kept,
        ),
        make.at_most("duplicate_rate", "duplicate_rate", rules.max_duplicate_rate, "duplicate rate"),
        make.at_least("splits", "n_train", 1, "documents in split train"),
    ]
    shares = {"validation": recipe.prepare.validation_share, "test": recipe.prepare.test_share}
    expectations += [
        make.at_least("splits", f"n_{split}", 1, f"documents in split {split}")
        for split, share in shares.items()
        if n_kept * share >= _EXPECTED_DOCUMENTS
    ]
    return expectations


def _ids(recipe: Recipe, frame: pd.DataFrame) -> list[Expectation]:
    make, unique = Named(recipe.check), gxe.ExpectColumnValuesToBeUnique
    expectations = [make("place_ids", unique, "document ids: expected every id once", column="place_id")]
    if not frame["place_id"].equals(frame["id"]):
        expectations.append(make("given_ids", unique, "given ids: expected every id once", column="id"))
    return expectations


def _content(recipe: Recipe) -> list[Expectation]:
    rules, prepare, make = recipe.check, recipe.prepare, Named(recipe.check)
    longest = 2 * prepare.max_characters  # the splitter cuts at a paragraph's end, redaction adds placeholders
    expectations = [
        make(
            "characters",
            gxe.ExpectColumnValuesToBeBetween,
            f"document length: expected 1 to {longest} characters",
            column="n_characters",
            min_value=1,
            max_value=longest,
        ),
        make(
            "leak_rate",
            gxe.ExpectColumnMeanToBeBetween,
            f"documents with personal data left in: expected a rate of at most {rules.max_pii_leak_rate}",
            column="leaks",
            max_value=rules.max_pii_leak_rate,
        ),
    ]
    if prepare.languages:
        listed, share = ", ".join(prepare.languages), rules.min_language_share
        expectations.append(
            make(
                "languages",
                gxe.ExpectColumnValuesToBeInSet,
                f"language: expected {listed} for at least {share:.0%} of documents",
                column="lang",
                value_set=list(prepare.languages),
                mostly=share,
            )
        )
    return expectations


def _mix(recipe: Recipe, frame: pd.DataFrame) -> list[Expectation]:
    rules, make = recipe.check, Named(recipe.check)
    expectations = []
    if rules.max_domain_share < 1 and frame["largest_domain_share"].notna().all():
        bound, what = rules.max_domain_share, "share of the largest domain"
        expectations.append(make.at_most("domain_share", "largest_domain_share", bound, what))
    mix = recipe.prepare.mix
    if mix is None:
        return expectations
    return expectations + [
        make(
            "quotas",
            gxe.ExpectColumnMeanToBeBetween,
            f"share of domain {domain}: expected {share:.1%} of the tokens, give or take {mix.tolerance:.1%}",
            column=f"share_{domain}",
            min_value=share - mix.tolerance,
            max_value=share + mix.tolerance,
        )
        for domain, share in mix.quotas.items()
    ]


def _generate(recipe: Recipe, frame: pd.DataFrame) -> list[Expectation]:
    """A causal model learns from running text: long enough, mostly words, and not the same again and again."""
    rules, make = recipe.check, Named(recipe.check)
    median, p95 = rules.min_median_words, rules.max_p95_words
    expectations = [
        make.quantile(
            "median_words", "n_words", 0.5, f"median length: expected at least {median} words", min_value=median
        ),
        make.quantile(
            "p95_words", "n_words", 0.95, f"95th percentile of length: expected at most {p95} words", max_value=p95
        ),
        make.at_least("letters", "letters_share", recipe.prepare.min_letters, "share of letters"),
        make.at_most("repetition", "repetition", recipe.prepare.max_repetition, "share of repeated text"),
    ]
    if "n_tokens" in frame and frame["n_tokens"].notna().any():
        low, high = rules.min_median_tokens, rules.max_p95_tokens
        expectations += [
            make.quantile(
                "median_tokens", "n_tokens", 0.5, f"median length: expected at least {low} tokens", min_value=low
            ),
            make.quantile(
                "p95_tokens",
                "n_tokens",
                0.95,
                f"95th percentile of length: expected at most {high} tokens",
                max_value=high,
            ),
        ]
    return expectations


# Another task adds what it expects of its documents here: a classifier would, of its labels.
_OF_TASK: Mapping[str, Callable[[Recipe, pd.DataFrame], Sequence[Expectation]]] = {"generate": _generate}
