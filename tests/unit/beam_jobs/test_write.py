"""What one part leaves in the bucket, and that its counts add up."""

from __future__ import annotations

import pyarrow as pa
import pytest

from beam_jobs.part import SCHEMA
from beam_jobs.simhash import fingerprint
from beam_jobs.write import Drops, write_part
from lake.bucket import Bucket
from lake.recipe import PrepareRules
from tests.documents import document

NONE = Drops([], [], [], [])


def part(n_documents: int, rejected: dict[int, str]) -> pa.Table:
    rows = []
    for n in range(n_documents):
        hashed = fingerprint(document(n))
        row = {"id": f"d{n}", "given_id": None, "source_uri": "s3://b/k", "source_etag": "e", "position": f"line:{n}"}
        row |= {"detail": "", "n_characters": 100, "n_redacted": 1, "n_words": 9, "lang": "en", "pii_leaks": 0}
        row |= {"letters_share": 0.9, "repetition": 0.0, "reason": rejected.get(n)}
        if n not in rejected:
            row |= {"text": document(n), "exact": hashed.exact, "signature": hashed.signature}
            row |= {"shingles": hashed.shingles.tolist()}
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def tables(bucket: Bucket, folder: str) -> list[dict[str, object]]:
    return [row for ref in bucket.list(f"datasets/m/d/{folder}/") for row in bucket.get_table(ref.key).to_pylist()]


def test_everything_goes_somewhere(bucket: Bucket) -> None:
    rules = PrepareRules(validation_share=0.3, test_share=0.3)
    drops = Drops([3, 5], ["near_duplicate", "exact_duplicate"], ["h9", "d0"], [0.85, 1.0])
    counts = write_part(bucket, "datasets/m/d/", "n000000", part(40, {1: "too_short", 2: "bad_json"}), drops, rules)

    shards = tables(bucket, "shards")
    assert {row["id"] for row in shards} == {f"d{n}" for n in range(40)} - {"d1", "d2", "d3", "d5"}
    assert {row["id"]: row["text"] for row in shards}["d7"] == document(7)
    assert sum(counts["documents"].values()) == 36
    assert set(counts["documents"]) == {"train", "validation", "test"}
    assert counts["characters"] == {split: 100 * n for split, n in counts["documents"].items()}
    assert counts["rejected"] == {"too_short": 1, "bad_json": 1, "near_duplicate": 1, "exact_duplicate": 1}
    assert counts["redacted"] == {"spans": 40}

    rejects = {row["id"]: row for row in tables(bucket, "rejects")}
    assert set(rejects) == {"d1", "d2", "d3", "d5"}
    assert (rejects["d3"]["reason"], rejects["d3"]["duplicate_of"], rejects["d3"]["similarity"]) == (
        "near_duplicate",
        "h9",
        0.85,
    )
    assert rejects["d1"]["duplicate_of"] is None
    assert {row["id"] for row in tables(bucket, "signatures")} == {row["id"] for row in shards}
    metrics = tables(bucket, "metrics")
    assert len(metrics) == 40
    assert not {"text", "shingles"} & set(metrics[0])
    assert [row["reason"] for row in metrics][:6] == [
        None,
        "too_short",
        "bad_json",
        "near_duplicate",
        None,
        "exact_duplicate",
    ]


@pytest.mark.parametrize("n_documents", [0, 3])
def test_a_part_of_which_nothing_is_kept(bucket: Bucket, n_documents: int) -> None:
    table = part(n_documents, dict.fromkeys(range(n_documents), "too_short"))
    counts = write_part(bucket, "datasets/m/d/", "n000000", table, NONE, PrepareRules())
    assert counts["documents"] == {}
    assert counts["rejected"] == ({"too_short": 3} if n_documents else {})
    folders = {ref.key.split("/")[3] for ref in bucket.list("datasets/m/d/")}
    assert folders == ({"metrics", "rejects"} if n_documents else {"metrics"})
