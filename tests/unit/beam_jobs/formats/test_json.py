"""JSON values are read as a stream: what comes before a mistake is kept."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.formats import Extracted
from beam_jobs.formats.json_records import _WithoutNaN
from lake.recipe import PrepareRules
from tests.extraction import GOOD, documents, letters, texts

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
TEXTS = st.text(st.characters(codec="utf-8"), min_size=1)


@given(
    st.lists(st.tuples(TEXTS, VALUES), min_size=1, max_size=5),
    st.sampled_from([None, 1]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_any_array_is_read_back(records: list[tuple[str, object]], indent: int | None, encoding: str) -> None:
    content = json.dumps([{"more": more, "text": text} for text, more in records], indent=indent).encode(encoding)
    assert texts(documents("a.json", content)) == [text for text, _ in records]


@pytest.mark.parametrize("indent", [None, 1])
def test_a_record_and_records_one_after_the_other(indent: int | None) -> None:
    one = json.dumps({"text": "one"}, indent=indent)
    assert texts(documents("a.json", one.encode())) == ["one"]
    assert texts(documents("a.json", f"{one}\n{one}\n".encode())) == ["one", "one"]
    assert texts(documents("data", f"{one}\n{one}\n".encode())) == ["one", "one"]


def test_lines_with_a_broken_one_first() -> None:
    found = documents("a.json", b'{"text": one}\n{"text": "two"}\n')
    assert found[1:] == [Extracted("line:2", "two")]
    assert letters(found) == [("line:1", "bad_json")]


@pytest.mark.parametrize("end", ["", ",", ', {"text"', ", nul]", "}"])
def test_what_comes_before_a_mistake_is_kept(end: str) -> None:
    found = documents("a.json", ('[{"text": "one"}, {"text": "two"}' + end).encode())
    assert texts(found) == ["one", "two"]
    assert letters(found) == [("row:3", "bad_json")]


def test_a_byte_that_is_not_utf_8() -> None:
    found = documents("a.json", b'[{"text": "one"}, {"text": "caf\xe9"}]')
    assert [reason for _, reason in letters(found)] in (["bad_json"], ["bad_encoding"])


def test_a_record_that_is_too_large() -> None:
    content = b'[{"text": "one"}, {"text": "' + b"x" * 2_000_000 + b'"}]'
    found = documents("a.json", content, PrepareRules(max_record_bytes=100_000))
    assert texts(found) == ["one"]
    assert letters(found) == [("row:2", "record_too_large")]


@pytest.mark.parametrize("opening", [b"[", b'[{"a":', b'{"a":\n', b'[{"text":['])
def test_nesting_without_end(opening: bytes) -> None:
    ((_, reason),) = letters(documents("a.json", opening * 100_000))
    assert reason == "bad_json"


@given(st.binary(max_size=60))
def test_nothing_raises(damage: bytes) -> None:
    assert documents("a.json", b'[{"text": "one"}' + damage)
    assert documents("a.json", b'{\n"text": ' + damage)
    assert documents("a.jsonl", GOOD.encode() + damage)


class Chunks:
    """Content that comes in chunks of one size."""

    def __init__(self, content: bytes) -> None:
        self._stream = io.BytesIO(content)

    def read(self, n_bytes: int) -> bytes:
        return self._stream.read(n_bytes)


NUMBERS = st.floats(allow_nan=True, allow_infinity=True) | st.text('aN"\\ Infinity-', max_size=12) | VALUES


@given(st.lists(NUMBERS | st.dictionaries(st.text('N"\\a'), NUMBERS, max_size=3), max_size=6), st.integers(1, 40))
def test_nan_is_null_however_the_bytes_come(records: list[object], n_bytes: int) -> None:
    raw = json.dumps(records).encode()
    feed = _WithoutNaN(Chunks(raw))  # type: ignore[arg-type]
    read = b"".join(iter(lambda: feed.read(n_bytes), b""))
    assert json.loads(read) == json.loads(raw, parse_constant=lambda _: None)


def test_an_array_with_nan_is_read_to_its_end() -> None:
    body = json.dumps([{"text": GOOD, "score": float("nan")}, {"text": GOOD, "score": -float("inf")}]).encode()
    assert texts(documents("a.json", body)) == [GOOD, GOOD]


def test_records_on_one_line_are_records_all_the_same() -> None:
    body = "".join(json.dumps({"text": f"{GOOD} {n}"}) for n in range(3)).encode()
    assert texts(documents("a.json", body)) == [f"{GOOD} {n}" for n in range(3)]
    assert texts(documents("a.json", body + b"\n" + body)) == 2 * [f"{GOOD} {n}" for n in range(3)]
