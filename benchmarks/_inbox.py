"""An inbox with many objects, quickly: written as nanio keeps them on disk, which over HTTP would take half an hour."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from nanio.storage.paths import metadata_path, object_path

from lake.bucket import Bucket
from lake.layout import inbox_prefix

N_CHECKED = 7


def fill(data: Path, bucket: Bucket, model: str, n_objects: int, n_folders: int) -> None:
    """Put `n_objects` small texts in the model's inbox, spread over `n_folders` (1: none but the inbox itself).

    `data` is the data folder of the nanio that serves `bucket`. Some are read back by HTTP: raises ValueError when one
    is not what was written.
    """
    now = datetime.now(UTC).isoformat()
    for number, (key, body) in enumerate(_objects(model, n_objects, n_folders)):
        etag = f'"{hashlib.md5(body).hexdigest()}"'
        sidecar = json.dumps({"etag": etag, "size": len(body), "last_modified": now, "content_type": "text/plain"})
        for path, content in (
            (object_path(data, bucket.name, key), body),
            (metadata_path(data, bucket.name, key), sidecar.encode()),
        ):
            if number < n_folders:
                path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        if number % max(1, n_objects // N_CHECKED) == 0:
            answer = bucket.client.get_object(Bucket=bucket.name, Key=key)
            if answer["ETag"] != etag or answer["Body"].read() != body:
                raise ValueError(f"{key}: expected what was written; has nanio's layout on disk changed?")


def _objects(model: str, n_objects: int, n_folders: int) -> Iterator[tuple[str, bytes]]:
    for number in range(n_objects):
        folder = f"part-{number % n_folders:03}/" if n_folders > 1 else ""
        yield f"{inbox_prefix(model)}{folder}note-{number:06}.txt", f"Note {number}: nothing new.\n".encode()
