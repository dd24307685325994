"""How much that is new a document tells: its TF-IDF weight against everything that was kept before.

A term is worth the more the fewer documents have it (inverse document frequency), if it is a term at all: one that
stands in a single document of drop and history is noise until a second one confirms it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from beam_jobs.mix.terms import Terms
from lake.errors import TidemillError

# A count-min sketch (Cormode and Muthukrishnan 2005) of two rows: a word seems known only when it collides in both.
N_ROWS, N_BUCKETS = 2, 1 << 20
# No term has more say in its document than this: one that is repeated again and again does not decide alone.
MAX_TERM_SHARE = 0.05
# Of terms that no document has, this share may seem confirmed, as others share their buckets.
_FALSE_CONFIRMATIONS = 0.1
SPECIFICATION = "count-min:2x2^20;xxh3-64;terms:case-folded-words-of-2-to-30-letters;v1"
_SPECIFICATION_KEY, _DOCUMENTS_KEY = b"tidemill.terms", b"tidemill.documents"
_SCHEMA = pa.schema([("bucket", pa.uint32()), ("documents", pa.uint32())])


@dataclass(frozen=True, eq=False)
class DocumentFrequencies:
    """In how many of `n_documents` documents each term stands, at least: int64 `[N_ROWS, N_BUCKETS]`.

    Those of two sets of documents add up to those of both together, and subtract when documents are erased.
    """

    counts: NDArray[np.int64]
    n_documents: int

    @classmethod
    def none(cls) -> DocumentFrequencies:
        return cls(np.zeros((N_ROWS, N_BUCKETS), np.int64), 0)

    def __add__(self, other: DocumentFrequencies) -> DocumentFrequencies:
        return DocumentFrequencies(self.counts + other.counts, self.n_documents + other.n_documents)

    def __sub__(self, other: DocumentFrequencies) -> DocumentFrequencies:
        left = np.maximum(self.counts - other.counts, 0)
        return DocumentFrequencies(left, max(self.n_documents - other.n_documents, 0))

    def of(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Documents by term: int64 `[n_terms]`; never below the true number, seldom above it."""
        rows = [self.counts[row, bucket] for row, bucket in enumerate(_buckets(hashes))]
        return np.asarray(np.minimum.reduce(rows), np.int64)

    @cached_property
    def noise(self) -> float:
        """What `of` says of most terms that no document has: 0 until the sketch fills up.

        Of both rows such a term gets the smaller count, which is above x as often as one row's is, squared.
        """
        return float(np.quantile(self.counts, 1 - _FALSE_CONFIRMATIONS ** (1 / N_ROWS)))

    def to_table(self) -> pa.Table:
        """The buckets that are not empty, as stored with a dataset."""
        flat = self.counts.ravel()
        filled = np.flatnonzero(flat)
        schema = _SCHEMA.with_metadata(
            {_SPECIFICATION_KEY: SPECIFICATION.encode(), _DOCUMENTS_KEY: str(self.n_documents).encode()}
        )
        return pa.table([filled.astype(np.uint32), flat[filled].astype(np.uint32)], schema=schema)

    @classmethod
    def from_table(cls, table: pa.Table, where: str) -> DocumentFrequencies:
        """What `to_table` gave. Raises TidemillError when terms were counted another way: sums would be noise."""
        metadata = table.schema.metadata or {}
        found = metadata.get(_SPECIFICATION_KEY, b"none").decode()
        if found != SPECIFICATION:
            raise TidemillError(
                where,
                expected=f"document frequencies of specification {SPECIFICATION}",
                got=found,
                remedy="prepare the model's data again under a new model name, so that its terms are counted anew",
            )
        counts = np.zeros(N_ROWS * N_BUCKETS, np.int64)
        counts[table["bucket"].to_numpy()] = table["documents"].to_numpy()
        return cls(counts.reshape(N_ROWS, N_BUCKETS), int(metadata[_DOCUMENTS_KEY]))


def document_frequencies(terms: Terms) -> DocumentFrequencies:
    """Count in how many of these documents each term stands."""
    counts = np.stack([np.bincount(bucket, minlength=N_BUCKETS) for bucket in _buckets(terms.hashes)])
    return DocumentFrequencies(counts.astype(np.int64), terms.n_documents)


def values(terms: Terms, history: DocumentFrequencies, drop: DocumentFrequencies) -> NDArray[np.float64]:
    """The distinctiveness of each document, in nats: float64 `[n_documents]`, 0 for documents without terms.

    The value is the sum of tf · idf over a document's terms, divided by the sum of tf, where

        idf = ln((1 + N) / (1 + df)) · max(0, 1 - (1 + noise) / confirmations)

    N and df are of the history (of the drop itself, where there is no history yet). The logarithm is the smoothed
    inverse document frequency, and the sums the length-normalised TF-IDF weight of Salton and Buckley (1988) and Manning,
    Raghavan and Schütze (2008, chapter 6). tf is linear up to MAX_TERM_SHARE of the document: with 1 + ln tf, eight pages
    together are worth 0.6 nats more than each of them, as much as a new subject.

    The other factor is 0 for a term that none but this document has, and grows with the documents of history and drop
    that confirm it: strings at random are the rarest of all, and say nothing (Luhn 1958 cuts off the rarest words, too).
    """
    reference = history if history.n_documents else drop
    both = history + drop
    confirmations = np.maximum(both.of(terms.hashes), 1)  # the document itself, should it not have been counted
    confirmed = (1 - (1 + both.noise) / confirmations).clip(min=0)
    idf = np.log((1 + reference.n_documents) / (1 + reference.of(terms.hashes))).clip(min=0) * confirmed
    n_words = terms.sums(terms.counts.astype(np.float64))
    most = np.maximum(1.0, MAX_TERM_SHARE * n_words)[terms.documents]
    tf = np.minimum(terms.counts, most)
    return np.divide(terms.sums(tf * idf), terms.sums(tf), out=np.zeros(terms.n_documents), where=n_words > 0)


def _buckets(hashes: NDArray[np.uint64]) -> list[NDArray[np.int64]]:
    """The bucket of each term in each row of the sketch: disjoint bits of one hash serve as independent hashes."""
    bits = N_BUCKETS.bit_length() - 1
    return [((hashes >> np.uint64(row * bits)) & np.uint64(N_BUCKETS - 1)).astype(np.int64) for row in range(N_ROWS)]
