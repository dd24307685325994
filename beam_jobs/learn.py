"""What a job learns before it starts: from the history, what is usual and what is known; from seeds, the domains."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import TypeVar

from beam_jobs.mix.classifier import Classifier, train
from beam_jobs.mix.distinctiveness import DocumentFrequencies, document_frequencies
from beam_jobs.mix.seeds import seeds_of
from beam_jobs.mix.terms import terms_of
from beam_jobs.part import Part, read_part
from beam_jobs.past import Past
from beam_jobs.perplexity.reference import interleaved, learn
from beam_jobs.perplexity.scorer import HISTORY
from lake.recipe import PrepareRules
from lake.store import Address, Store

T = TypeVar("T")
MAX_PLACES = 16  # that are open at a time, a chunk in memory for each


def learn_perplexity(
    store: Store,
    key: str,
    rules: PrepareRules,
    corpus: Sequence[Past],
    parts: Sequence[Part],
    sources: Mapping[str, Address],
    rejected_share: float,
) -> str | None:
    """Learn what documents are judged by from `corpus`, the newest first, or from the drop itself where there is none.

    Returns the key that it is stored under; None where the recipe does not want it or there is too little to learn from.
    """
    wanted = rules.perplexity
    if wanted is None:
        return None
    judges_itself = not corpus and wanted.model == HISTORY
    if judges_itself and wanted.bootstrap:
        texts = _texts_of(parts, rules, cache(lambda name: sources[name].open()))
    elif judges_itself:
        return None
    else:
        texts = _texts(corpus)
    reference = learn(texts, wanted, judges_itself=judges_itself, rejected_share=rejected_share)
    if reference is None:
        return None
    store.put(key, reference.to_bytes())
    return key


def sum_frequencies(
    store: Store, key: str, rules: PrepareRules, history: Sequence[Past], corpus: Sequence[Past]
) -> str | None:
    """Add up in how many documents of the history each term stands. Returns the key that the sum is stored under.

    An index that was compacted of datasets without a mix has not counted them: then the datasets behind it are read.
    """
    if rules.mix is None or rules.mix.value != "tfidf" or not history:
        return None
    are_counted = all(past.keys("frequencies") or not past.keys("signatures") for past in history)
    total = sum(frequencies_of(history if are_counted else corpus), start=DocumentFrequencies.none())
    store.put_table(key, total.to_table())
    return key


def frequencies_of(history: Sequence[Past]) -> Iterator[DocumentFrequencies]:
    """Those that were stored; of a dataset that was prepared without a mix, they are counted now."""
    for past in history:
        store = past.address.open()
        stored = past.keys("frequencies")
        for key in stored:
            yield DocumentFrequencies.from_table(store.get_table(key), store.uri(key))
        for key in [] if stored else past.keys("shards"):
            yield document_frequencies(terms_of(store.get_table(key, ["text"])["text"].to_pylist()))


def learn_domains(rules: PrepareRules) -> Classifier | None:
    """Train on the recipe's labelled seeds, where there are some."""
    seeds = [] if rules.mix is None else seeds_of(rules.mix)
    return train(seeds, rules.mix.labels) if rules.mix is not None and seeds else None


def _texts(corpus: Sequence[Past]) -> Iterator[str]:
    """Documents of the datasets, the newest first, of each from several places at a time."""
    for past in reversed(corpus):
        keys = past.keys("shards")
        yield from interleaved(_of_shard(past.address.open(), key) for key in _spread(keys))


def _of_shard(store: Store, key: str) -> Iterator[str]:
    yield from store.get_table(key, ["text"])["text"].to_pylist()


def _texts_of(parts: Sequence[Part], rules: PrepareRules, stores: Callable[[str], Store]) -> Iterator[str]:
    """Cleaned documents of the drop before its job, which reads them again, from several places at a time."""
    return interleaved(_of_part(part, rules, stores) for part in _spread(parts))


def _of_part(part: Part, rules: PrepareRules, stores: Callable[[str], Store]) -> Iterator[str]:
    for table in read_part(stores, part, rules):
        yield from table["text"].drop_null().to_pylist()


def _spread(found: Sequence[T]) -> Sequence[T]:
    """Some of them, from the first to the last."""
    return found[:: math.ceil(len(found) / MAX_PLACES)] if found else found
