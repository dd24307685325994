"""A local folder as a store: the same objects by key, without a server."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import xxhash
from pydantic import BaseModel, ConfigDict

from lake.errors import SourceChanged, StorageError
from lake.records import ObjectRef
from lake.store import Store, Stream

_CHUNK_BYTES = 1 << 20
_UNFINISHED = ".tidemill-unfinished-"


class FolderAddress(BaseModel):
    """What it takes to open the folder in another process of this machine, or of one that shares the file system."""

    model_config = ConfigDict(frozen=True)

    root: Path

    @property
    def name(self) -> str:
        return str(self.root).rstrip("/")

    def open(self) -> Folder:
        return Folder(self.root)


class Folder(Store):
    """Everything below one folder. Keys are paths with slashes; the etag of a file is a hash of its content (xxh3)."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.address = FolderAddress(root=self.root)
        self.name = self.address.name

    def list(self, prefix: str) -> Iterator[ObjectRef]:
        for key in self.keys(prefix):
            yield self.ref(key)

    def keys(self, prefix: str) -> Iterator[str]:
        with self._explained(prefix):
            yield from sorted(self._walk(prefix))

    def ref(self, key: str) -> ObjectRef:
        """One file as a listing shows it. Reads it once, for its etag."""
        path = self._path(key)
        with self._explained(key):
            stat = path.stat()
            return ObjectRef(
                bucket=self.name,
                key=key,
                etag=_etag(path),
                size_bytes=stat.st_size,
                last_modified=datetime.fromtimestamp(stat.st_mtime, UTC),
            )

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def get(self, key: str) -> bytes:
        with self._explained(key):
            return self._path(key).read_bytes()

    def put(self, key: str, body: bytes, content_type: str = "") -> None:  # noqa: ARG002  # files have no such thing
        with self._explained(key), self._written(key) as file:
            file.write(body)

    def delete(self, key: str) -> None:
        with self._explained(key):
            self._path(key).unlink(missing_ok=True)

    def delete_folder(self, prefix: str) -> None:
        super().delete_folder(prefix)
        shutil.rmtree(self._path(prefix), ignore_errors=True)  # folders that are empty now

    def open_version(self, ref: ObjectRef) -> Stream:
        path = self._path(ref.key)
        with self._explained(ref.key):
            if not path.is_file():
                raise self._changed(ref, "no file")
            path.open("rb").close()  # whether it may be read comes before what it is
            stat = path.stat()
            if stat.st_size != ref.size_bytes or datetime.fromtimestamp(stat.st_mtime, UTC) != ref.last_modified:
                raise self._changed(ref, f"{stat.st_size} bytes of {datetime.fromtimestamp(stat.st_mtime, UTC)}")
            return path.open("rb")

    def upload(self, path: Path, key: str) -> None:
        with self._explained(key), path.open("rb") as source, self._written(key) as file:
            shutil.copyfileobj(source, file, _CHUNK_BYTES)

    def download(self, key: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._explained(key):
            shutil.copyfile(self._path(key), path)

    def digest(self, key: str) -> tuple[int, str]:
        with self._explained(key), self._path(key).open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            return file.tell(), sha256

    def uri(self, key: str) -> str:
        return f"file://{self.name}/{key}"

    def _walk(self, prefix: str) -> Iterator[str]:
        start = self.root / prefix[: prefix.rfind("/") + 1]
        for folder, _, names in os.walk(start, onerror=_raise):
            relative = Path(folder).relative_to(self.root).as_posix()
            for name in names:
                key = name if relative == "." else f"{relative}/{name}"
                # Pipes, sockets and links to nowhere hold nothing, and some of them would never end.
                if key.startswith(prefix) and not name.startswith(_UNFINISHED) and (self.root / key).is_file():
                    yield key

    def _path(self, key: str) -> Path:
        path = self.root / key
        if not Path(os.path.normpath(path)).is_relative_to(self.root):
            raise ValueError(f"key={key!r}, expected a path below {self.root}")
        return path

    @contextmanager
    def _written(self, key: str) -> Iterator[BinaryIO]:
        """A file that takes its place when it is complete, as an object of a bucket does."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{_UNFINISHED}{uuid.uuid4().hex}")
        try:
            with unfinished.open("wb") as file:
                yield file
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            denied = isinstance(error, PermissionError)
            raise StorageError(
                self.uri(what),
                expected="a file that can be read and written",
                # The same word as S3 has for it, by which a dead letter of one file is told from a store that fails.
                got=f"AccessDenied: {error.strerror}"
                if denied
                else f"{type(error).__name__}: {error.strerror or error}",
                remedy="check the path, its rights and the disk's free space",
            ) from error

    def _changed(self, ref: ObjectRef, got: str) -> SourceChanged:
        return SourceChanged(
            ref.uri, expected=f"{ref.size_bytes} bytes of {ref.last_modified}", got=got, remedy="run it again"
        )


def _etag(path: Path) -> str:
    hasher = xxhash.xxh3_64()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            hasher.update(chunk)
    return str(hasher.hexdigest())


def _raise(error: OSError) -> None:
    """A folder that may not be read is told: passed over, what is in it would be missed by nobody."""
    if not isinstance(error, FileNotFoundError):
        raise error
