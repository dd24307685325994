"""Beam steps at the end, where the recipe wants them: paragraphs that stood before are left out.

Only documents that are kept take part: what is dropped anyway takes nothing away from what stays. Quotas are filled before,
so that their shares are those of whole documents. A document is found by
all that it was made of, so its signature stays that of the whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from beam_jobs.annotate import filled
from beam_jobs.mix.tokens import WORDS, count_tokens
from beam_jobs.numbers import by_source, is_fresh, numbers_of, rows_of
from beam_jobs.rules.characters import n_marks
from beam_jobs.rules.repeated_paragraphs import paragraph_hashes, without_paragraphs
from beam_jobs.simhash import Hashes, Union, fingerprint, unique
from beam_jobs.steps import PARTITIONS, Job, OfKept, among
from lake.recipe import PrepareRules
from lake.store import Address


class Paragraphs(NamedTuple):
    """The paragraphs of a source's documents, in order: uint64 `[n]`."""

    source: int
    hashes: bytes


class Shortened(NamedTuple):
    """A document without its repeated paragraphs, and the hashes of the others. Nothing that counts may be left."""

    text: str
    n_left_out: int
    hashes: Hashes

    def is_empty(self, min_characters: int) -> bool:
        return bool(self.n_left_out) and not len(self.hashes) and len(self.text) < min_characters


def shorten(joined: beam.PCollection, pipeline: beam.Pipeline, job: Job) -> beam.PCollection:
    """`(source, {chunk, dropped, chosen})` → the same with `emptied`, the rows that nothing is left of."""
    found = joined | "paragraphs" >> beam.ParDo(_Read(job))
    wanted = found | "all paragraphs" >> beam.CombineGlobally(_Unique())
    old = (
        pipeline
        | "paragraphs of history" >> beam.Create(list(enumerate(job.paragraphs)))
        | "seen before" >> beam.ParDo(_History(), beam.pvalue.AsSingleton(wanted))
    )
    repeated = (
        (found, old)
        | "old and new" >> beam.Flatten()
        | "by paragraph" >> beam.FlatMap(_by_paragraph)
        | "same paragraph" >> beam.GroupByKey()
        | "repeated" >> beam.FlatMap(_repeated)
    )
    return (
        {"joined": joined, "repeated": repeated}
        | "join repeated" >> beam.CoGroupByKey()
        | "shorten" >> beam.ParDo(_Shorten(job))
    )


def shortened(text: str, is_repeated: NDArray[np.bool_], rules: PrepareRules) -> Shortened:
    wanted = rules.quality.paragraphs
    assert wanted is not None  # the steps are hung up only where there is one  # noqa: S101
    left, n_left_out = without_paragraphs(text, is_repeated, wanted)
    return Shortened(left.strip(), n_left_out, paragraph_hashes(text, wanted)[~is_repeated])


class _Read(OfKept):
    """`Paragraphs` of what a source keeps."""

    def process(self, item: tuple[int, dict[str, Iterable[Any]]]) -> Iterator[Paragraphs]:
        wanted = self.job.rules.quality.paragraphs
        assert wanted is not None  # see above  # noqa: S101
        table, _ = self.kept(item, ["text"])
        hashes = [paragraph_hashes(text, wanted) for text in table["text"].to_pylist()]
        yield Paragraphs(item[0], np.concatenate([np.zeros(0, np.uint64), *hashes]).tobytes())


class _Unique(beam.CombineFn):  # type: ignore[misc]  # Beam ships no types
    """`Paragraphs` → the hashes of all, sorted and unique: what is wanted of history."""

    def create_accumulator(self) -> Union[np.uint64]:
        return Union(np.zeros(0, np.uint64))

    def add_input(self, hashes: Union[np.uint64], found: Paragraphs) -> Union[np.uint64]:
        return hashes.add(np.frombuffer(found.hashes, np.uint64))

    def merge_accumulators(self, found: Iterable[Union[np.uint64]]) -> Union[np.uint64]:
        merged = self.create_accumulator()
        for each in found:
            merged = merged.add(each.all())
        return merged

    def extract_output(self, hashes: Union[np.uint64]) -> Hashes:
        return hashes.all()


class _History(beam.DoFn):  # type: ignore[misc]  # Beam ships no types
    """File of paragraphs that were kept before → those of them that stand in the drop."""

    def process(self, item: tuple[int, tuple[Address, str]], wanted: Hashes) -> Iterator[Paragraphs]:
        source, (address, key) = item
        hashes = address.open().get_table(key, ["hash"])["hash"].to_numpy()
        yield Paragraphs(source, unique(hashes[among(hashes, wanted)]).tobytes())


def _by_paragraph(found: Paragraphs) -> Iterator[tuple[int, tuple[bytes, bytes]]]:
    hashes = np.frombuffer(found.hashes, np.uint64)
    numbers = numbers_of(found.source, len(hashes))
    for partition in range(PARTITIONS):
        chosen = hashes % PARTITIONS == partition
        if chosen.any():
            yield partition, (hashes[chosen].tobytes(), numbers[chosen].tobytes())


def _repeated(item: tuple[int, Iterable[tuple[bytes, bytes]]]) -> Iterator[tuple[int, bytes]]:
    """Paragraphs that met → for each new source, the places of those that stood before among its paragraphs."""
    hashes, numbers = (b"".join(each) for each in zip(*item[1], strict=True))
    order = np.lexsort((np.frombuffer(numbers, np.int64), np.frombuffer(hashes, np.uint64)))
    ordered = np.frombuffer(hashes, np.uint64)[order]
    repeats = np.zeros(len(order), bool)
    repeats[1:] = ordered[1:] == ordered[:-1]
    found = np.frombuffer(numbers, np.int64)[order][repeats]
    for source, some in by_source(found, found):
        if is_fresh(source):
            yield source, rows_of(some).tobytes()


class _Shorten(OfKept):
    """Leaves repeated paragraphs out of a source's rows. The hashes of the others wait in `work/`."""

    def process(self, item: tuple[int, dict[str, Iterable[Any]]]) -> Iterator[tuple[int, dict[str, Any]]]:
        source, found = item
        joined = next(iter(found["joined"]))
        table, rows = self.kept((source, joined))
        repeated = np.frombuffer(b"".join(found["repeated"]), np.int64)
        done = list(self._shortened(table["text"].take(rows).to_pylist(), repeated))
        changed = [place for place, each in enumerate(done) if each.n_left_out]
        if changed:  # under another key: this step may be run again, on what it has read
            self.store.put_table(self.job.work_key("short", source), self._with(table, rows[changed], changed, done))
        self.store.put_table(self.job.work_key("paragraphs", source), _index(table["place_id"].take(rows), done))
        emptied = [place for place in changed if done[place].is_empty(self.job.rules.min_characters)]
        yield source, {**joined, "emptied": [rows[emptied]]}

    def _shortened(self, texts: list[str], repeated: NDArray[np.int64]) -> Iterator[Shortened]:
        wanted, start = self.job.rules.quality.paragraphs, 0
        assert wanted is not None  # see above  # noqa: S101
        places = np.sort(repeated)
        for text in texts:
            n_paragraphs = len(paragraph_hashes(text, wanted))
            is_repeated = np.zeros(n_paragraphs, bool)
            first, last = np.searchsorted(places, [start, start + n_paragraphs])
            is_repeated[places[first:last] - start] = True
            start += n_paragraphs
            yield shortened(text, is_repeated, self.job.rules)

    def _with(self, table: pa.Table, rows: NDArray[np.int64], changed: list[int], done: list[Shortened]) -> pa.Table:
        """The table with what is left of the changed documents, measured again."""
        texts = [done[place].text for place in changed]
        n_words = [fingerprint(text).n_words for text in texts]
        mix = self.job.rules.mix
        if mix is None or mix.tokenizer == WORDS:
            n_tokens = [n + n_marks(text) for n, text in zip(n_words, texts, strict=True)]
        else:
            n_tokens = count_tokens(texts, mix).tolist()
        for name, values in (
            ("text", texts),
            ("n_characters", list(map(len, texts))),
            ("n_words", n_words),
            ("n_tokens", n_tokens),
        ):
            table = filled(table, name, rows, np.array(values, object))
        return table


def _index(place_ids: pa.ChunkedArray, done: list[Shortened]) -> pa.Table:
    """`(place_id, hash)` of all paragraphs that are left."""
    places = np.repeat(np.arange(len(done)), [len(each.hashes) for each in done])
    hashes = np.concatenate([np.zeros(0, np.uint64), *(each.hashes for each in done)])
    return pa.table({"place_id": place_ids.take(places), "hash": hashes})
