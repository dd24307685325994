"""Keys on two makes of S3 server: what is kept is listed once, as it was given; what is not is refused or named here."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from lake.bucket import Bucket
from lake.errors import SourceChanged, StorageError

pytestmark = pytest.mark.integration

KEPT = "kept"
NO_SEGMENTS = "InvalidObjectName"
# 1,024 bytes, the longest that S3 allows, in parts that a file system can name.
LONGEST = f"in/{'/'.join(['k' * 200] * 5)}/{'y' * 16}"
# What becomes of a key: kept, or the code of the refusal, or the other name that it gets.
OUTCOMES: dict[str, dict[str, str]] = {
    "in/two  spaces and one at the end ": {"nanio": KEPT, "versitygw": KEPT},
    "in/ümläut 日本 😀 e\u0301": {"nanio": KEPT, "versitygw": KEPT},
    "in/plus+plus": {"nanio": KEPT, "versitygw": KEPT},
    "in/50% & a=b;c?d#e\\f": {"nanio": KEPT, "versitygw": KEPT},
    # nanio checks the signature against a key that it has decoded once too often.
    "in/%20": {"nanio": "SignatureDoesNotMatch", "versitygw": KEPT},
    "in/a%2Fb": {"nanio": "SignatureDoesNotMatch", "versitygw": KEPT},
    "in/new\nline": {"nanio": "SignatureDoesNotMatch", "versitygw": KEPT},
    LONGEST: {"nanio": KEPT, "versitygw": KEPT},
    # Both keep objects as files, whose names end at 255 bytes.
    f"in/{'z' * 1_021}": {"nanio": "InternalError", "versitygw": "KeyTooLongError"},
    # A file system's meaning of dots is refused by one, and acted upon by the other: an inbox cannot be written
    # from another prefix by it, but an object may come to lie elsewhere than its key says.
    "in/../up": {"nanio": NO_SEGMENTS, "versitygw": "as up"},
    "in/./here": {"nanio": NO_SEGMENTS, "versitygw": "as in/here"},
    "in//twice": {"nanio": NO_SEGMENTS, "versitygw": "as in/twice"},
    "../out": {"nanio": NO_SEGMENTS, "versitygw": "400"},
    "in/..": {"nanio": NO_SEGMENTS, "versitygw": "400"},
    "in/..name/.hidden.": {"nanio": KEPT, "versitygw": KEPT},
    "in/with bytes/": {"nanio": NO_SEGMENTS, "versitygw": "DirectoryObjectContainsData"},
}
STORES = ("nanio", "versitygw")


@pytest.fixture
def store(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def store_url(request: pytest.FixtureRequest, store: str) -> str:
    url: str = request.getfixturevalue(f"{store}_url")
    return url


def listed(bucket: Bucket, prefix: str = "") -> list[str]:
    return [ref.key for ref in bucket.list(prefix)]


@pytest.mark.parametrize("store", STORES, indirect=True)
def test_every_key_has_one_outcome(bucket: Bucket, store: str) -> None:
    found = {}
    for key in OUTCOMES:
        before = set(listed(bucket))
        try:
            bucket.put(key, b"text")
        except StorageError as error:
            found[key] = error.got.split()[0]
            assert set(listed(bucket)) == before, key
            continue
        (name,) = set(listed(bucket)) - before
        found[key] = KEPT if name == key else f"as {name}"
        (ref,) = (ref for ref in bucket.list(name) if ref.key == name)
        assert bucket.open_version(ref).read() == b"text"
    assert found == {key: outcome[store] for key, outcome in OUTCOMES.items()}


@pytest.mark.parametrize("store", STORES, indirect=True)
def test_an_object_of_no_bytes_is_an_object(bucket: Bucket) -> None:
    bucket.put("in/empty.txt", b"")
    (ref,) = bucket.list("in/")
    assert (ref.key, ref.size_bytes, bucket.open_version(ref).read()) == ("in/empty.txt", 0, b"")


@pytest.mark.parametrize("store", ["versitygw"], indirect=True)
def test_a_folder_of_the_console_is_an_object_of_no_bytes(bucket: Bucket) -> None:
    bucket.put("in/folder/", b"")
    bucket.put("in/folder/a", b"x")
    assert [(ref.key, ref.size_bytes) for ref in bucket.list("in/")] == [("in/folder/", 0), ("in/folder/a", 1)]


@pytest.mark.parametrize("store", ["versitygw"], indirect=True)
def test_a_key_that_a_listing_cannot_show_cannot_be_read(bucket: Bucket) -> None:
    """XML has no control characters: versitygw lists U+FFFD instead, and nothing is stored under that."""
    bucket.put("in/\x01control", b"x")
    (ref,) = bucket.list("in/")
    assert ref.key == "in/\ufffdcontrol"
    with pytest.raises(SourceChanged):
        bucket.open_version(ref)


@pytest.mark.parametrize("store", ["versitygw"], indirect=True)
def test_more_than_a_page_is_listed_whole_and_in_order(bucket: Bucket) -> None:
    """`in/a-b` and `in/a.txt` come before `in/a/…` in S3's order, after it in a file system's; 1,000 make a page.

    nanio's order between pages is in test_store.py, on small pages: writing as many objects takes it 8 s.
    """
    names = [f"in/a/{i:04d} +%ü" for i in range(1_000)] + [f"in/a-b/{i}" for i in range(20)] + ["in/a.txt", "in/a0"]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: bucket.put(name, b"x"), names))
    assert listed(bucket, "in/") == sorted(names)
    assert listed(bucket, "in/a") == sorted(names)
    assert listed(bucket, "in/a/") == sorted(name for name in names if name.startswith("in/a/"))


@pytest.mark.parametrize("store", ["versitygw"], indirect=True)
def test_if_match_is_kept_by_the_store_itself(bucket: Bucket) -> None:
    """nanio ignores the condition, and the answer's ETag tells; here the store refuses. Both end in SourceChanged."""
    bucket.put("in/a", b"first")
    (ref,) = bucket.list("in/")
    bucket.put("in/a", b"second")
    with pytest.raises(bucket.client.exceptions.ClientError) as caught:
        bucket.client.get_object(Bucket=bucket.name, Key="in/a", IfMatch=f'"{ref.etag}"')
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 412
    with pytest.raises(SourceChanged, match="PreconditionFailed"):
        bucket.open_version(ref)
