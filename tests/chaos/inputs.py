"""What the harness puts into an inbox, and its own record of it: every version with the documents that are in it."""

from __future__ import annotations

import gzip
import io
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from lake.bucket import Bucket
from lake.layout import inbox_prefix, recipe_key
from tests.documents import document

RECIPE = """
name: {model}
base_model: {base_model}
check: {{min_documents: 1}}
training: {{min_documents: {min_documents}, steps: 6, batch_size: 2, sequence_length: 64, learning_rate: 0.03,
  checkpoint_every_steps: 2, validation_tokens: 256, warmup_steps: 1}}
gate: {{min_gain_over_base: 0.0, max_perplexity_ratio: 100, max_regression: 100, max_task_drop: 1.0,
  held_out_tokens: 512}}
export: {{max_quantization_loss: 1.0}}
rollout: {{steps: []}}
monitoring: {{interval_s: 3600}}
"""


@dataclass
class Upload:
    """One version of one object. `cut`: a truncated gzip, of which any first documents can be read, then a dead letter."""

    key: str
    etag: str
    documents: dict[str, str]
    cut: bool = False
    gone: bool = False  # overwritten or deleted since, before or after it was listed or read


@dataclass
class Inbox:
    """A model's inbox with all that was ever put into it."""

    bucket: Bucket
    model: str
    uploads: list[Upload] = field(default_factory=list)

    def register(self, base_model: str = "smollm2-135m-instruct", min_documents: int = 1_000_000) -> None:
        recipe = RECIPE.format(model=self.model, base_model=base_model, min_documents=min_documents)
        self.bucket.put(recipe_key(self.model), recipe.encode())

    def retire(self) -> None:
        """Take the recipe away: the watcher need not look here any more."""
        self.bucket.client.delete_object(Bucket=self.bucket.name, Key=recipe_key(self.model))

    def put(self, name: str, body: bytes, documents: dict[str, str], *, cut: bool = False) -> None:
        key = f"{inbox_prefix(self.model)}{name}"
        answer = self.bucket.client.put_object(Bucket=self.bucket.name, Key=key, Body=body)
        self._gone(key)
        self.uploads.append(Upload(key, answer["ETag"].strip('"'), documents, cut))

    def delete(self, name: str) -> None:
        key = f"{inbox_prefix(self.model)}{name}"
        self.bucket.client.delete_object(Bucket=self.bucket.name, Key=key)
        self._gone(key)

    def put_batch(self, seed: int) -> None:
        """A few objects in several formats, with a duplicate, a truncated gzip, and two that will not stay."""
        draw = random.Random(seed)
        first = draw.randrange(10**9)
        texts = [document(first + n, draw.randrange(4, 9)) for n in range(24)]
        name = f"{seed:08x}/"
        self.put(f"{name}a.jsonl", _jsonl(texts[:4]), _numbered("line", texts[:4]))
        self.put(f"{name}b.txt", texts[4].encode(), {"object": texts[4]})
        self.put(f"{name}c.parquet", _parquet(texts[5:9]), _numbered("row", texts[5:9]))
        again = [*texts[9:11], texts[0]]
        self.put(f"{name}d.json", json.dumps([{"text": text} for text in again]).encode(), _numbered("row", again))
        self.put(f"{name}e.jsonl.gz", gzip.compress(_jsonl(texts[11:14])), _numbered("line", texts[11:14]))
        whole = gzip.compress(_jsonl(texts[14:20]))
        self.put(f"{name}cut.jsonl.gz", whole[: len(whole) * 2 // 3], _numbered("line", texts[14:20]), cut=True)
        self.put(f"{name}changing.jsonl", _jsonl(texts[20:21]), _numbered("line", texts[20:21]))
        self.put(f"{name}leaving.txt", texts[21].encode(), {"object": texts[21]})

    def put_many(self, n_documents: int, seed: int = 0) -> None:
        """One object of so many documents."""
        texts = [document(seed * 1_000 + number) for number in range(n_documents)]
        self.put(f"{seed:08x}/many.jsonl", _jsonl(texts), _numbered("line", texts))

    def change_batch(self, seed: int) -> None:
        """One object is overwritten and one deleted: before it was listed, before it was read, or after."""
        texts = [document(seed * 7 + n + 10**9) for n in range(2)]
        self.put(f"{seed:08x}/changing.jsonl", _jsonl(texts), _numbered("line", texts))
        self.delete(f"{seed:08x}/leaving.txt")

    def _gone(self, key: str) -> None:
        for upload in self.uploads:
            upload.gone |= upload.key == key


def _jsonl(texts: Sequence[str]) -> bytes:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


def _parquet(texts: Sequence[str]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": list(texts)}), sink)
    return sink.getvalue()


def _numbered(kind: str, texts: Sequence[str]) -> dict[str, str]:
    return {f"{kind}:{number}": text for number, text in enumerate(texts, start=1)}
