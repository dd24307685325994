"""Where objects are: an S3 bucket or a local folder, behind one face. What opens it travels between processes."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from lake.records import ObjectRef


class Stream(Protocol):
    """An object's bytes as they come."""

    def read(self, n_bytes: int | None = None, /) -> bytes: ...

    def close(self) -> None: ...


class Address(Protocol):
    """What it takes to open a store in another process: small and picklable."""

    def open(self) -> Store: ...


class Store(ABC):
    """Objects by key. Every method raises StorageError (or SourceChanged) with a remedy, never a bare OS or S3 error."""

    name: str
    address: Any

    @abstractmethod
    def list(self, prefix: str) -> Iterator[ObjectRef]:
        """All objects under the prefix, in the order of their keys."""

    def keys(self, prefix: str) -> Iterator[str]:
        """The keys alone, in order."""
        return (ref.key for ref in self.list(prefix))

    @abstractmethod
    def exists(self, key: str) -> bool: ...

    @abstractmethod
    def get(self, key: str) -> bytes: ...

    @abstractmethod
    def put(self, key: str, body: bytes, content_type: str = "application/octet-stream") -> None:
        """Write an object: whole or not at all."""

    @abstractmethod
    def delete(self, key: str) -> None: ...

    @abstractmethod
    def open_version(self, ref: ObjectRef) -> Stream:
        """Stream the very version that was listed. Raises SourceChanged when it is not there any more."""

    @abstractmethod
    def upload(self, path: Path, key: str) -> None: ...

    @abstractmethod
    def download(self, key: str, path: Path) -> None: ...

    @abstractmethod
    def digest(self, key: str) -> tuple[int, str]:
        """Size in bytes and sha256 (hex) of an object, streamed."""

    @abstractmethod
    def uri(self, key: str) -> str: ...

    def delete_folder(self, prefix: str) -> None:
        """Delete every object under a prefix of our own. Raises ValueError for the user's part of the store."""
        if not prefix.endswith("/") or prefix.startswith(("inbox/", "recipes/", "feedback/")):
            raise ValueError(f"prefix={prefix!r}, expected a folder that Tidemill writes")
        for key in list(self.keys(prefix)):
            self.delete(key)

    def put_table(self, key: str, table: pa.Table) -> None:
        """Write a Parquet object (zstd)."""
        sink = io.BytesIO()
        # Dictionaries of hashes and numbers take time and space: no value comes twice.
        words = [field.name for field in table.schema if pa.types.is_string(field.type)]
        pq.write_table(table, sink, compression="zstd", use_dictionary=words)
        self.put(key, sink.getvalue(), "application/vnd.apache.parquet")

    def get_table(self, key: str, columns: Sequence[str] | None = None) -> pa.Table:
        return pq.read_table(io.BytesIO(self.get(key)), columns=columns and list(columns))
