"""Domains learned from seeds: right on files never seen, unsure of what is unlike the seeds, safe to read back."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from safetensors.numpy import save

from beam_jobs.mix.classifier import Classifier, train
from beam_jobs.mix.domains import DomainRules
from beam_jobs.mix.seeds import Seed
from beam_jobs.mix.terms import terms_of
from lake.errors import TidemillError
from lake.recipe import Mix

RealTexts = dict[str, tuple[list[str], list[str]]]
URI = "s3://b/inbox/docs/x.jsonl"
LABELS = ("law", "statistics", "network", "other")
SEEDS = [Seed("the tide rises and the sea falls", "sea"), Seed("the mill grinds corn to flour", "mill")]


def seeds(real_texts: RealTexts, *domains: str, n: int = 40) -> list[Seed]:
    return [Seed(text, domain) for domain in domains for text in real_texts[domain][0][:n]]


def test_held_out_documents_of_three_domains_are_told_apart(real_texts: RealTexts) -> None:
    classifier = train(seeds(real_texts, "law", "statistics", "network"), LABELS)
    assert classifier.labels == ("law", "statistics", "network")
    right, n_sure, n_documents = 0, 0, 0
    for place, domain in enumerate(classifier.labels):
        probabilities = classifier.probabilities(terms_of(real_texts[domain][1]))
        right += int((probabilities.argmax(axis=1) == place).sum())
        n_sure += int((probabilities.max(axis=1) >= 0.6).sum())
        n_documents += len(probabilities)
    assert right / n_documents > 0.97
    assert n_sure / n_documents > 0.9


def test_probabilities_sum_to_one_and_are_even_without_a_known_word() -> None:
    classifier = train(SEEDS, ("sea", "mill"))
    found = classifier.probabilities(terms_of(["sea", "flour", "", "qwertz"]))
    assert found.sum(axis=1) == pytest.approx(np.ones(4))
    assert found[0, 0] > 0.9
    assert found[1, 1] > 0.9
    assert found[2:] == pytest.approx(np.full((2, 2), 0.5))


def test_what_is_unlike_all_seeds_is_other(real_texts: RealTexts) -> None:
    mix = Mix.model_validate({"domains": {"law": {}, "network": {}}, "seeds": ["file:/seeds.jsonl"]})
    rules = DomainRules(mix, train(seeds(real_texts, "law", "network"), mix.labels))
    unknown = ["Młyn miele zboże na drobną mąkę, póki woda się podnosi.", "qwertz uiop asdf ghjkl", "42", ""]
    assert rules.domains_of(unknown, [URI] * 4) == ["other"] * 4


def test_seeds_of_other_keep_a_neighbouring_subject_out(real_texts: RealTexts) -> None:
    # Without them, statistics is most like the documentation of network modules, and surely so.
    mix = Mix.model_validate({"domains": {"law": {}, "network": {}}, "seeds": ["file:/seeds.jsonl"]})
    others = [Seed(text, "other") for text in real_texts["statistics"][0][:40]]
    rules = DomainRules(mix, train(seeds(real_texts, "law", "network") + others, mix.labels))
    for domain, expected in (("statistics", "other"), ("network", "network"), ("law", "law")):
        documents = real_texts[domain][1]
        assert rules.domains_of(documents, [URI] * len(documents)).count(expected) > 0.9 * len(documents), domain


def test_the_smaller_of_uneven_domains_is_still_found(real_texts: RealTexts) -> None:
    classifier = train(seeds(real_texts, "law", n=80) + seeds(real_texts, "network", n=20), LABELS)
    network = classifier.probabilities(terms_of(real_texts["network"][1]))
    assert (network.argmax(axis=1) == classifier.labels.index("network")).mean() > 0.9


def test_the_same_seeds_give_the_same_classifier(real_texts: RealTexts) -> None:
    learned = seeds(real_texts, "law", "network", n=10)
    assert train(learned, LABELS).to_bytes() == train(learned, LABELS).to_bytes()


def test_a_classifier_is_read_back_as_it_was() -> None:
    classifier = train(SEEDS, ("sea", "mill", "other"))
    again = Classifier.from_bytes(classifier.to_bytes(), "classifier.safetensors")
    terms = terms_of(["the sea", "corn", "the mill at sea"])
    assert again.labels == ("sea", "mill")
    assert (again.probabilities(terms) == classifier.probabilities(terms)).all()


class _Ran(Exception):
    pass


class _Runs:
    def __reduce__(self) -> tuple[type[_Ran], tuple[str]]:
        return _Ran, ("unpickled",)


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"\xff" * 64,
        pickle.dumps(_Runs()),
        save({"weights": np.zeros(3, np.float32)}),
        save({"name": np.frombuffer(b"another\nlaw", np.uint8), "idf": np.zeros(3, np.float32)}),
    ],
)
def test_other_bytes_are_refused_and_never_run(packed: bytes) -> None:
    with pytest.raises(TidemillError, match="expected a classifier of xxh3-64"):
        Classifier.from_bytes(packed, "s3://b/work/classifier.safetensors")
