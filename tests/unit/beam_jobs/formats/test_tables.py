"""Tables and records: which columns are the text, the id, and what is counted of them."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from beam_jobs.formats import Extracted, extract
from beam_jobs.formats.columns import MAX_NAMES
from lake.recipe import PrepareRules
from lake.recipe.formats import Formats
from tests.extraction import documents, letters, parquet, texts

TWO = PrepareRules(formats=Formats(text=("title", "body.main")))
TEMPLATE = PrepareRules(formats=Formats(text="{title} ({year})\n\n{body}", id="meta.key"))


def columns_of(key: str, content: bytes, rules: PrepareRules | None = None) -> dict[str, int]:
    seen = Counter[str]()
    list(extract(key, io.BytesIO(content), rules or PrepareRules(), seen))
    return dict(seen)


def test_a_table_with_a_header() -> None:
    assert documents("a.csv", b'id,text\n7,"one, two"\nb,"three\nfour ""five"""\n') == [
        Extracted("row:1", "one, two", "7"),
        Extracted("row:2", 'three\nfour "five"', "b"),
    ]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_seen(delimiter: str) -> None:
    content = f"id{delimiter}text\r\n1{delimiter}one, two; three | four\r\n".replace(delimiter + " ", " ").encode()
    assert texts(documents("a.csv", content))[0].startswith("one")


def test_a_tsv_and_a_delimiter_of_the_recipe_s() -> None:
    assert texts(documents("a.tsv", b"id\ttext\n1\tone, two\n")) == ["one, two"]
    rules = PrepareRules(formats=Formats(delimiter="^", quote="'"))
    assert texts(documents("a.csv", b"id^text\n1^'one ^ two'\n", rules)) == ["one ^ two"]


def test_a_table_without_a_header() -> None:
    rules = PrepareRules(formats=Formats(columns=("id", "text")))
    assert documents("a.csv", b"a,first\nb,second\n", rules) == [
        Extracted("row:1", "first", "a"),
        Extracted("row:2", "second", "b"),
    ]


@given(st.lists(st.tuples(st.text(min_size=1), st.text(min_size=1)), min_size=1, max_size=8), st.sampled_from(",;\t|"))
def test_any_table_that_python_writes_is_read_back(rows: list[tuple[str, str]], delimiter: str) -> None:
    rows = [(key.replace("\r", ""), text.replace("\r", "").replace("\0", "")) for key, text in rows]
    sink = io.StringIO(newline="")
    writer = csv.writer(sink, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerow(["key", "text"])
    writer.writerows(rows)
    content = sink.getvalue().encode("utf-8", "surrogatepass")
    try:
        content.decode()
    except UnicodeDecodeError:
        return
    rules = PrepareRules(formats=Formats(id=None))
    expected = [text for key, text in rows if key or text]
    assert [each.text for each in documents("a.csv", content, rules)] == expected


def test_rows_of_another_length() -> None:
    found = documents("a.csv", b"id,text,n\na,first\nb,second,1,2\nc,third,1,,\n\n")
    assert texts(found) == ["first", "third"]
    assert letters(found) == [("row:2", "bad_csv")]


def test_a_table_without_the_column() -> None:
    (found,) = documents("a.csv", b"id,body\na,first\n")
    assert (found.position, found.reason) == ("object", "no_text_field")
    assert found.detail == "no column 'text'; found id, body"


def test_a_quote_that_does_not_close_takes_no_more_than_a_record() -> None:
    rules = PrepareRules(max_record_bytes=10_000)
    found = documents("a.csv", b'id,text\na,first\nb,"open\n' + b"more\n" * 10_000, rules)
    assert texts(found) == ["first"]
    assert letters(found) == [("row:2", "record_too_large")]


def test_a_table_in_windows_own_encoding() -> None:
    text = "Les élèves français étudient à l’école, où leur maître les a menés très tôt; ils y ont été reçus."
    assert texts(documents("a.csv", f'id;text\n1;"{text}"\n'.encode("cp1252"))) == [text]


def test_columns_joined() -> None:
    lines = [
        {"title": "T", "body": {"main": "B"}},
        {"title": None, "body": {"main": "B"}},
        {"title": "T"},
        {"title": 3, "body": "x"},
        {"body": "x"},
    ]
    found = documents("a.jsonl", "\n".join(map(json.dumps, lines)).encode(), TWO)
    assert texts(found) == ["T\n\nB", "B", "T", "3"]
    assert [each.detail for each in found if each.reason] == [
        "text in 'title' or 'body.main' expected, found only body"
    ]


def test_a_template() -> None:
    record = {"title": "T", "year": 1999, "body": "B", "meta": {"key": "k"}}
    assert documents("a.jsonl", json.dumps(record).encode(), TEMPLATE) == [Extracted("line:1", "T (1999)\n\nB", "k")]


def test_a_template_over_parquet_with_nested_columns() -> None:
    table = pa.table({"title": ["T"], "year": [1999], "body": ["B"], "meta": [{"key": "k", "x": 1}], "more": [b"x"]})
    assert documents("a.parquet", parquet(table), TEMPLATE) == [Extracted("row:1", "T (1999)\n\nB", "k")]


def test_a_path_with_places_in_it_and_a_name_with_a_dot() -> None:
    rules = PrepareRules(text_field="turns.1.text")
    record = {"turns": [{"text": "first"}, {"text": "second"}]}
    assert texts(documents("a.jsonl", json.dumps(record).encode(), rules)) == ["second"]
    assert texts(documents("a.jsonl", b'{"turns.1.text": "dotted"}', rules)) == ["dotted"]


@pytest.mark.parametrize("text", ["body", "{}", "{a!r}", "{a:>5}", "{", ()])
def test_a_template_that_is_none(text: object) -> None:
    with pytest.raises(ValidationError):
        Formats(text=text)  # type: ignore[arg-type]


def test_columns_are_counted_by_name_and_type() -> None:
    lines = (
        b'{"text": "t", "n": 1, "x": 1.5, "ok": true, "tags": [], "meta": {}, "none": null}\n{"text": 7}\n[1]\n{bad\n'
    )
    expected = {"text:string": 1, "n:integer": 1, "x:number": 1, "ok:boolean": 1, "tags:list": 1, "meta:object": 1}
    assert columns_of("a.jsonl", lines) == expected | {"none:null": 1, "text:integer": 1}
    array = b'[{"text": "t", "x": 1.5}, {"text": "u"}]'
    assert columns_of("a.json", array) == {"text:string": 2, "x:number": 1}
    assert columns_of("a.csv", b"id,text\n1,a\n2,b\n") == {"id:string": 2, "text:string": 2}


def test_columns_of_parquet_are_counted_whether_read_or_not() -> None:
    table = pa.table(
        {
            "text": pa.array(["a", "b"]).dictionary_encode(),
            "n": pa.array([1, 2], pa.int8()),
            "x": pa.array([1, 2], pa.decimal128(9, 2)),
            "tags": [["a"], []],
            "meta": [{"a": 1}, None],
            "when": pa.array([0, 1], pa.timestamp("ms")),
            "raw": [b"a", b"b"],
        }
    )
    names = ["text:string", "n:integer", "x:number", "tags:list", "meta:object", "when:timestamp", "raw:binary"]
    assert columns_of("a.parquet", parquet(table)) == dict.fromkeys(names, 2)


def test_no_more_names_are_counted_than_can_be_shown() -> None:
    lines = "\n".join(json.dumps({"text": "t", f"n{n}": n}) for n in range(3 * MAX_NAMES))
    seen = columns_of("a.jsonl", lines.encode())
    assert len(seen) == MAX_NAMES + 1
    assert seen["text:string"] == 3 * MAX_NAMES
    assert sum(seen.values()) == 6 * MAX_NAMES


def test_a_value_that_stands_in_many_rows_does_not_unfold_beyond_the_limit() -> None:
    values = pa.DictionaryArray.from_arrays(pa.array([0] * 5_000, pa.int32()), ["x" * 100_000])
    content = parquet(pa.table({"text": values}))
    assert len(content) < 100_000
    rules = PrepareRules(max_object_bytes=2_000_000, max_characters=200_000)
    found = documents("a.parquet", content, rules)
    assert len(texts(found)) == 20
    assert letters(found) == [("object", "too_large")]
