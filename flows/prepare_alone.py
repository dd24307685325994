"""Preparation without an installation: sources, history and results are local paths or s3:// URIs; no service is up."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from glob import glob, has_magic
from pathlib import Path
from threading import Event, Thread

from beam_jobs.parameters import CODE, prepare_parameters, rejected_share
from beam_jobs.past import Past
from beam_jobs.runners import runner_options
from flows.base_scorer import with_base_model
from lake.bucket import Bucket, BucketAddress
from lake.errors import StorageError, TidemillError
from lake.folder import Folder
from lake.ledger.arrivals import drop_id_of
from lake.recipe import Recipe
from lake.records import Dataset, Drop, ObjectRef
from lake.settings import Settings
from lake.stage import UNFINISHED, code_version, read_manifest, stage_id, write_manifest
from lake.store import Store

_AWS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_PROFILE")
_POLL_S = 0.5


@dataclass(frozen=True)
class Place:
    """A folder of a store: everything below `prefix`."""

    store: Store
    prefix: str

    @property
    def uri(self) -> str:
        return self.store.uri(self.prefix)


def place_of(told: str, settings: Settings) -> Place:
    """What a path or an s3:// URI names, as a folder."""
    if not told.startswith("s3://"):
        return Place(Folder(Path(told.removeprefix("file://")).expanduser()), "")
    name, _, key = told.removeprefix("s3://").partition("/")
    return Place(Bucket(_address(name, settings)), f"{key.rstrip('/')}/" if key else "")


def sources_of(told: Sequence[str], settings: Settings) -> tuple[list[ObjectRef], dict[str, Store]]:
    """The objects that sources name (files, folders, patterns, s3:// URIs), and their stores by the refs' `bucket`.

    Raises TidemillError for one that names nothing.
    """
    refs: dict[str, ObjectRef] = {}
    stores: dict[str, Store] = {}
    for source in told:
        found = list(_objects(source, settings, stores))
        if not found:
            raise TidemillError(
                source,
                expected="a file, a folder with files, a pattern, or an s3:// URI of objects",
                got="nothing there",
                remedy="check the path; a pattern needs quotes where the shell would expand it",
            )
        refs.update((ref.uri, ref) for ref in found)
    return [refs[uri] for uri in sorted(refs)], stores


def prepare_alone(
    refs: Sequence[ObjectRef],
    stores: dict[str, Store],
    recipe: Recipe,
    out: Place,
    history: Sequence[Place],
    model_cache: Path,
    told: Callable[[str, int, int], None] = lambda *_: None,
) -> Dataset:
    """Run the job on these objects and commit it by `manifest.json`. What is there already, made of the same, is returned.

    `model_cache` is where a base model that scores documents is kept; `told(what, done, all)` hears of progress, a few times a second. Raises TidemillError when `out` holds something
    else or a history is none.
    """
    from beam_jobs.prepare import prepare  # seconds of import

    if out.prefix.startswith(("inbox/", "recipes/", "feedback/")):
        raise TidemillError(
            out.uri,
            expected="a folder for results",
            got="one that is read, not written",
            remedy="name another folder as --out",
        )

    refs = [ref for ref in refs if not ref.uri.startswith(f"{out.uri.rstrip('/')}/")]  # of an earlier call
    past = [_past(place) for place in history]
    drop = Drop(drop_id=drop_id_of(refs), model=recipe.name, objects=tuple(refs), closed_at=datetime.now(UTC))
    inputs, code = [drop.drop_id, *(dataset.dataset_id for dataset, _ in past)], code_version(CODE)
    parameters = prepare_parameters(recipe)
    identity = stage_id("prepare", inputs, parameters, code)
    committed = _committed(out, identity)
    if committed is not None:
        return committed
    options = runner_options(recipe.runner, out.store.address)
    # Says that what lies beside it is ours, and may be written over.
    out.store.put(f"{out.prefix}{UNFINISHED}", identity.encode())
    started = time.monotonic()
    with _watched(out, told):
        dataset = prepare(
            drop,
            with_base_model(recipe, model_cache),
            out.store.address,
            identity,
            [place for _, place in past],
            options,
            prefix=out.prefix,
            sources={name: store.address for name, store in stores.items()},
            reserves=_reserves(past),
            corpus=[place for _, place in past],
            rejected_share=rejected_share([dataset for dataset, _ in past]),
        )
    write_manifest(
        out.store,
        out.prefix,
        stage_id=identity,
        stage="prepare",
        model=recipe.name,
        inputs=inputs,
        parameters=parameters,
        code=code,
        record=dataset,
        duration_s=time.monotonic() - started,
    )
    out.store.delete(f"{out.prefix}{UNFINISHED}")
    return dataset


def missing_history(history: Sequence[Place]) -> list[str]:
    """Of results that are given as history, those whose own history is not all given: what that held is not compared."""
    datasets = [(place, _past(place)[0]) for place in history]
    given = {dataset.dataset_id for _, dataset in datasets}
    return [place.uri for place, dataset in datasets if not given.issuperset(dataset.history_ids)]


def _objects(source: str, settings: Settings, stores: dict[str, Store]) -> Iterator[ObjectRef]:
    if source.startswith("s3://"):
        name, _, prefix = source.removeprefix("s3://").partition("/")
        store = stores.setdefault(name, Bucket(_address(name, settings)))
        # `data` names the folder data/ or the object, but not the object database.jsonl.
        yield from (
            ref
            for ref in store.list(prefix)
            if not prefix or prefix.endswith("/") or ref.key[len(prefix) :][:1] in ("", "/")
        )
        return
    root = Folder(Path("/"))
    stores.setdefault(root.name, root)
    path = str(Path(source.removeprefix("file://")).expanduser())
    is_pattern = has_magic(path) and not Path(path).exists()
    for found in sorted(glob(path, recursive=True)) if is_pattern else [path]:  # noqa: PTH207  # not relative to one folder
        absolute = os.path.abspath(found)  # noqa: PTH100  # a link stays what the user called it
        if Path(absolute).is_dir():
            folder = f"{absolute}/".lstrip("/")
            yield from (_ref(root, key) for key in root.keys(folder) if "/." not in f"/{key.removeprefix(folder)}")
        elif Path(absolute).is_file():
            yield _ref(root, absolute.lstrip("/"))


def _ref(root: Folder, key: str) -> ObjectRef:
    """A file as it is; one that cannot be read, or whose name is no text, still counts, and ends as a dead letter."""
    named = key.encode("utf-8", "replace").decode()
    if named == key:
        try:
            return root.ref(key)
        except StorageError:
            pass
    return ObjectRef(
        bucket=root.name, key=named, etag="unread", size_bytes=0, last_modified=datetime.fromtimestamp(0, UTC)
    )


def _address(name: str, settings: Settings) -> BucketAddress:
    """Of a bucket: in the store that TIDEMILL_S3_* name, else that of AWS_* variables, else the installation's own."""
    if settings.s3_endpoint_url is None and any(os.environ.get(variable) for variable in _AWS):
        return BucketAddress(
            endpoint_url=os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"),
            name=name,
            access_key_id=None,
            secret_access_key=None,
            region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or settings.s3_region,
        )
    return BucketAddress.of(settings).model_copy(update={"name": name})


def _past(place: Place) -> tuple[Dataset, Past]:
    """An earlier result, by its manifest."""
    manifest = read_manifest(place.store, place.prefix)
    if manifest is None or manifest.stage != "prepare":
        raise TidemillError(
            place.uri,
            expected="a folder that 'tidemill prepare' wrote, with its manifest.json",
            got="a manifest of something else" if manifest else "no manifest.json, or one that cannot be read",
            remedy="name the folder that was given as --out; one without a manifest was not finished: run that again",
        )
    dataset = Dataset.model_validate(manifest.record)
    return dataset, Past(dataset.dataset_id, place.store.address, place.prefix)


def _reserves(past: Sequence[tuple[Dataset, Past]]) -> list[Past]:
    reused = {identity for dataset, _ in past for identity in dataset.reused_ids}
    return [place for dataset, place in past if dataset.n_reserved and dataset.dataset_id not in reused]


def _committed(out: Place, identity: str) -> Dataset | None:
    """What is there, if it is the very same. Raises TidemillError for anything but an attempt that did not end."""
    manifest = read_manifest(out.store, out.prefix)
    if manifest is not None and manifest.stage_id == identity:
        return Dataset.model_validate(manifest.record)
    if out.store.exists(f"{out.prefix}{UNFINISHED}") and manifest is None:
        return None
    found = next(iter(out.store.keys(out.prefix)), None)
    if found is not None:
        raise TidemillError(
            out.uri,
            expected="an empty folder, or the result of this very preparation",
            got="the result of another one" if manifest else f"other files, such as {found.removeprefix(out.prefix)}",
            remedy="name another folder as --out, or delete this one",
        )
    return None


class _watched:  # noqa: N801  # a context manager, used as a function
    """Counts the files that the job leaves on its way."""

    def __init__(self, out: Place, told: Callable[[str, int, int], None]) -> None:
        self._out, self._told, self._over = out, told, Event()
        self._thread = Thread(target=self._watch, daemon=True, name="progress")

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(_POLL_S):
            names = [key.rsplit("/", 1)[-1] for key in self._out.store.keys(f"{self._out.prefix}work/")]
            n_written = sum(name.startswith("counts-") for name in names)
            n_read = sum(name.startswith("rows-") for name in names)
            if n_written:
                self._told("writing", n_written, n_read)
            else:
                self._told("reading", n_read, 0)
