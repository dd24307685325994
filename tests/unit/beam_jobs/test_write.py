"""What one part leaves in the bucket, and that its counts add up."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from beam_jobs.dedup import Duplicate
from beam_jobs.part import SCHEMA
from beam_jobs.simhash import fingerprint
from beam_jobs.verify import Identity
from beam_jobs.write import LeftOut, write_source
from lake.bucket import Bucket
from lake.recipe import PrepareRules
from tests.documents import document

NONE = LeftOut({}, np.zeros(0, np.int64), np.zeros(0, np.int64))


def part(n_documents: int, rejected: dict[int, str]) -> pa.Table:
    rows = []
    for n in range(n_documents):
        hashed = fingerprint(document(n))
        row = {
            "place_id": f"p{n}",
            "given_id": f"d{n}" if n else None,
            "source_uri": "s3://b/k",
            "source_etag": "e",
            "position": f"line:{n}",
        }
        row |= {
            "detail": "",
            "n_characters": 100,
            "n_tokens": 10,
            "n_redacted": 1,
            "redacted": [("email", 1)],
            "n_words": 9,
            "lang": "en",
            "pii_leaks": 0,
        }
        row |= {"letters_share": 0.9, "repetition": 0.0, "reason": rejected.get(n)}
        if n not in rejected:
            row |= {"text": document(n), "exact": hashed.exact, "signature": hashed.signature}
            row |= {"shingles": hashed.shingles.tolist(), "keys": hashed.shingles[:6].tolist(), "domain": "life"}
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def tables(bucket: Bucket, folder: str) -> list[dict[str, object]]:
    return [row for ref in bucket.list(f"datasets/m/d/{folder}/") for row in bucket.get_table(ref.key).to_pylist()]


def test_everything_goes_somewhere(bucket: Bucket) -> None:
    rules = PrepareRules(validation_share=0.3, test_share=0.3)
    left_out = LeftOut(
        {
            3: Duplicate("near_duplicate", 9, Identity("h9", "place h9"), 0.85),
            5: Duplicate("exact_duplicate", 0, Identity("p0", "p0"), 1.0),
        },
        np.array([6]),
        np.array([6]),
    )
    table = part(40, {1: "too_short", 2: "bad_json"})
    counts = write_source(bucket, "datasets/m/d/", "000000-00000", table, left_out, rules)

    shards = tables(bucket, "shards")
    assert {row["id"] for row in shards} == {"p0"} | {f"d{n}" for n in range(1, 40)} - {"d1", "d2", "d3", "d5", "d6"}
    assert {row["id"]: row["text"] for row in shards}["d7"] == document(7)
    assert sum(counts["documents"].values()) == 35
    assert set(counts["documents"]) == {"train", "validation", "test"}
    assert counts["characters"] == {split: 100 * n for split, n in counts["documents"].items()}
    once = ("too_short", "bad_json", "near_duplicate", "exact_duplicate", "over_quota")
    assert counts["rejected"] == dict.fromkeys(once, 1)
    assert counts["redacted"] == {"email": 40}
    assert counts["domains"] == {"life": 350}
    assert sum(counts["tokens"].values()) == 350
    assert counts["languages"] == {"en": 35}

    rejects = {row["id"]: row for row in tables(bucket, "rejects")}
    assert set(rejects) == {"d1", "d2", "d3", "d5", "d6"}
    assert (rejects["d3"]["reason"], rejects["d3"]["duplicate_of"], rejects["d3"]["similarity"]) == (
        "near_duplicate",
        "h9",
        0.85,
    )
    assert (rejects["d3"]["duplicate_of_place"], rejects["d3"]["place_id"]) == ("place h9", "p3")
    assert rejects["d1"]["duplicate_of"] is None
    for folder in ("signatures", "shingles"):
        assert {row["place_id"] for row in tables(bucket, folder)} == {row["place_id"] for row in shards}
    (waiting,) = tables(bucket, "reserve")
    assert (waiting["given_id"], waiting["text"], waiting["reason"]) == ("d6", document(6), None)
    assert waiting["shingles"] == fingerprint(document(6)).shingles.tolist()
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
    counts = write_source(bucket, "datasets/m/d/", "000000-00000", table, NONE, PrepareRules())
    assert counts.get("documents", {}) == {}
    assert counts["rejected"] == ({"too_short": 3} if n_documents else {})
    folders = {ref.key.split("/")[3] for ref in bucket.list("datasets/m/d/")}
    assert folders == ({"metrics", "rejects"} if n_documents else {"metrics"})
