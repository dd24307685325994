"""Which dataset is meant: an id, the beginning of one, MODEL/latest, a local folder, or a prefix in S3."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import ValidationError

from flows.context import Context
from flows.datasets import current_datasets
from flows.prepare_alone import place_of
from lake.errors import StorageError, TidemillError
from lake.layout import manifest_key
from lake.records import CheckReport, Dataset
from lake.store import Store

_SHOWN = 12


@dataclass(frozen=True)
class Stored:
    """A dataset whose files are below `prefix` of a store; `context` knows the other datasets of its model."""

    store: Store
    prefix: str
    dataset: Dataset
    context: Context | None = None

    @property
    def name(self) -> str:
        return self.dataset.dataset_id

    @cached_property
    def others(self) -> tuple[Stored, ...]:
        """The other datasets of the model that have their files, newest first; none for a dataset outside of one."""
        if self.context is None:
            return ()
        found = stored_datasets(self.context, self.dataset.model)
        return tuple(other for other in reversed(found) if other.name != self.name)

    @cached_property
    def checked(self) -> CheckReport | None:
        """What the data gate found last; None when the dataset has not been checked, or lies outside."""
        if self.context is None:
            return None
        records = self.context.ledger.stages.records("check", self.dataset.model)
        reports = [record for record in records if record["dataset_id"] == self.name]
        return CheckReport.model_validate(reports[-1]) if reports else None


def find_dataset(context: Context, subject: str) -> Stored:
    """The dataset that `subject` names. Raises TidemillError that lists those there are."""
    is_folder = subject.startswith(("/", ".", "~")) or (subject and (Path(subject) / manifest_key("")).is_file())
    if is_folder or "://" in subject:
        place = place_of(subject, context.settings)
        return _read(place.store, place.prefix, subject)
    model, _, wanted = subject.rpartition("/")
    try:
        models = [model] if model else known_models(context)
    except StorageError as error:
        raise TidemillError(
            f"dataset {subject}",
            expected="a folder of this name, or an installation that runs and knows a dataset of this id",
            got=f"no folder, and {error.got} from {context.address.endpoint_url}",
            remedy="check the path, or start the installation with 'tidemill up'",
        ) from error
    known = [stored for name in models for stored in stored_datasets(context, name)]
    if wanted == "latest" and model and known:
        return known[-1]
    found = [stored for stored in known if stored.name == wanted]
    found = found or [stored for stored in known if wanted and stored.name.startswith(wanted)]
    if len(found) != 1:
        raise _unknown(subject, found, known)
    return found[0]


def stored_datasets(context: Context, model: str) -> list[Stored]:
    """Datasets of a model whose files are in the bucket, in the order of their making."""
    return [Stored(context.bucket, dataset.prefix, dataset, context) for dataset in current_datasets(context, model)]


def known_models(context: Context) -> list[str]:
    """Models that have data or a recipe, by name."""
    return sorted({*context.models(), *(state.model for state in context.ledger.drops.states())})


def _read(store: Store, prefix: str, subject: str) -> Stored:
    """A dataset by the manifest that lies with it."""
    key = manifest_key(prefix)
    if not store.exists(key):
        raise TidemillError(
            subject,
            expected="a prepared dataset, which has a manifest.json",
            got="no manifest.json there",
            remedy="name the folder that 'tidemill prepare' wrote, or an id that 'tidemill data list' shows",
        )
    try:
        told = json.loads(store.get(key))
        return Stored(store, prefix, Dataset.model_validate(told.get("record", told)))
    except (ValueError, AttributeError, ValidationError) as error:
        raise TidemillError(
            store.uri(key),
            expected="the manifest of a dataset",
            got=" ".join(str(error).split())[:200],
            remedy="prepare the data again",
        ) from error


def _unknown(subject: str, found: list[Stored], known: list[Stored]) -> TidemillError:
    listed = _listed(found or known)
    if found:
        return TidemillError(
            f"dataset {subject}",
            expected="the beginning of one id",
            got=f"that of {len(found)}: {', '.join(listed)}",
            remedy="give more of the id",
        )
    return TidemillError(
        f"dataset {subject}",
        expected=f"one of {', '.join(listed)}" if known else "a dataset; none has been prepared",
        got=repr(subject),
        remedy="'tidemill data list' shows all; MODEL/latest is the newest one of a model"
        if known
        else "drop data with 'tidemill drop', or name the folder of a prepared dataset",
    )


def _listed(some: list[Stored]) -> Iterator[str]:
    yield from (f"{stored.dataset.model}/{stored.name}" for stored in some[-_SHOWN:])
    if len(some) > _SHOWN:
        yield f"and {len(some) - _SHOWN} more"
