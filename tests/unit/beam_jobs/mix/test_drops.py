"""The whole way of a drop, part by part, and of what it leaves for the next one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from beam_jobs.mix.distinctiveness import DocumentFrequencies, document_frequencies
from beam_jobs.mix.domains import DomainRules
from beam_jobs.mix.quota import Selection, select
from beam_jobs.mix.terms import terms_of
from beam_jobs.mix.tokens import count_tokens
from beam_jobs.mix.value import document_values
from beam_jobs.simhash import fingerprint
from lake.recipe import Mix

RealTexts = dict[str, tuple[list[str], list[str]]]
MIX = Mix.model_validate(
    {
        "domains": {
            "law": {"keywords": ["license", "copyright", "liability", "warranty", "patent"]},
            "network": {"sources": ["network/*"]},
        },
        "quotas": {"law": 0.5, "network": 0.3},
        "tolerance": 0.03,
    }
)


def chosen(
    texts: list[str], uris: list[str], history: DocumentFrequencies, part_size: int
) -> tuple[list[str], NDArray[np.int64], NDArray[np.float64], Selection]:
    """Domains, tokens, values and selection of a drop that is worked on in parts."""
    rules = DomainRules(MIX)
    parts = [slice(start, start + part_size) for start in range(0, len(texts), part_size)]
    domains, n_tokens = [], []
    drop = DocumentFrequencies.none()
    for part in parts:  # first pass
        domains += rules.domains_of(texts[part], uris[part])
        n_tokens.append(count_tokens(texts[part], MIX))
        drop += document_frequencies(terms_of(texts[part]))
    values = []
    for part in parts:  # second pass, with the terms of all
        exact = np.array([fingerprint(text).exact for text in texts[part]], np.uint64)
        values.append(document_values(MIX, terms_of(texts[part]), history, drop, exact))
    numbers = np.array([MIX.labels.index(domain) for domain in domains])
    tokens, worth = np.concatenate(n_tokens), np.concatenate(values)
    return domains, tokens, worth, select(numbers, tokens, worth, MIX)


def drop_of(real_texts: RealTexts, half: int, **sizes: int) -> tuple[list[str], list[str]]:
    rows = [
        (text, f"s3://b/inbox/m/{domain}/x.txt") for domain, n in sizes.items() for text in real_texts[domain][half][:n]
    ]
    return [text for text, _ in rows], [uri for _, uri in rows]


def test_the_same_documents_are_chosen_however_the_drop_is_cut_into_parts(real_texts: RealTexts) -> None:
    texts, uris = drop_of(real_texts, 0, law=120, network=60, statistics=60)
    whole, pieces = (chosen(texts, uris, DocumentFrequencies.none(), size) for size in (1_000, 17))
    assert whole[0] == pieces[0]
    assert (whole[2] == pieces[2]).all()
    assert (whole[3].keep == pieces[3].keep).all()


def test_shares_hold_and_what_was_left_out_comes_first_in_the_next_drop(real_texts: RealTexts) -> None:
    texts, uris = drop_of(real_texts, 0, law=120, network=12, statistics=30)
    domains, n_tokens, _, first = chosen(texts, uris, DocumentFrequencies.none(), 50)
    assert all(each.met for each in first.report)
    kept = n_tokens[first.keep & (np.array(domains) == "network")].sum() / n_tokens[first.keep].sum()
    assert abs(kept - 0.3) <= 0.03
    assert not (~first.keep & ~first.reserve).any()

    seen = document_frequencies(terms_of([text for text, keep in zip(texts, first.keep, strict=True) if keep]))
    left = [(text, uri) for text, uri, keep in zip(texts, uris, first.reserve, strict=True) if keep]
    new_texts, new_uris = drop_of(real_texts, 1, network=60)
    domains, _, _, second = chosen([t for t, _ in left] + new_texts, [u for _, u in left] + new_uris, seen, 50)
    assert all(each.met for each in second.report)
    is_law = np.array(domains) == "law"
    assert second.keep[: len(left)][is_law[: len(left)]].sum() > 20  # there was no law in the drop itself
