"""What an erasure would do: which documents its subjects name, where their text is, who has seen it. Changes nothing."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from beam_jobs.erase import Place, copies_of, find, places_of
from flows.context import Context
from flows.datasets import current_datasets
from lake.errors import TidemillError
from lake.layout import INBOX
from lake.tombstones import chain_to, who_saw

_DOCUMENT_ID = re.compile(r"[0-9a-f]{32}")
_TOLD = 5
_TOLD_OF_EACH = 1_000


@dataclass(frozen=True)
class Plan:
    """What an erasure would do to one model.

    `copies` are other documents that were dropped as duplicates of these, `originals` kept ones that some of these were
    dropped for: the same text from other sources.
    """

    model: str
    subjects: tuple[str, ...]
    keys: frozenset[str]
    documents: frozenset[str]
    rejects: frozenset[str]
    texts: frozenset[int]
    datasets: dict[str, int]
    sources: frozenset[str]
    copies: tuple[Place, ...]
    originals: tuple[Place, ...]
    unknown: tuple[str, ...]
    versions: tuple[tuple[str, str], ...]
    rebuild: str

    def found(self) -> dict[str, Any]:
        """For the ledger: counts, ids and keys."""
        return {
            "n_documents": len(self.documents),
            "n_rejects": len(self.rejects),
            "keys": sorted(self.keys),
            "datasets": self.datasets,
            "n_sources": len(self.sources),
            "sources": sorted(self.sources)[:_TOLD_OF_EACH],
            "n_copies": len(self.copies),
            "copies": [vars(copy) for copy in self.copies[:_TOLD_OF_EACH]],
            "originals": [vars(original) for original in self.originals[:_TOLD_OF_EACH]],
        }


def plan(
    context: Context, subjects: Sequence[str], model: str | None = None, *, with_duplicates: bool = False
) -> list[Plan]:
    """Find what the subjects name, in one model or in all that have it. Changes nothing.

    A subject is `s3://bucket/inbox/model/file`, `inbox/model/file`, a document's id, or the id that its source gave it.
    `with_duplicates` includes what other sources have of the same text. Raises TidemillError when nothing is found, and
    for a subject that cannot be one.
    """
    keys, ids = _sorted_out(context, subjects)
    # Also models whose recipe is gone: their data is not.
    models = sorted({*context.models(), *(name for name, _ in context.ledger.arrivals.counts())})
    if model is not None and model not in models:
        raise TidemillError(
            f"model {model}",
            expected=f"one of {', '.join(models) or '(none is registered)'}",
            got=repr(model),
            remedy="'tidemill models' lists the models",
        )
    plans: list[Plan] = []
    for name in [model] if model else models:
        mine = set(context.ledger.erasures.objects_left(name, keys))
        if mine or ids:
            plans.append(_Search(context, name, mine, ids, with_duplicates).plan())
    matched = {subject for found in plans for subject in found.subjects}
    unknown = tuple(subject for subject in dict.fromkeys([*keys, *ids]) if subject not in matched)
    if not matched:
        raise _nothing(unknown, context)
    return [replace(found, unknown=unknown) for found in plans if found.subjects]


class _Search:
    """Finds one plan. What is kept is looked for twice: by its place, then by its words in all other places."""

    def __init__(self, context: Context, model: str, keys: set[str], ids: set[str], with_duplicates: bool) -> None:
        self._context, self._model, self._keys, self._ids = context, model, keys, ids
        self._with_duplicates = with_duplicates
        self._datasets = current_datasets(context, model)
        self._kept: dict[str, int] = {}
        self._rejected: set[str] = set()
        self._originals: set[str] = set()
        self._by_dataset: dict[str, set[str]] = {}
        self._sources: set[str] = set()

    def plan(self) -> Plan:
        uris = {f"s3://{self._context.bucket.name}/{key}" for key in self._keys}
        self._look(uris=uris, ids={each for each in self._ids if _DOCUMENT_ID.fullmatch(each)})
        buried = self._context.ledger.erasures.tombstones(self._model).documents
        matched = self._ids & {*self._kept, *self._rejected, *buried}
        matched |= self._look(given_ids=self._ids - matched)
        copies = self._copies()
        if self._with_duplicates:
            self._look(ids=self._originals)
            self._look(ids={copy.id for copy in self._copies()})
            copies = []
        self._look(texts=set(self._kept.values()))
        gone = {*self._kept, *self._rejected}
        return Plan(
            model=self._model,
            subjects=(*sorted(self._keys), *sorted(matched)),
            keys=frozenset(self._keys),
            documents=frozenset(self._kept),
            rejects=frozenset(self._rejected),
            texts=frozenset(self._kept.values()),
            datasets={dataset_id: len(ids) for dataset_id, ids in sorted(self._by_dataset.items()) if ids},
            sources=frozenset(self._sources),
            copies=tuple(copy for copy in copies if copy.id not in gone),
            originals=tuple(self._places(self._originals - gone)),
            unknown=(),
            versions=self._versions(),
            rebuild=_policy(self._context, self._model),
        )

    def _look(self, **wanted: Collection[Any]) -> set[str]:
        """Add what is found. Returns those of the wanted given ids that were there."""
        given: set[str] = set()
        for dataset in self._datasets if any(wanted.values()) else ():
            found = find(self._context.bucket, dataset, **wanted)
            self._kept.update(found.kept)
            self._rejected |= found.rejected
            self._originals.update(found.original_of.values())
            self._by_dataset.setdefault(dataset.dataset_id, set()).update(found.ids)
            self._sources |= found.sources
            given |= found.given
        return given

    def _places(self, ids: set[str]) -> list[Place]:
        return [place for dataset in self._datasets for place in places_of(self._context.bucket, dataset, ids)]

    def _versions(self) -> tuple[tuple[str, str], ...]:
        """`(version, state)` of those that have seen any of the kept documents, oldest first."""
        ledger = self._context.ledger
        replaced_by = ledger.erasures.replaced_by(self._model)
        held = [dataset_id for dataset_id, ids in self._by_dataset.items() if not ids.isdisjoint(self._kept)]
        versions = ledger.versions.all(self._model)
        saw = who_saw(versions, {each for dataset_id in held for each in chain_to(dataset_id, replaced_by)})
        return tuple((v.version, v.state) for v in versions if v.version in saw and v.state != "erased")

    def _copies(self) -> list[Place]:
        return [copy for dataset in self._datasets for copy in copies_of(self._context.bucket, dataset, self._kept)]


def _sorted_out(context: Context, subjects: Sequence[str]) -> tuple[set[str], set[str]]:
    """Keys of objects, and ids. Raises TidemillError for another bucket or a key that is not a user's."""
    keys: set[str] = set()
    ids: set[str] = set()
    for subject in filter(None, (given.strip() for given in subjects)):
        bucket, _, key = subject.removeprefix("s3://").partition("/")
        if not subject.startswith("s3://"):
            (keys if subject.startswith(INBOX) else ids).add(subject)
        elif bucket == context.bucket.name and key.startswith(INBOX):
            keys.add(key)
        else:
            raise TidemillError(
                subject,
                expected=f"an object below s3://{context.bucket.name}/{INBOX}",
                got="another one",
                remedy="Tidemill reads nothing else; name the source object, a document's id or its given id",
            )
    return keys, ids


def _policy(context: Context, model: str) -> str:
    try:
        return context.recipe(model).erasure.rebuild
    except TidemillError:
        return "next"  # the default: a missing or unreadable recipe must not stand in the way


def _nothing(unknown: Sequence[str], context: Context) -> TidemillError:
    told = ", ".join(unknown[:_TOLD]) + (f" and {len(unknown) - _TOLD} more" if len(unknown) > _TOLD else "")
    return TidemillError(
        f"erasure of {told or 'nothing'}",
        expected="objects that the ledger has seen, ids of documents in a dataset, or ids that sources gave them",
        got="nothing by these names; erased before, or never read" if unknown else "no subject at all",
        remedy=f"'tidemill erasures' lists what is erased, 'tidemill lineage inbox/…' what was read from "
        f"s3://{context.bucket.name}",
    )
