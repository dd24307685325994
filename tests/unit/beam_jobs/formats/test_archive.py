"""Zip archives: what is in them is read, what they are made to do does not happen."""

from __future__ import annotations

import gzip
import io
import random
import struct
import zipfile
from pathlib import Path

import pytest

from beam_jobs.formats import Extracted
from lake.recipe import PrepareRules
from lake.recipe.formats import Formats
from tests.extraction import GOOD, documents, letters, texts
from tests.fuzz.samples import zipped

SMALL = PrepareRules(formats=Formats(max_entries=3, max_ratio=10, max_depth=2))


def test_each_file_is_read_by_its_own_format() -> None:
    content = zipped({"in/a.jsonl": GOOD.encode(), "b.txt": b"a text", "c.jsonl.gz": gzip.compress(GOOD.encode())})
    assert documents("a.zip", content) == [
        Extracted("entry:in/a.jsonl,line:1", "first", "a"),
        Extracted("entry:in/a.jsonl,line:2", "second", "b"),
        Extracted("entry:b.txt", "a text"),
        Extracted("entry:c.jsonl.gz,line:1", "first", "a"),
        Extracted("entry:c.jsonl.gz,line:2", "second", "b"),
    ]


def test_an_archive_in_an_archive() -> None:
    content = zipped({"b.zip": zipped({"c.txt": b"deep"})})
    assert documents("a.zip", content) == [Extracted("entry:b.zip,entry:c.txt", "deep")]


def test_bad_files_are_told_and_good_ones_read() -> None:
    content = zipped({"a.exe": b"MZ" + bytes(90), "b.jsonl": b"{", "empty.txt": b"", "c.txt": b"a text"})
    found = documents("a.zip", content)
    assert texts(found) == ["a text"]
    assert letters(found) == [
        ("entry:a.exe", "unsupported_format"),
        ("entry:b.jsonl,line:1", "bad_json"),
        ("entry:empty.txt", "no_text"),
    ]


def test_two_files_of_one_name() -> None:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("a.txt", "one")
        archive.writestr("a.txt", "two")
    assert [each.position for each in documents("a.zip", sink.getvalue())] == ["entry:a.txt", "entry:a.txt#2"]


def test_names_that_lead_elsewhere_are_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["../evil.txt", "/tmp/evil-of-tidemill.txt", "..\\evil.txt", "a\n,line:1.txt"]
    found = documents("a.zip", zipped(dict.fromkeys(names, b"text")))
    assert texts(found) == ["text"] * len(names)
    assert all("\n" not in each.position for each in found)
    assert not list(tmp_path.parent.glob("evil*"))
    assert not Path("/tmp/evil-of-tidemill.txt").exists()
    assert not list(tmp_path.iterdir())


def test_what_systems_leave_behind_is_passed_over() -> None:
    found = documents("a.zip", zipped({"__MACOSX/._a.txt": b"x", "in/.DS_Store": b"x", "in/a.txt": b"a text"}))
    assert [each.position for each in found] == ["entry:in/a.txt"]


def test_a_file_that_unpacks_to_too_much() -> None:
    content = zipped({"bomb.txt": b"x" * 5_000_000, "good.txt": b"a text"})
    found = documents("a.zip", content, SMALL)
    assert texts(found)[-1:] == ["a text"]
    assert letters(found) == [("entry:bomb.txt", "zip_bomb")]


def test_a_ratio_says_nothing_about_a_small_file() -> None:
    assert letters(documents("a.zip", zipped({"a.txt": b"x" * 900_000}), SMALL)) == []


def test_files_that_are_too_much_together() -> None:
    noise = [random.Random(n).randbytes(100_000).hex().encode() for n in range(10)]
    content = zipped({f"{n}.txt": each for n, each in enumerate(noise)})
    found = documents("a.zip", content, PrepareRules(max_object_bytes=1_500_000))
    assert letters(found) == [("object", "too_large")]
    assert any(each.position.startswith("entry:6.txt") for each in found)


def test_too_many_files() -> None:
    assert letters(documents("a.zip", zipped({f"{n}.txt": b"x" for n in range(4)}), SMALL)) == [
        ("object", "too_many_entries")
    ]


def test_a_directory_that_is_larger_than_its_files_is_not_loaded() -> None:
    names = zipped({f"{n}{'x' * 2_000}": b"" for n in range(3)})
    (found,) = documents("a.zip", names, SMALL)
    assert (found.reason, found.detail.split(",")[0]) == (
        "too_many_entries",
        f"{_directory_bytes(names)} bytes of names",
    )


def _directory_bytes(archive: bytes) -> int:
    return int(struct.unpack("<I", archive[-10:-6])[0])


def test_archives_too_deep_in_each_other() -> None:
    content = b"deep"
    for depth in range(4):
        content = zipped({f"{depth}.zip" if depth else "a.txt": content})
    ((position, reason),) = letters(documents("a.zip", content, SMALL))
    assert (position, reason) == ("entry:3.zip,entry:2.zip", "nested_too_deep")
    packed = gzip.compress(gzip.compress(gzip.compress(b"deep")))
    assert letters(documents("a.txt.gz", packed, SMALL)) == [("object", "nested_too_deep")]


def test_a_locked_file() -> None:
    content = bytearray(zipped({"a.txt": b"a text"}))
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    assert letters(documents("a.zip", bytes(content))) == [("entry:a.txt", "encrypted")]


def test_a_compression_without_a_bound_on_its_memory() -> None:
    found = documents("a.zip", zipped({"a.txt": b"a text"}, zipfile.ZIP_LZMA))
    assert letters(found) == [("entry:a.txt", "unsupported_format")]


@pytest.mark.parametrize("cut", [10, 40, -1, -30])
def test_a_cut_off_archive(cut: int) -> None:
    assert letters(documents("a.zip", zipped({"a.txt": b"a text", "b.txt": b"more"})[:cut])) == [("object", "bad_zip")]


def test_damage_in_one_file() -> None:
    content = bytearray(zipped({"a.txt": b"one text", "b.txt": b"another"}, zipfile.ZIP_STORED))
    content[content.index(b"one text")] ^= 1
    found = documents("a.zip", bytes(content))
    assert texts(found) == ["another"]
    assert letters(found) == [("entry:a.txt", "bad_zip")]


@pytest.mark.parametrize("name", ["[Content_Types].xml", "META-INF/MANIFEST.MF"])
def test_what_is_no_archive_of_documents(name: str) -> None:
    assert letters(documents("a.xlsx", zipped({name: b"x", "a.xml": b"<a/>"}))) == [("object", "unsupported_format")]
