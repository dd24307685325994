"""The bucket on real S3 servers of two makes: what it does, what it says when it cannot, and the probe at start-up."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest

from lake.bucket import Bucket
from lake.errors import SourceChanged, StorageError
from lake.probe import probe_store
from tests.ports import free_ports
from tests.s3 import address_of, nanio

pytestmark = pytest.mark.integration


@pytest.fixture(params=["nanio", "versitygw"])
def store(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def store_url(request: pytest.FixtureRequest, store: str) -> str:
    url: str = request.getfixturevalue(f"{store}_url")
    return url


# Where a test is about one make of server, or the client's own doing.
only_nanio = pytest.mark.parametrize("store", ["nanio"], indirect=True)


def keys(bucket: Bucket, prefix: str = "") -> list[str]:
    return [ref.key for ref in bucket.list(prefix)]


def elsewhere(bucket: Bucket, **changes: Any) -> Bucket:
    """The same bucket, opened with something wrong."""
    return Bucket(bucket.address.model_copy(update=changes))


def test_what_is_put_is_listed_and_read(bucket: Bucket) -> None:
    bucket.put("a/one.txt", b"1")
    bucket.put("a/two.txt", b"22")
    bucket.put("b/three.txt", b"333")
    found = list(bucket.list("a/"))
    assert [(ref.key, ref.size_bytes) for ref in found] == [("a/one.txt", 1), ("a/two.txt", 2)]
    assert found[0].uri == f"s3://{bucket.name}/a/one.txt"
    assert bucket.get("a/two.txt") == b"22"
    assert bucket.exists("b/three.txt")
    assert not bucket.exists("b/four.txt")
    assert bucket.digest("a/one.txt") == (1, hashlib.sha256(b"1").hexdigest())


@pytest.mark.parametrize(
    "name", ["with space.txt", "plus+and&.txt", "ümläut 日本.txt", "50%.txt", "q?a=b#c.txt", "x'\".txt"]
)
def test_names_as_people_give_them(bucket: Bucket, name: str) -> None:
    bucket.put(f"inbox/docs/{name}", b"text")
    (ref,) = bucket.list("inbox/docs/")
    assert ref.key == f"inbox/docs/{name}"
    assert bucket.open_version(ref).read() == b"text"


@pytest.mark.parametrize("page_size", [1, 2, 3, 1_000])
@pytest.mark.parametrize("prefix", ["", "in/", "in/a", "in/a/", "in/a-b", "in/none/"])
def test_no_key_is_lost_between_pages(bucket: Bucket, page_size: int, prefix: str) -> None:
    # In a file system's order a folder's files come before its neighbours; in S3's, "-" and "." come before "/".
    names = ["in/a/1", "in/a/2/x", "in/a/2/y", "in/a-b/1", "in/a.txt", "in/a0", "in/b", "out", "in/a!/z"]
    for name in names:
        bucket.put(name, b"x")
    assert keys(Bucket(bucket.address, page_size), prefix) == sorted(name for name in names if name.startswith(prefix))


def test_an_upload_that_has_not_ended_is_not_listed(bucket: Bucket) -> None:
    sent_half: list[list[str]] = []

    def body() -> Iterator[bytes]:
        yield b"x" * 300_000
        sent_half.append(keys(bucket))
        yield b"x" * 300_000

    link = bucket.client.generate_presigned_url("put_object", Params={"Bucket": bucket.name, "Key": "in/large.txt"})
    httpx.put(link, content=body(), headers={"content-length": "600000"}, timeout=30).raise_for_status()
    assert sent_half == [[]]
    assert keys(bucket) == ["in/large.txt"]


def test_the_version_that_was_listed_or_none(bucket: Bucket) -> None:
    bucket.put("in/a", b"first")
    (ref,) = bucket.list("in/")
    assert bucket.open_version(ref).read() == b"first"
    bucket.put("in/a", b"second")
    with pytest.raises(SourceChanged, match="picked up as a new object"):
        bucket.open_version(ref)
    bucket.client.delete_object(Bucket=bucket.name, Key="in/a")
    with pytest.raises(SourceChanged, match="NoSuchKey"):
        bucket.open_version(ref)


def test_a_large_file_goes_up_in_parts_and_comes_back_whole(bucket: Bucket, tmp_path: Path) -> None:
    source = tmp_path / "large"
    source.write_bytes(bytes(range(256)) * 80_000)  # 20 MB: boto3 sends parts from 8 MB on
    bucket.upload(source, "models/large")
    (ref,) = bucket.list("models/")
    assert "-" in ref.etag  # S3's mark of a multipart upload
    bucket.download("models/large", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == source.read_bytes()


def test_folders_go_up_and_come_back(bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "out" / "deep").mkdir(parents=True)
    (tmp_path / "out" / "a").write_text("a")
    (tmp_path / "out" / "deep" / "b").write_text("b")
    assert bucket.upload_folder(tmp_path / "out", "models/m/") == ("models/m/a", "models/m/deep/b")
    bucket.download_folder("models/m/", tmp_path / "back")
    assert (tmp_path / "back" / "deep" / "b").read_text() == "b"
    bucket.delete_folder("models/m/")
    assert keys(bucket) == []


@only_nanio
@pytest.mark.parametrize("prefix", ["inbox/docs/", "recipes/", "feedback/", "models/m", ""])
def test_what_users_write_is_never_deleted(bucket: Bucket, prefix: str) -> None:
    bucket.put("inbox/docs/a", b"x")
    with pytest.raises(ValueError, match="expected a folder that Tidemill writes"):
        bucket.delete_folder(prefix)
    assert keys(bucket) == ["inbox/docs/a"]


def test_tables_come_back_with_their_schema(bucket: Bucket) -> None:
    table = pa.table({"id": ["a", "b"], "n": pa.array([1, 2**63], pa.uint64())})
    bucket.put_table("datasets/x.parquet", table)
    assert bucket.get_table("datasets/x.parquet").equals(table)
    assert bucket.get_table("datasets/x.parquet", ["n"]).column_names == ["n"]


def test_a_link_opens_without_keys(bucket: Bucket) -> None:
    bucket.put("reports/page.html", b"<p>report</p>", "text/html")
    answer = httpx.get(bucket.url("reports/page.html", expires_s=60))
    assert (answer.text, answer.headers["content-type"]) == ("<p>report</p>", "text/html")
    assert httpx.get(bucket.url("reports/page.html").split("?")[0]).status_code == 403


def test_ensure_makes_the_bucket_only_when_asked(bucket: Bucket) -> None:
    other = elsewhere(bucket, name=f"{bucket.name}-more")
    with pytest.raises(StorageError, match="create the bucket, or set TIDEMILL_BUCKET"):
        other.ensure(create=False)
    other.ensure(create=True)
    other.ensure(create=True)
    other.ensure(create=False)


_CALLS: dict[str, Callable[[Bucket], object]] = {
    "ensure": lambda bucket: bucket.ensure(create=False),
    "list": lambda bucket: list(bucket.list("in/")),
    "get": lambda bucket: bucket.get("in/a"),
    "put": lambda bucket: bucket.put("in/a", b"x"),
    "upload": lambda bucket: bucket.upload(Path(__file__), "in/a"),
    "digest": lambda bucket: bucket.digest("in/a"),
    "probe": probe_store,
}


@pytest.mark.parametrize("call", _CALLS)
@pytest.mark.parametrize(
    ("changes", "got", "remedy"),
    [
        ({"name": "no-such-bucket"}, "NoSuchBucket", "set TIDEMILL_BUCKET"),
        ({"secret_access_key": "wrong"}, "SignatureDoesNotMatch", "set TIDEMILL_S3_SECRET_ACCESS_KEY"),
        ({"access_key_id": "nobody"}, ("InvalidAccessKeyId", "XAdminUserNotFound"), "set TIDEMILL_S3_ACCESS_KEY_ID"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_refusal_says_what_to_do(
    bucket: Bucket, call: str, changes: dict[str, str], got: str | tuple[str, ...], remedy: str
) -> None:
    with pytest.raises(StorageError) as caught:
        _CALLS[call](elsewhere(bucket, **changes))
    assert caught.value.got.startswith(got)
    assert remedy in caught.value.remedy
    assert "wrong" not in str(caught.value)


@only_nanio
def test_a_store_that_is_away_is_named(bucket: Bucket) -> None:
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    with pytest.raises(StorageError) as caught:
        elsewhere(bucket, endpoint_url=url).ensure(create=True)
    assert f"check that {url} is up" in caught.value.remedy


def test_a_failed_write_does_not_spoil_the_next_request(bucket: Bucket) -> None:
    other = elsewhere(bucket, name=f"{bucket.name}-late")
    with pytest.raises(StorageError, match="NoSuchBucket"):
        other.put("a", b"x" * 100_000)
    with pytest.raises(StorageError, match="NoSuchBucket"):
        other.upload(Path(__file__), "a")
    other.ensure(create=True)
    other.put("a", b"x")
    assert keys(other) == ["a"]


def test_an_object_that_is_not_there_is_said_to_be_so(bucket: Bucket) -> None:
    with pytest.raises(StorageError, match="nothing is stored under it"):
        bucket.get("recipes/nobody.yaml")


def test_a_full_disk_is_suspected(tmp_path: Path) -> None:
    with nanio(tmp_path, max_file_bytes=1_000_000) as url:
        bucket = Bucket(address_of(url, "full"))
        bucket.ensure(create=True)
        bucket.put("small", b"x")
        with pytest.raises(StorageError, match="free space on its disk"):
            bucket.put("large", b"x" * 1_500_000)
        assert keys(bucket) == ["small"]


def test_objects_outlive_the_server(tmp_path: Path) -> None:
    with nanio(tmp_path) as url:
        bucket = Bucket(address_of(url, "kept"))
        bucket.ensure(create=True)
        bucket.put("in/a", b"x")
        before = list(bucket.list(""))
    with nanio(tmp_path) as url:
        assert list(Bucket(address_of(url, "kept")).list("")) == before


def test_the_probe_leaves_nothing_behind(bucket: Bucket, store: str) -> None:
    bucket.put("probe/of-someone-else", b"x")
    capabilities = probe_store(bucket)
    # nanio is known to ignore both conditions, versitygw keeps them; nothing relies on them.
    kept = store == "versitygw"
    assert (capabilities.if_match, capabilities.conditional_put) == (kept, kept)
    assert f"conditional put: {'yes' if kept else 'no (not needed)'}" in str(capabilities)
    assert keys(bucket) == ["probe/of-someone-else"]


@only_nanio
@pytest.mark.parametrize(
    ("method", "broken", "expected"),
    [
        ("list", lambda real: lambda prefix: iter(()), "a written object in the next listing"),
        ("delete_folder", lambda real: lambda prefix: None, "deleted objects gone"),
        ("get", lambda real: lambda key: real(key)[:-1], "the bytes of a multipart upload"),
    ],
)
def test_the_probe_refuses_a_store_that_lacks_something_essential(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, method: str, broken: Callable[[Any], Any], expected: str
) -> None:
    monkeypatch.setattr(bucket, method, broken(getattr(bucket, method)))
    with pytest.raises(StorageError) as caught:
        probe_store(bucket)
    assert expected in caught.value.expected
    assert "use a store with the whole S3 object API" in caught.value.remedy


@only_nanio
def test_the_probe_refuses_a_store_that_loses_keys_between_pages(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lake.bucket._loses_keys", lambda page: False)  # as if this server did not give itself away
    with pytest.raises(StorageError, match="in a listing, in order"):
        probe_store(bucket)
