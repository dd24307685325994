"""Objects of every format are read, whatever their compression, encoding and size."""

from __future__ import annotations

import gzip

import pyarrow as pa
import pytest

from beam_jobs.formats import Extracted
from lake.recipe import PrepareRules
from tests.extraction import GOOD, SENTENCE, documents, letters, page, parquet, texts


def test_json_lines() -> None:
    assert documents("in/a.jsonl", GOOD.encode()) == [
        Extracted("line:1", "first", "a"),
        Extracted("line:2", "second", "b"),
    ]


@pytest.mark.parametrize("key", ["in/a.jsonl.gz", "in/a.ndjson", "in/A.JSONL", "in/a.json"])
def test_compression_is_seen_in_the_content(key: str) -> None:
    assert texts(documents(key, gzip.compress(GOOD.encode()))) == ["first", "second"]
    assert texts(documents(key, GOOD.encode())) == ["first", "second"]


def test_several_gzip_members_and_padding() -> None:
    content = gzip.compress(GOOD.encode()) + gzip.compress(GOOD.encode()) + b"\0" * 512
    assert len(texts(documents("a.jsonl.gz", content))) == 4


def test_a_json_file_may_be_one_value_or_lines() -> None:
    assert texts(documents("a.json", b'[{"text": "one"}, {"text": "two"}]')) == ["one", "two"]
    assert texts(documents("a.json", b'{"text": "one"}')) == ["one"]
    assert letters(documents("a.json", b'[{"text": "one"}, 7]')) == [("row:2", "no_text_field")]


def test_parquet_by_content_or_name() -> None:
    table = pa.table({"id": ["a", "b"], "text": ["first", "second"], "more": [1, 2]})
    expected = [Extracted("row:1", "first", "a"), Extracted("row:2", "second", "b")]
    assert documents("a.parquet", parquet(table)) == expected
    assert documents("part-00000", parquet(table)) == expected
    assert documents("a.parquet.gz", gzip.compress(parquet(table))) == expected


@pytest.mark.parametrize("kind", [pa.large_string(), pa.dictionary(pa.int32(), pa.string()), pa.string_view()])
def test_parquet_strings_of_any_kind(kind: pa.DataType) -> None:
    table = pa.table({"text": pa.array(["first", "second"]).cast(kind)})
    assert texts(documents("a.parquet", parquet(table))) == ["first", "second"]


def test_another_text_field() -> None:
    rules = PrepareRules(text_field="body")
    assert texts(documents("a.jsonl", b'{"body": "one", "text": "two"}', rules)) == ["one"]


@pytest.mark.parametrize(
    ("given_id", "expected"), [('"x"', "x"), ("7", "7"), ("true", None), ("null", None), ("[1]", None)]
)
def test_ids_are_strings_or_numbers(given_id: str, expected: str | None) -> None:
    (found,) = documents("a.jsonl", f'{{"text": "t", "id": {given_id}}}'.encode())
    assert found.given_id == expected


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_text_with_a_byte_order_mark(encoding: str) -> None:
    assert texts(documents("a.txt", "naïve café".encode(encoding))) == ["naïve café"]


def test_a_byte_order_mark_before_json_lines() -> None:
    assert texts(documents("a.jsonl", GOOD.encode("utf-8-sig"))) == ["first", "second"]


def test_windows_line_ends() -> None:
    assert texts(documents("a.jsonl", GOOD.replace("\n", "\r\n").encode())) == ["first", "second"]
    assert texts(documents("a.txt", b"one\r\ntwo")) == ["one\r\ntwo"]  # the rules after this make one kind of them


def test_blank_lines_are_nothing() -> None:
    assert documents("a.jsonl", b'\n  \n{"text": "one"}\n\n') == [Extracted("line:3", "one")]


@pytest.mark.parametrize(
    "head",
    ['<meta charset="iso-8859-1">', '<meta http-equiv="Content-Type" content="text/html; charset=ISO-8859-1">'],
)
def test_a_page_in_latin_1_that_says_so(head: str) -> None:
    (found,) = documents("a.html", page(SENTENCE * 3, head).encode("latin-1"))
    assert found.reason is None
    assert "Müller mahlt das Korn früh" in found.text


def test_what_calls_itself_latin_1_is_what_windows_writes() -> None:
    (found,) = documents("a.html", page(SENTENCE * 3 + "“quoted” – 5 €", '<meta charset="latin1">').encode("cp1252"))
    assert "“quoted” – 5 €" in found.text


def test_a_page_that_is_utf_8_whatever_it_says() -> None:
    (found,) = documents("a.html", page(SENTENCE * 3, '<meta charset="iso-8859-1">').encode())
    assert "Müller" in found.text
