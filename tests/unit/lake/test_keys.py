"""Keys as people give them: what the store keeps goes through listing, ledger and drop, and opens as what was put.

What two makes of store do with stranger ones is in tests/integration/test_store_keys.py.
"""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime

import pytest

from lake.bucket import Bucket
from lake.errors import StorageError
from lake.layout import inbox_prefix
from lake.ledger import Ledger
from lake.records import Drop

INBOX = inbox_prefix("docs")
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
# S3's limit, in folders whose names a file system can hold.
LONGEST = (INBOX + "/".join(["ü" * 60] * 9)).encode()[:1_020].decode(errors="ignore")
LONGEST += "x" * (1_024 - len(LONGEST.encode()))
KEPT = {
    "spaces": f"{INBOX} two  spaces .txt",
    "unicode": f"{INBOX}ümläut 日本 😀.txt",
    "plus": f"{INBOX}a+b +.txt",
    "percent": f"{INBOX}100% & 5%2.txt",
    "quotes": f"{INBOX}it's \"this\"; -- or 'that' \\ `?`.txt",
    "dots": f"{INBOX}..hidden/...txt",
    "longest": LONGEST,
}
REFUSED = {"up": f"{INBOX}../other/a.txt", "folder": f"{INBOX}folder/", "twice": f"{INBOX}a//b.txt"}


def dropped(ledger: Ledger, bucket: Bucket) -> Drop | None:
    ledger.arrivals.reconcile("docs", bucket.pages(INBOX), NOW)
    return ledger.arrivals.close_drop("docs", 0, NOW)


def test_the_longest_is_as_long_as_s3_allows() -> None:
    assert len(LONGEST.encode()) == 1_024
    assert len(LONGEST) < 1_024


@pytest.mark.parametrize("name", KEPT)
def test_a_key_that_is_kept_comes_back_as_it_was(ledger: Ledger, bucket: Bucket, name: str) -> None:
    bucket.put(KEPT[name], b"text")
    drop = dropped(ledger, bucket)
    assert drop is not None
    assert [ref.key for ref in drop.objects] == [KEPT[name]]
    assert ledger.drops.get(drop.drop_id) == drop
    assert bucket.open_version(drop.objects[0]).read() == b"text"
    assert [drop_id for _, drop_id in ledger.arrivals.drops_with_object(KEPT[name])] == [drop.drop_id]
    assert dropped(ledger, bucket) is None  # the same key again is nothing new


@pytest.mark.parametrize("name", REFUSED)
def test_a_key_that_is_refused_leaves_nothing(ledger: Ledger, bucket: Bucket, name: str) -> None:
    with pytest.raises(StorageError):
        bucket.put(REFUSED[name], b"text")
    assert list(bucket.list("")) == []
    assert dropped(ledger, bucket) is None


def test_all_of_them_make_one_drop(ledger: Ledger, bucket: Bucket) -> None:
    for key in KEPT.values():
        bucket.put(key, b"text")
    drop = dropped(ledger, bucket)
    assert drop is not None
    assert {ref.key for ref in drop.objects} == set(KEPT.values())


def test_two_ways_of_writing_one_letter_are_two_keys(ledger: Ledger, bucket: Bucket) -> None:
    """S3 compares bytes; a database that compared letters would take one for the other."""
    keys = {unicodedata.normalize(form, f"{INBOX}é.txt") for form in ("NFC", "NFD")} | {f"{INBOX}É.txt"}
    assert len(keys) == 3
    for key in keys:
        bucket.put(key, key.encode())
    drop = dropped(ledger, bucket)
    assert drop is not None
    assert {ref.key: bucket.open_version(ref).read().decode() for ref in drop.objects} == {key: key for key in keys}


def test_a_search_takes_signs_of_the_database_as_letters(ledger: Ledger, bucket: Bucket) -> None:
    for key in (f"{INBOX}100%.txt", f"{INBOX}100 of 100.txt", f"{INBOX}a_b.txt", f"{INBOX}a-b.txt"):
        bucket.put(key, b"text")
    dropped(ledger, bucket)
    for searched, found in (("100%", "100%.txt"), ("a_b", "a_b.txt")):
        assert [state.key for state in ledger.arrivals.objects(key_contains=searched)] == [INBOX + found]
