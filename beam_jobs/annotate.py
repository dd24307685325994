"""What models say of cleaned documents: how predictable they are, which domain they belong to, how many tokens long."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import pyarrow as pa

from beam_jobs.mix.domains import DomainRules
from beam_jobs.mix.tokens import WORDS, count_tokens
from beam_jobs.part import SCHEMA, column
from beam_jobs.perplexity.reference import Reference
from beam_jobs.perplexity.scorer import REASON, Scorer, judge, make_scorer
from beam_jobs.steps import Job, alive
from lake.store import Store


class Annotator:
    """Fills the columns `perplexity`, `perplexity_bucket`, `domain` and `n_tokens` of chunks, as the recipe wants it."""

    def __init__(self, job: Job, store: Store) -> None:
        self._job, self._store, self._mix = job, store, job.rules.mix

    def annotated(self, table: pa.Table) -> pa.Table:
        """The table, which is by `part.SCHEMA`. Documents that are too hard to predict become rejects."""
        if self._job.perplexity is not None:
            table = self._scored(table)
        return table if self._mix is None else self._sorted(table)

    def _scored(self, table: pa.Table) -> pa.Table:
        rules = self._job.rules.perplexity
        assert rules is not None  # the job names a reference only then  # noqa: S101
        rows = alive(table)
        texts = table["text"].take(rows).to_pylist()
        exact = column(table.take(rows), "exact")
        judged = judge(self._scorer, texts, exact, rules, self._reference.thresholds)
        known = ~np.isnan(judged.perplexity)
        table = filled(table, "perplexity", rows[known], judged.perplexity[known])
        table = filled(table, "perplexity_bucket", rows[known], np.array(judged.bucket, object)[known])
        rejected = np.array([detail is not None for detail in judged.rejected], bool)
        details = np.array(judged.rejected, object)[rejected]
        table = filled(table, "reason", rows[rejected], np.full(len(details), REASON, object))
        table = filled(table, "detail", rows[rejected], details)
        return filled(table, "text", rows[rejected], np.full(len(details), None, object))

    def _sorted(self, table: pa.Table) -> pa.Table:
        mix = self._mix
        assert mix is not None  # see above  # noqa: S101
        rows = alive(table)
        documents = table.select(["text", "source_uri"]).take(rows)
        texts = documents["text"].to_pylist()
        domains = self._domains.domains_of(texts, documents["source_uri"].to_pylist())
        table = filled(table, "domain", rows, np.array(domains, object))
        return table if mix.tokenizer == WORDS else filled(table, "n_tokens", rows, count_tokens(texts, mix))

    @cached_property
    def _reference(self) -> Reference:
        key = self._job.perplexity or ""
        return Reference.from_bytes(self._store.get(key), self._store.uri(key))

    @cached_property
    def _scorer(self) -> Scorer:
        rules = self._job.rules.perplexity
        assert rules is not None  # see above  # noqa: S101
        return make_scorer(rules, self._reference.models)

    @cached_property
    def _domains(self) -> DomainRules:
        assert self._mix is not None  # see above  # noqa: S101
        return DomainRules(self._mix, self._job.classifier)


def filled(table: pa.Table, name: str, rows: np.ndarray, values: np.ndarray) -> pa.Table:
    """The table, by `part.SCHEMA`, with these values in these rows of a column."""
    if not len(rows):
        return table
    place, found = table.schema.get_field_index(name), np.array(table[name].to_pylist(), object)
    found[rows] = values
    return table.set_column(place, SCHEMA.field(name), pa.array(found, SCHEMA.field(name).type))
