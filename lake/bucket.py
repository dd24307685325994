"""The object store: a thin, typed face over boto3 with the errors a user can act on."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError
from pydantic import BaseModel, ConfigDict, Field

from lake.errors import SourceChanged, StorageError
from lake.records import ObjectRef
from lake.s3_client import s3_client
from lake.settings import Settings
from lake.store import Store
from lake.store_errors import STORE_ERRORS, storage_error

# nanio lists an object that is being written, under the name of its temporary file.
_UNFINISHED = re.compile(r"(^|/)\.tmp\.[0-9a-f]{32}$")


class BucketAddress(BaseModel):
    """What it takes to open the bucket in another process. Picklable, so that Beam can carry it."""

    model_config = ConfigDict(frozen=True)

    endpoint_url: str | None
    name: str
    access_key_id: str | None
    secret_access_key: str | None = Field(repr=False)
    region: str

    @classmethod
    def of(cls, settings: Settings) -> BucketAddress:
        return cls(
            endpoint_url=settings.s3_url,
            name=settings.bucket,
            access_key_id=settings.access_key_id,
            secret_access_key=settings.secret_access_key,
            region=settings.s3_region,
        )

    def open(self) -> Bucket:
        return Bucket(self)


class Bucket(Store):
    """One bucket of an S3 server."""

    def __init__(self, address: BucketAddress, page_size: int = 1_000) -> None:
        self.address = address
        self.name = address.name
        self._page_size = page_size
        self.client = s3_client(address)

    def list(self, prefix: str) -> Iterator[ObjectRef]:
        with self.explained(f"list {prefix}"):
            for page in self._pages(Prefix=prefix):
                if page.get("IsTruncated") and _loses_keys(page):
                    yield from sorted(chain.from_iterable(self._by_folder(prefix)), key=lambda ref: ref.key)
                    return
                yield from self._refs(page)

    def pages(self, prefix: str, start_after: str = "") -> Iterator[Sequence[ObjectRef]]:
        """The objects under the prefix whose keys come after `start_after`, page by page, in any order.

        The next page is asked for while the caller works on this one.
        """
        return _one_ahead(self._later_pages(prefix, start_after))

    def find(self, key: str) -> ObjectRef | None:
        """The object by this very key, as a listing shows it; None when there is none."""
        with self.explained(f"list {key}"):
            page = self.client.list_objects_v2(Bucket=self.name, Prefix=key, MaxKeys=1)
            return next((ref for ref in self._refs(page) if ref.key == key), None)

    def exists(self, key: str) -> bool:
        with self.explained(key):
            try:
                self.client.head_object(Bucket=self.name, Key=key)
            except ClientError as error:
                if error.response["Error"]["Code"] in ("404", "NoSuchKey", "NotFound"):
                    return False
                raise
        return True

    def get(self, key: str) -> bytes:
        with self.explained(key):
            body: bytes = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return body

    def open_version(self, ref: ObjectRef) -> ObjectStream:
        with self.explained(ref.key):
            try:
                answer = self.client.get_object(Bucket=self.name, Key=ref.key, IfMatch=f'"{ref.etag}"')
            except ClientError as error:
                code = error.response["Error"]["Code"]
                if code in ("PreconditionFailed", "412", "NoSuchKey", "404"):
                    raise self._changed(ref, code) from error
                raise
        if answer["ETag"].strip('"') != ref.etag:  # a store that ignores If-Match
            raise self._changed(ref, answer["ETag"])
        return ObjectStream(self, ref.key, answer["Body"])

    def put(self, key: str, body: bytes, content_type: str = "application/octet-stream") -> None:
        with self.explained(key):
            self.client.put_object(Bucket=self.name, Key=key, Body=body, ContentType=content_type)

    def upload(self, path: Path, key: str) -> None:
        with self.explained(key):
            self.client.upload_file(str(path), self.name, key)

    def upload_folder(self, folder: Path, prefix: str) -> tuple[str, ...]:
        """Upload every file below `folder`; returns the keys, sorted."""
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        keys = tuple(prefix + path.relative_to(folder).as_posix() for path in files)
        for path, key in zip(files, keys, strict=True):
            self.upload(path, key)
        return keys

    def download(self, key: str, path: Path) -> None:
        """Stream an object into a file. One plain GET: not every store takes the ranges that boto3's transfer asks for."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with self.explained(key):
            body = self.client.get_object(Bucket=self.name, Key=key)["Body"]
            with path.open("wb") as file:
                shutil.copyfileobj(body, file, 1 << 20)

    def download_folder(self, prefix: str, folder: Path) -> None:
        """Mirror a prefix into a folder. Raises StorageError when a key would land outside of it."""
        root = folder.resolve()
        for ref in self.list(prefix):
            target = (root / ref.key.removeprefix(prefix)).resolve()
            if not target.is_relative_to(root):
                raise StorageError(
                    f"s3://{self.name}/{ref.key}",
                    expected=f"a key below {prefix}",
                    got="a path that leaves it",
                    remedy="delete that object",
                )
            self.download(ref.key, target)

    def delete(self, key: str) -> None:
        with self.explained(key):
            self.client.delete_object(Bucket=self.name, Key=key)

    def digest(self, key: str) -> tuple[int, str]:
        sha256, size_bytes = hashlib.sha256(), 0
        with self.explained(key):
            for chunk in self.client.get_object(Bucket=self.name, Key=key)["Body"].iter_chunks(1 << 20):
                sha256.update(chunk)
                size_bytes += len(chunk)
        return size_bytes, sha256.hexdigest()

    def uri(self, key: str) -> str:
        return f"s3://{self.name}/{key}"

    def url(self, key: str, expires_s: int = 7 * 24 * 3600) -> str:
        """A presigned link that a browser can open for `expires_s` seconds."""
        with self.explained(key):
            link: str = self.client.generate_presigned_url(
                "get_object", Params={"Bucket": self.name, "Key": key}, ExpiresIn=expires_s
            )
        return link

    def ensure(self, create: bool) -> None:
        """Check that the bucket answers; make it when `create`. Raises StorageError."""
        with self.explained("(bucket)"):
            try:
                # Not head_bucket: its answers have no body, and so cannot tell a wrong key from a wrong secret.
                self.client.list_objects_v2(Bucket=self.name, MaxKeys=1)
            except ClientError as error:
                if not create or error.response["Error"]["Code"] != "NoSuchBucket":
                    raise
                self._create()

    @contextmanager
    def explained(self, what: str) -> Iterator[None]:
        """Turn botocore's errors into a StorageError with a remedy; `what` is the key or the action."""
        try:
            yield
        except STORE_ERRORS as error:
            raise storage_error(error, f"s3://{self.name}/{what}", self.address.endpoint_url) from error

    def _pages(self, **query: str) -> Iterator[dict[str, Any]]:
        paginator = self.client.get_paginator("list_objects_v2")
        yield from paginator.paginate(Bucket=self.name, PaginationConfig={"PageSize": self._page_size}, **query)

    def _later_pages(self, prefix: str, start_after: str) -> Iterator[Sequence[ObjectRef]]:
        after = {"StartAfter": start_after} if start_after else {}
        with self.explained(f"list {prefix}"):
            for page in self._pages(Prefix=prefix, **after):
                if page.get("IsTruncated") and _loses_keys(page):
                    for refs in self._by_folder(prefix):
                        yield [ref for ref in refs if ref.key > start_after]
                    return
                yield tuple(self._refs(page))

    def _by_folder(self, prefix: str) -> Iterator[Sequence[ObjectRef]]:
        """The same objects in pages, in any order, asked for folder by folder: within one, no key comes out of turn."""
        folders = [prefix[: prefix.rfind("/") + 1]]
        while folders:
            folder, deeper = folders.pop(), set[str]()
            for page in self._pages(Prefix=folder, Delimiter="/"):
                yield [ref for ref in self._refs(page) if ref.key.startswith(prefix)]
                deeper.update(found["Prefix"] for found in page.get("CommonPrefixes", ()))
            folders += [found for found in deeper if found.startswith(prefix)]

    def _refs(self, page: dict[str, Any]) -> Iterator[ObjectRef]:
        for found in page.get("Contents", ()):
            if not _UNFINISHED.search(found["Key"]):
                yield ObjectRef(
                    bucket=self.name,
                    key=found["Key"],
                    etag=found["ETag"].strip('"'),
                    size_bytes=found["Size"],
                    last_modified=found["LastModified"],
                )

    def _create(self) -> None:
        # AWS takes no location for its first region, and demands it for all others.
        elsewhere = {} if self.address.region == "us-east-1" else {"LocationConstraint": self.address.region}
        try:
            self.client.create_bucket(
                Bucket=self.name, **({"CreateBucketConfiguration": elsewhere} if elsewhere else {})
            )
        except ClientError as error:
            if error.response["Error"]["Code"] != "BucketAlreadyOwnedByYou":  # another process was faster
                raise

    def _changed(self, ref: ObjectRef, got: str) -> SourceChanged:
        return SourceChanged(
            ref.uri,
            expected=f"etag {ref.etag}",
            got=got,
            remedy="nothing to do: the new version is picked up as a new object",
        )


class ObjectStream:
    """An object's bytes as they come. Reading raises StorageError when the connection breaks."""

    def __init__(self, bucket: Bucket, key: str, body: Any) -> None:
        self._bucket, self._key, self._body = bucket, key, body

    def read(self, n_bytes: int | None = None) -> bytes:
        """The next `n_bytes`, or all that is left; fewer only at the end."""
        with self._bucket.explained(self._key):
            read: bytes = self._body.read(n_bytes)
        return read

    def close(self) -> None:
        self._body.close()


def _one_ahead(pages: Iterator[Sequence[ObjectRef]]) -> Iterator[Sequence[ObjectRef]]:
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="listing") as fetching:
        coming = fetching.submit(next, pages, None)
        while (page := coming.result()) is not None:
            coming = fetching.submit(next, pages, None)
            yield page


def _loses_keys(page: dict[str, Any]) -> bool:
    """Whether this store loses keys between the pages of a listing.

    nanio lists folder by folder (`a/x` before `a.txt`), yet goes on after the last key as if all had come in order.
    The probe finds out should another store do so.
    """
    return str(page["ResponseMetadata"]["HTTPHeaders"].get("server", "")).startswith("uvicorn")
