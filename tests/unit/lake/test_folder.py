"""A local folder behaves as a bucket does: what is put is listed and read, and what changed is noticed."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import pyarrow as pa
import pytest

from lake.errors import SourceChanged, StorageError
from lake.folder import Folder


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "store")


def test_what_is_put_is_listed_and_read(folder: Folder) -> None:
    for key, body in (("a/two.txt", b"22"), ("b/three.txt", b"333"), ("a/one.txt", b"1"), ("a.txt", b"")):
        folder.put(key, body)
    found = list(folder.list("a/"))

    assert [(ref.key, ref.size_bytes) for ref in found] == [("a/one.txt", 1), ("a/two.txt", 2)]
    assert found[0].uri == f"file://{folder.root}/a/one.txt" == folder.uri("a/one.txt")
    assert [ref.key for ref in folder.list("")] == ["a.txt", "a/one.txt", "a/two.txt", "b/three.txt"]
    assert [ref.key for ref in folder.list("a/t")] == ["a/two.txt"]
    assert [ref.key for ref in folder.list("nothing/")] == []
    assert folder.get("a/two.txt") == b"22"
    assert folder.exists("b/three.txt")
    assert not folder.exists("b")
    assert folder.digest("b/three.txt") == (3, hashlib.sha256(b"333").hexdigest())
    with folder.open_version(found[1]) as stream:  # type: ignore[attr-defined]
        assert stream.read(1) + stream.read() == b"22"


def test_the_whole_file_system_is_a_folder_too(folder: Folder) -> None:
    folder.put("one.txt", b"1")
    ref = Folder(Path("/")).ref(f"{folder.root}/one.txt".removeprefix("/"))

    assert ref.uri == f"file://{folder.root}/one.txt"
    assert ref.etag == next(folder.list("")).etag


def test_tables_come_back_as_they_were(folder: Folder) -> None:
    table = pa.table({"id": ["x", "y"], "n": [1, 2]})
    folder.put_table("t.parquet", table)
    assert folder.get_table("t.parquet").equals(table)
    assert folder.get_table("t.parquet", ["n"]).column_names == ["n"]


def test_its_address_opens_it_elsewhere(folder: Folder) -> None:
    folder.put("x", b"1")
    assert pickle.loads(pickle.dumps(folder.address)).open().get("x") == b"1"


def test_a_file_that_changed_since_it_was_listed_is_not_read(folder: Folder) -> None:
    folder.put("x", b"1")
    ref = next(folder.list(""))
    folder.put("x", b"22")
    with pytest.raises(SourceChanged):
        folder.open_version(ref)
    folder.delete("x")
    with pytest.raises(SourceChanged, match="no file"):
        folder.open_version(ref)


def test_a_folder_goes_with_everything_in_it(folder: Folder) -> None:
    folder.put("work/deep/er/x", b"1")
    folder.put("works", b"1")
    folder.delete_folder("work/")
    assert [path.name for path in folder.root.iterdir()] == ["works"]
    for prefix in ("inbox/m/", "works"):
        with pytest.raises(ValueError, match="expected a folder that Tidemill writes"):
            folder.delete_folder(prefix)


def test_errors_say_where_and_what_to_do(folder: Folder) -> None:
    with pytest.raises(StorageError, match="no/where") as caught:
        folder.get("no/where")
    assert "FileNotFoundError" in caught.value.got
    with pytest.raises(ValueError, match="expected a path below"):
        folder.get("../x")


def test_a_half_written_file_is_never_seen(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.put("x", b"old")

    def seen(source: Path, target: Path) -> None:
        assert [ref.key for ref in folder.list("")] == ["x"]
        assert folder.get("x") == b"old"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", seen)
    with pytest.raises(StorageError, match="No space left"):
        folder.put("x", b"new")
    assert [path.name for path in folder.root.iterdir()] == ["x"]
