"""Bad input of every kind ends as a dead letter with position and reason; what is good beside it goes on."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.formats import extract
from beam_jobs.formats.content import Readable
from lake.errors import StorageError
from lake.recipe import PrepareRules
from lake.recipe.formats import Formats
from tests.extraction import GOOD, RULES, documents, letters, page, parquet, texts


def test_a_truncated_gzip_keeps_what_can_be_read() -> None:
    lines = "".join(
        json.dumps({"text": f"document {n} {np.random.default_rng(n).bytes(40).hex()}"}) + "\n" for n in range(500)
    )
    packed = gzip.compress(lines.encode())
    found = documents("a.jsonl.gz", packed[: len(packed) // 2])
    assert 100 < len(texts(found)) < 400
    assert all(text.startswith("document") for text in texts(found))
    ((position, reason),) = letters(found)
    assert reason == "truncated_gzip"
    n_bytes = int(position.removeprefix("byte:"))
    assert len("\n".join(lines.splitlines()[: len(texts(found))])) <= n_bytes


def test_a_damaged_gzip_keeps_what_came_before() -> None:
    packed = bytearray(gzip.compress(GOOD.encode()))
    packed[-6] ^= 0xFF  # its checksum
    found = documents("a.jsonl.gz", bytes(packed))
    assert letters(found) == [("object", "bad_gzip")]


def test_garbage_after_a_gzip() -> None:
    found = documents("a.jsonl.gz", gzip.compress(GOOD.encode()) + b"garbage")
    assert texts(found) == ["first", "second"]
    assert letters(found) == [("object", "bad_gzip")]


def test_a_gzip_bomb_is_not_unpacked_further_than_allowed() -> None:
    bomb = gzip.compress(b'{"text": "one"}\n' + b" " * 10_000_000)
    assert len(bomb) < 100_000
    found = documents("a.jsonl.gz", bomb, PrepareRules(max_object_bytes=1_000_000))
    assert texts(found) == ["one"]
    assert letters(found) == [("object", "too_large")]


def test_a_bomb_within_a_line() -> None:
    bomb = gzip.compress(b'{"text": "one"}\n{"text": "' + b"x" * 20_000_000 + b'"}\n{"text": "three"}\n')
    found = documents("a.jsonl.gz", bomb, PrepareRules(max_record_bytes=1_000_000))
    assert texts(found) == ["one", "three"]
    assert letters(found) == [("line:2", "record_too_large")]


def test_zero_bytes() -> None:
    assert letters(documents("a.jsonl", b"")) == [("object", "empty_object")]


@pytest.mark.parametrize("content", [b"\n\n", gzip.compress(b"")])
def test_an_object_without_a_document(content: bytes) -> None:
    assert letters(documents("a.jsonl", content)) == [("object", "no_text")]


@pytest.mark.parametrize("key", ["a.exe", "a.docx", "a.pdf", "a.parquet", "folder.jsonl/name.bin", "a.jsonl.zip"])
def test_an_unknown_extension(key: str) -> None:
    assert letters(documents(key, b"anything")) == [("object", "unsupported_format")]


@pytest.mark.parametrize("key", ["a.pkl", "a.jsonl", "a.txt", "a.json", "a.html", "a.parquet"])
def test_a_pickle_is_never_opened(key: str, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "exploded",))  # type: ignore[return-value]

    found = documents(key, pickle.dumps([Bomb(), "text", b"\xff\xfe\xfd"]))
    assert texts(found) == []
    assert letters(found)
    assert not (tmp_path / "exploded").exists()


def test_one_bad_line_among_good_ones() -> None:
    lines = [
        b'{"text": "one"}',
        b'{"text": "tw',
        b"[]",
        b'{"txt": "three"}',
        b'{"text": 4}',
        b"\xff\xfe",
        b'{"text": "six"}',
    ]
    found = documents("a.jsonl", b"\n".join(lines))
    assert texts(found) == ["one", "six"]
    assert letters(found) == [
        ("line:2", "bad_json"),
        ("line:3", "no_text_field"),
        ("line:4", "no_text_field"),
        ("line:5", "no_text_field"),
        ("line:6", "bad_encoding"),
    ]


def test_a_detail_says_what_was_found() -> None:
    found = documents("a.jsonl", b'{"txt": 1, "lang": 2}\n{"text": 4}\n"text"')
    assert [each.detail for each in found] == [
        "text in 'text' expected, found only txt, lang",
        "text in 'text' expected, found int",
        "an object with 'text' expected, found str",
    ]


def test_nesting_without_end() -> None:
    found = documents("a.jsonl", b"[" * 100_000 + b'\n{"text": "one"}')
    assert texts(found) == ["one"]
    assert letters(found) == [("line:1", "bad_json")]
    assert letters(documents("a.json", b"[" * 100_000)) == [("row:1", "bad_json")]


def test_a_number_too_long_to_convert() -> None:
    assert letters(documents("a.jsonl", b'{"text": "one", "n": ' + b"9" * 10_000 + b"}")) == [("line:1", "bad_json")]


def test_half_a_character_in_an_id_or_a_name() -> None:
    found = documents("a.jsonl", b'{"text": "one", "id": "\\ud800"}\n{"\\udfff": 1}')
    for each in found:
        (each.given_id or "").encode()
        each.detail.encode()
    assert texts(found) == ["one"]


@pytest.mark.parametrize(
    ("encoding", "content"),
    [("cp1252", "Où est passé l’été?"), ("utf-16-le", "Où est passé l’été?"), ("koi8-r", "Где лето?")],
)
def test_text_in_an_encoding_nobody_named(encoding: str, content: str) -> None:
    ((position, reason),) = letters(documents("a.txt", content.encode(encoding)))
    assert (position.split(":")[0], reason) == ("byte", "bad_encoding")


def test_the_encoding_that_it_may_be_is_told() -> None:
    rules = PrepareRules(formats=Formats(detect_charset=False))
    (found,) = documents("a.txt", ("Les élèves français étudient à l'école. " * 20).encode("cp1252"), rules)
    assert found.detail.startswith("not UTF-8 at byte 4; looks like ")


@pytest.mark.parametrize("declared", ["no-such-encoding", "rot13", "hex", "ascii", "undefined", "idna"])
def test_a_page_that_is_not_in_the_encoding_it_declares(declared: str) -> None:
    content = page("caf\xe9 " * 30, f'<meta charset="{declared}">').encode("latin-1")
    ((position, reason),) = letters(documents("a.html", content))
    assert (position.split(":")[0], reason) == ("byte", "bad_encoding")


@pytest.mark.parametrize("content", [b"<html><body></body></html>", b"<script>x()</script>", b"<" * 5_000])
def test_a_page_without_text(content: bytes) -> None:
    assert letters(documents("a.html", content)) == [("object", "no_text")]


def test_html_nested_without_end() -> None:
    found = documents("a.html", b"<html><body>" + b"<div>" * 50_000 + b"deep" + b"</div>" * 50_000)
    assert len(found) == 1


def test_a_parquet_file_without_the_text_column() -> None:
    (found,) = documents("a.parquet", parquet(pa.table({"body": ["x"], "n": [1]})))
    assert (found.position, found.reason) == ("object", "no_text_field")
    assert found.detail == "no column 'text'; found body, n"


@pytest.mark.parametrize("column", [pa.array([1, 2]), pa.array([b"one", b"two"]), pa.array([["one"], ["two"]])])
def test_a_text_column_of_another_type(column: pa.Array) -> None:
    found = documents("a.parquet", parquet(pa.table({"text": column})))
    assert letters(found) == [("row:1", "no_text_field"), ("row:2", "no_text_field")]


def test_missing_values_in_parquet() -> None:
    found = documents("a.parquet", parquet(pa.table({"text": ["one", None, "three"]})))
    assert texts(found) == ["one", "three"]
    assert letters(found) == [("row:2", "no_text_field")]


def test_a_string_column_that_is_not_utf_8() -> None:
    broken = pa.array([b"one", b"\xff\xfe", b"three"]).view(pa.string())
    found = documents("a.parquet", parquet(pa.table({"text": broken})))
    assert texts(found) == ["one", "three"]
    assert letters(found) == [("row:2", "bad_encoding")]


@pytest.mark.parametrize("cut", [5, 100, -1, -100])
def test_a_cut_off_parquet_file(cut: int) -> None:
    content = parquet(pa.table({"text": [f"document {n}" for n in range(1_000)]}))
    assert letters(documents("a.parquet", content[:cut])) == [("object", "bad_parquet")]


def test_a_parquet_file_with_a_damaged_page_keeps_what_came_before() -> None:
    sink = io.BytesIO()
    table = pa.table({"text": [f"document {n} {np.random.default_rng(n).bytes(9).hex()}" for n in range(4_000)]})
    pq.write_table(table, sink, row_group_size=1_000, compression="zstd", use_dictionary=False)
    content = bytearray(sink.getvalue())
    place = pq.ParquetFile(sink).metadata.row_group(2).column(0).data_page_offset
    content[place + 40 : place + 400] = b"\xaa" * 360
    found = documents("a.parquet", bytes(content))
    assert len(texts(found)) >= 1_000
    ((position, reason),) = letters(found)
    assert reason == "bad_parquet"
    assert position.startswith("row:")


def test_a_row_that_is_too_large() -> None:
    rules = PrepareRules(max_record_bytes=1_000)
    found = documents("a.parquet", parquet(pa.table({"text": ["x" * 2_000, "two"]})), rules)
    assert texts(found) == ["two"]
    assert letters(found) == [("row:1", "record_too_large")]


def test_a_long_document_is_split_and_nothing_lost() -> None:
    text = "\n\n".join(f"paragraph {n} " + "word " * 30 for n in range(50))
    rules = PrepareRules(max_characters=1_000, min_characters=1)
    found = documents("a.txt", text.encode(), rules)
    assert len(found) > 5
    assert "".join(texts(found)) == text
    assert [each.position for each in found][:2] == ["part:1", "part:2"]
    (first, *_) = documents("a.jsonl", json.dumps({"id": "a", "text": text}).encode(), rules)
    assert (first.position, first.given_id) == ("line:1,part:1", "a#1")


class Breaking:
    """A connection that ends in the middle."""

    def __init__(self, content: bytes) -> None:
        self.content: Readable = io.BytesIO(content)

    def read(self, n_bytes: int, /) -> bytes:
        got = self.content.read(n_bytes)
        if not got:
            raise StorageError("s3://b/k", expected="an answer from the store", got="nothing", remedy="try again")
        return got


@pytest.mark.parametrize("key", ["a.jsonl", "a.json", "a.txt", "a.html", "a.parquet"])
def test_the_store_s_failures_are_not_the_object_s(key: str) -> None:
    with pytest.raises(StorageError):
        list(extract(key, Breaking(GOOD.encode()), RULES))


@given(st.binary(max_size=300), st.sampled_from([".jsonl", ".json", ".txt", ".html", ".parquet", ".jsonl.gz", ".bin"]))
def test_no_bytes_raise(content: bytes, extension: str) -> None:
    assert documents(f"a{extension}", content)


@given(st.binary(max_size=200), st.integers(0, 100))
def test_no_damaged_gzip_raises(content: bytes, cut: int) -> None:
    packed = gzip.compress(content)
    assert documents("a.jsonl.gz", packed[: max(2, len(packed) - cut)])
    assert documents("a.txt", zlib.compress(content))
