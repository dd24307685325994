"""Text in any encoding is read when it is named or beyond doubt, and else not at all."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.formats.charset import decoded
from beam_jobs.formats.detect import detected_charset
from beam_jobs.formats.extracted import Unreadable
from lake.recipe import PrepareRules
from lake.recipe.formats import Formats
from tests.extraction import documents, letters, texts

FRENCH = "Les élèves français étudient à l’école, où leur maître les a menés très tôt ; ils y ont été reçus avec joie. "
POLISH = "Zażółć gęślą jaźń, powiedział chłopiec; później wrócił do domu i zjadł śniadanie z całą swoją rodziną. "
CZECH = "Příliš žluťoučký kůň úpěl ďábelské ódy, když šel večer přes řeku a viděl, že měsíc svítí. "
RUSSIAN = "Летом мы ездили к бабушке в деревню, где по утрам пахло свежим хлебом и сеном, а вечером пели. "
JAPANESE = "夏休みに祖母の家へ行きました。朝は鳥の声で目が覚め、夜は星を見ながら眠りました。"
CHINESE = "去年夏天我们去了乡下的祖母家，早晨被鸟叫声唤醒，晚上看着星星慢慢入睡，那是最美好的时光。"
ENGLISH = "It’s what the “author” calls a draft – not a book. "


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", FRENCH * 5),
        ("cp1252", ENGLISH),
        ("cp1250", POLISH * 3),
        ("iso8859-2", POLISH * 5),
        ("cp1250", CZECH * 3),
        ("koi8-r", RUSSIAN * 3),
        ("cp1251", RUSSIAN * 3),
        ("shift_jis", JAPANESE * 2),
        ("euc_jp", JAPANESE * 2),
        ("gb18030", CHINESE * 2),
    ],
)
def test_an_encoding_is_seen_or_told_as_unknown_but_never_mistaken(encoding: str, text: str) -> None:
    found = documents("a.txt", text.encode(encoding))
    assert texts(found) in ([text], [])


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1252", FRENCH * 5),
        ("cp1252", ENGLISH),
        ("cp1250", CZECH * 3),
        ("gb18030", CHINESE * 2),
        ("euc_jp", JAPANESE * 2),
    ],
)
def test_an_encoding_beyond_doubt_is_seen(encoding: str, text: str) -> None:
    assert texts(documents("a.txt", text.encode(encoding))) == [text]


@pytest.mark.parametrize("text", ["café", "naïve, déjà vu", "Zażółć", "Лето"])
def test_a_few_words_are_not_enough(text: str) -> None:
    for encoding in ("cp1252", "cp1250", "koi8-r", "cp1251"):
        try:
            content = text.encode(encoding)
        except UnicodeEncodeError:
            continue
        assert [reason for _, reason in letters(documents("a.txt", content))] == ["bad_encoding"]


def test_seeing_can_be_turned_off() -> None:
    rules = PrepareRules(formats=Formats(detect_charset=False))
    assert letters(documents("a.txt", (FRENCH * 5).encode("cp1252"), rules)) == [("byte:4", "bad_encoding")]


@given(
    st.text(st.characters(codec="utf-8"), max_size=80),
    st.integers(1, 9),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
)
def test_whatever_the_chunks(text: str, n_bytes: int, encoding: str) -> None:
    content = text.encode(encoding)
    chunks = (content[at : at + n_bytes] for at in range(0, len(content), n_bytes))
    assert "".join(decoded(chunks, None, detect=True)) == text.removeprefix("\ufeff" if encoding == "utf-8" else "")


def pieces(content: bytes, declared: str | None = None) -> Iterator[str]:
    return decoded((content[at : at + 1_000] for at in range(0, len(content), 1_000)), declared, detect=True)


def test_a_long_text_that_begins_in_ascii() -> None:
    content = ("plain words " * 10_000 + FRENCH * 20).encode("cp1252")
    assert "".join(pieces(content)) == content.decode("cp1252")
    assert "".join(pieces(content, "latin-1")) == content.decode("cp1252")


def test_damage_in_the_middle_of_utf_8_ends_the_text_there() -> None:
    found = []
    with pytest.raises(Unreadable) as caught:
        found.extend(pieces(FRENCH.encode() * 100 + b"\xff" + FRENCH.encode() * 100))
    assert caught.value.position == f"byte:{len(FRENCH.encode()) * 100}"
    assert (FRENCH * 100).startswith("".join(found))


@given(st.binary(max_size=400))
def test_nothing_but_unreadable_is_raised(content: bytes) -> None:
    try:
        "".join(pieces(content, "cp932"))
    except Unreadable as error:
        assert error.reason == "bad_encoding"


@given(st.binary(max_size=400))
def test_what_is_seen_can_be_decoded(content: bytes) -> None:
    encoding = detected_charset(content)
    if encoding is not None:
        content.decode(encoding)


@pytest.mark.parametrize("text", [FRENCH, POLISH, CZECH, RUSSIAN, JAPANESE, CHINESE, ENGLISH])
@pytest.mark.parametrize("at", [0, 1, 20])
def test_damaged_utf_8_is_not_taken_for_something_else(text: str, at: int) -> None:
    content = text[:at].encode() + b"\xf1" + (text[at:] + text * 20).encode()
    assert [reason for _, reason in letters(documents("a.txt", content))] == ["bad_encoding"]
