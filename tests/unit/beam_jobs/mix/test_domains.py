"""Domains: the surest rule decides; sources by glob, keywords by whole words, weights and phrases."""

from __future__ import annotations

from typing import Any

import pytest

from beam_jobs.mix.classifier import train
from beam_jobs.mix.domains import DomainRules
from beam_jobs.mix.seeds import Seed
from beam_jobs.mix.terms import terms_of
from lake.recipe import Mix

URI = "s3://lake/inbox/docs/2026/wiki/page.jsonl"
FILLER = " ".join(["nothing"] * 40)


def rules(domains: dict[str, Any], **more: Any) -> DomainRules:
    return DomainRules(Mix.model_validate({"domains": domains, **more}))


@pytest.mark.parametrize(
    ("glob", "matches"),
    [
        ("wiki/*", True),
        ("*.jsonl", True),
        ("page.jsonl", True),
        ("2026/*/page.*", True),
        ("s3://lake/inbox/*", True),
        ("*://*/wiki/*", True),
        ("[v-x]iki/page.json?", True),
        ("wiki", False),
        ("iki/*", False),
        ("WIKI/*", False),
        ("lake/inbox", False),
        ("s3://other/*", False),
        ("page", False),
    ],
)
def test_source_patterns(glob: str, matches: bool) -> None:
    found = rules({"here": {"sources": ["elsewhere/*", glob]}}).domain_of("", URI)
    assert found == ("here" if matches else "other")


@pytest.mark.parametrize(
    ("keywords", "text", "matches"),
    [
        (["tide"], "Tide, TIDE; tide!", True),
        (["tide"], "tide tide", False),
        (["tide"], "tides tides tides tidemill tide_mill", False),
        (["TIDE", "Mill"], "tide mill tide", True),
        ({"tide": 3}, "one tide", True),
        ({"tide": 3, "pool": -1}, "tide pool", False),
        ({"tide": 3, "pool": -1}, "tide tide pool", True),
        (["tide mill"], "a tide mill, a Tide-Mill: tide\nmill", True),
        (["tide mill"], "tide mill tide mill tide mill", True),
        (["tide mill"], "a tide at the mill, tide and mill, mill tide, tide mills", False),
        (["tide-mill", "pool"], "pool tide mill pool", True),
        (["straße"], "STRASSE Straße strasse", True),
    ],
)
def test_keywords_are_whole_words_whatever_their_case(keywords: Any, text: str, matches: bool) -> None:
    assert rules({"sea": {"keywords": keywords}}).domain_of(text, URI) == ("sea" if matches else "other")


def test_a_long_document_needs_more_matches() -> None:
    found = rules({"sea": {"keywords": ["tide"], "min_matches": 2, "min_density": 2}})
    assert found.domain_of(f"tide tide {FILLER}", URI) == "sea"
    assert found.domain_of(f"tide tide {FILLER * 4}", URI) == "other"


def test_the_highest_score_wins_and_of_equals_the_first() -> None:
    found = rules({"sea": {"keywords": ["tide", "mill"]}, "mill": {"keywords": ["mill", "corn"]}})
    assert found.domain_of("mill corn corn", URI) == "mill"
    assert found.domain_of("tide mill tide corn corn", URI) == "sea"


def test_the_surest_rule_decides() -> None:
    mix = Mix.model_validate(
        {
            "domains": {
                "first": {"sources": ["first/*"]},
                "second": {"sources": ["*.txt"], "keywords": ["tide"]},
                "third": {"keywords": {"mill": 3}, "examples": ["corn and flour"]},
                "fourth": {"examples": ["sails and masts"]},
            }
        }
    )
    seeds = [Seed(text, name) for name, domain in mix.domains.items() for text in domain.examples]
    found = DomainRules(mix, train(seeds, mix.labels))
    texts = ["tide tide tide", "mill", "tide tide tide sails", "corn corn flour", "masts and sails", "x", "sails corn"]
    uris = ["s3://b/first/a.txt", "s3://b/a.txt", *["s3://b/a.md"] * 5]
    expected = ["first", "second", "second", "third", "fourth", "other", "other"]
    assert found.domains_of(texts, uris) == expected
    assert found.domains_of(texts, uris, terms_of(texts)) == expected
    assert [found.domain_of(text, uri) for text, uri in zip(texts, uris, strict=True)] == expected
    assert set(expected) <= set(found.labels)


def test_without_domains_everything_is_other() -> None:
    assert DomainRules(Mix()).domains_of(["a", "b"], [URI, URI]) == ["other", "other"]
    assert DomainRules(Mix()).domains_of([], []) == []
