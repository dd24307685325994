"""Distinctiveness: new subjects first, length does not matter, noise says nothing, tables add up."""

from __future__ import annotations

import math
import random
import string
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from beam_jobs.mix.distinctiveness import (
    MAX_TERM_SHARE,
    N_BUCKETS,
    N_ROWS,
    DocumentFrequencies,
    document_frequencies,
    values,
)
from beam_jobs.mix.terms import Terms, terms_of
from lake.errors import TidemillError

RealTexts = dict[str, tuple[list[str], list[str]]]


def frequencies_of(*texts: str) -> DocumentFrequencies:
    return document_frequencies(terms_of(texts))


def valued(documents: list[str], history: list[str]) -> NDArray[np.float64]:
    terms = terms_of(documents)
    return values(terms, document_frequencies(terms_of(history)), document_frequencies(terms))


def gibberish(seed: int, n_words: int = 300) -> str:
    chance = random.Random(seed)
    return " ".join("".join(chance.choices(string.ascii_lowercase, k=chance.randint(3, 12))) for _ in range(n_words))


def test_the_formula_by_hand() -> None:
    history = frequencies_of("the tide", "the tide", "the mill", "the")
    drop = ["the tide mill", "the the tide", "the", "salt", ""]
    tide, mill = math.log(5 / 3) * (1 - 1 / 4), math.log(5 / 2) * (1 - 1 / 2)
    # All of history has "the": ln(5/5) = 0. No second document has "salt". Of three words none counts twice.
    expected = [(tide + mill) / 3, tide / 2, 0, 0, 0]
    assert values(terms_of(drop), history, frequencies_of(*drop)).tolist() == pytest.approx(expected)


def test_without_history_documents_are_compared_within_the_drop() -> None:
    found = valued(["common words", "common words", "common words rare pair", "rare pair"], [])
    assert found[3] > found[2] > found[1] == found[0] > 0
    assert valued([], []).tolist() == []


def test_a_term_that_was_never_counted_is_worth_nothing() -> None:
    assert values(terms_of(["entirely unseen"]), DocumentFrequencies.none(), DocumentFrequencies.none()).tolist() == [0]
    assert values(terms_of(["entirely unseen"]), frequencies_of("x y"), DocumentFrequencies.none()).tolist() == [0]


@pytest.mark.parametrize("new", ["law", "statistics", "network"])
def test_a_subject_that_history_lacks_outranks_those_it_is_full_of(real_texts: RealTexts, new: str) -> None:
    known = [domain for domain in real_texts if domain != new]
    history = [text for domain in known for text in real_texts[domain][0]]
    drop = [(domain, text) for domain in real_texts for text in real_texts[domain][1][:40]]
    found = valued([text for _, text in drop], history)
    is_new = np.array([domain == new for domain, _ in drop])
    # The probability that a new document outranks a known one (area under the ROC curve).
    wins = (found[is_new][:, None] > found[~is_new][None, :]).mean()
    assert wins > 0.85, wins


def test_the_more_of_a_subject_history_has_the_less_a_document_of_it_is_worth(real_texts: RealTexts) -> None:
    others = real_texts["statistics"][0] + real_texts["network"][0]
    law = real_texts["law"]
    found = [valued(law[1][:40], others + law[0][:n]).mean() for n in (0, 20, 80, 320)]
    assert found == sorted(found, reverse=True)
    assert found[-1] < 0.6 * found[0]


def test_random_strings_rank_below_new_prose(real_texts: RealTexts) -> None:
    history = real_texts["statistics"][0] + real_texts["network"][0]
    prose, noise = real_texts["law"][1][:40], [gibberish(seed) for seed in range(40)]
    found = valued(prose + noise, history)
    assert found[40:].max() < found[:40].min()


def test_random_strings_rank_below_prose_when_the_sketch_is_full(real_texts: RealTexts) -> None:
    # Eight million rare words of a large history: every bucket is in use, and no string looks unseen any more.
    chance = np.random.default_rng(0)
    hashes = chance.integers(0, 2**64, 8_000_000, dtype=np.uint64)
    large = document_frequencies(Terms(hashes, np.ones(len(hashes), np.int64), np.array([0, len(hashes)])))
    prose, noise = real_texts["law"][1][:40], [gibberish(seed) for seed in range(40)]
    terms = terms_of(prose + noise)
    common = document_frequencies(terms_of(real_texts["statistics"][0] + real_texts["law"][0]))
    history = DocumentFrequencies(large.counts + 20 * common.counts, 200_000)
    assert history.noise > 5
    found = values(terms, history, document_frequencies(terms))
    assert found[40:].max() < found[:40].min()


def test_a_document_is_not_worth_more_for_being_longer(real_texts: RealTexts) -> None:
    pages = real_texts["law"][1][:64]
    chapters = ["\n".join(pages[start : start + 8]) for start in range(0, 64, 8)]
    history = frequencies_of(*real_texts["statistics"][0], *real_texts["network"][0])
    of_pages, of_chapters = (
        values(terms_of(texts), history, frequencies_of(*pages)).mean() for texts in (pages, chapters)
    )
    assert of_chapters == pytest.approx(of_pages, rel=0.05)


def test_one_rare_word_again_and_again_does_not_decide() -> None:
    plain = " ".join(f"{word} common words of this" for word in ["tide", "mill"] * 10)
    history = [plain] * 50 + ["zyzzyva"]
    once, often = valued([plain + " zyzzyva", plain + " zyzzyva" * 100], history)
    share = MAX_TERM_SHARE / (1 - MAX_TERM_SHARE)  # of the weight that is left when 100 of 200 words count as 10
    assert once < often < once + 2 * share * math.log(60)


def test_frequencies_add_up_and_subtract(real_texts: RealTexts) -> None:
    first, second = real_texts["network"][0][:30], real_texts["law"][0][:30]
    together, both = frequencies_of(*first, *second), frequencies_of(*first) + frequencies_of(*second)
    assert (together.counts == both.counts).all()
    assert together.n_documents == both.n_documents == 60
    erased = together - frequencies_of(*second)
    assert (erased.counts == frequencies_of(*first).counts).all()
    assert erased.n_documents == 30


def test_a_frequency_is_never_below_the_true_one_and_seldom_above(real_texts: RealTexts) -> None:
    terms = terms_of([text for learn, held_out in real_texts.values() for text in (*learn, *held_out)])
    hashes, true = np.unique(terms.hashes, return_counts=True)
    found = document_frequencies(terms).of(hashes)
    assert (found >= true).all()
    assert (found > true).mean() < 0.01


def test_a_table_keeps_what_was_counted(real_texts: RealTexts, tmp_path: Path) -> None:
    counted = frequencies_of(*real_texts["law"][0][:50])
    pq.write_table(counted.to_table(), tmp_path / "terms.parquet", compression="zstd")
    again = DocumentFrequencies.from_table(pq.read_table(tmp_path / "terms.parquet"), "terms.parquet")
    assert (again.counts == counted.counts).all()
    assert again.n_documents == 50
    assert again.counts.shape == (N_ROWS, N_BUCKETS)


def test_a_table_of_another_specification_is_refused() -> None:
    table = frequencies_of("one two").to_table().replace_schema_metadata({b"tidemill.terms": b"v0"})
    with pytest.raises(TidemillError, match="expected document frequencies of specification"):
        DocumentFrequencies.from_table(table, "s3://b/terms.parquet")
    with pytest.raises(TidemillError, match="got none"):
        DocumentFrequencies.from_table(pa.table({"bucket": [1]}), "s3://b/terms.parquet")
