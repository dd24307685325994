"""The published rules at their bounds: just within and just beyond, with the reason and the figure."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.rules import MEASURES, c4
from beam_jobs.rules.published import judge
from beam_jobs.rules.words import words_of
from lake.recipe.quality import C4, Quality

PROSE = (
    "The registry holds one entry for each server that has been started. When a server starts, it writes its address "
    "and the time to the registry, and a client with a question reads the newest of them. Entries that have not been "
    "renewed for a minute are removed by whoever sees them first, so nobody has to clean up behind a crash."
)


def verdict(text: str, **rules: object) -> tuple[str, str] | None:
    return judge(text, Quality.model_validate(rules))[1]


def reason(text: str, **rules: object) -> str | None:
    broken = verdict(text, **rules)
    return broken and broken[0]


def words(n: int, word: str = "word") -> str:
    return " ".join(["the of", *[word] * (n - 2)])


@pytest.mark.parametrize(
    ("within", "beyond", "told", "detail"),
    [
        (words(50), words(49), "gopher_word_count", "49, at least 50"),
        (words(60, "abcd"), words(60, "ab"), "gopher_mean_word_length", "at least 3"),
        (words(60, "a" * 10), words(60, "a" * 11), "gopher_mean_word_length", "at most 10"),
        (words(90) + " #" * 10, words(90) + " #" * 11, "gopher_hash_ratio", "at most 0.1"),
        (words(90) + " …" * 10 + " end", words(90) + " …" * 12 + " end", "gopher_ellipsis_ratio", "at most 0.1"),
        (
            "\n".join(["plain " + words(20)] + ["- " + words(20)] * 9),
            "\n".join(["plain " + words(20)] + ["• " + words(20)] * 10),
            "gopher_bullet_lines",
            "at most 0.9",
        ),
        (
            "\n".join([words(20) + "..."] * 3 + [words(20)] * 7),
            "\n".join([words(20) + "..."] * 4 + [words(20)] * 6),
            "gopher_ellipsis_lines",
            "at most 0.3",
        ),
        (words(80) + " 1234" * 20, words(80) + " 1234" * 21, "gopher_letter_words", "at least 0.8"),
        ("with " + words(60), "with" + " word" * 60, "gopher_stop_words", "1, at least 2"),
    ],
)
def test_gopher_at_its_bounds(within: str, beyond: str, told: str, detail: str) -> None:
    assert verdict(within, gopher=True) is None
    broken = verdict(beyond, gopher=True)
    assert broken is not None
    assert broken[0] == told
    assert detail in broken[1]


# 60 different words of 4 letters: 299 characters with the spaces between them.
DIFFERENT = " ".join(f"{a}{b}{c}x" for a in "bcdfg" for b in "aeio" for c in "klm")


@pytest.mark.parametrize(
    ("within", "beyond", "told"),
    [
        (
            "a\nb\nc\nd\ne\nf\ng\na\na\na" + DIFFERENT,
            "a\nb\nc\nd\ne\nf\na\na\na\na" + "\n" + DIFFERENT,
            "gopher_duplicate_lines",
        ),
        (
            "\n\n".join([DIFFERENT, "a", "b", "c", "a"]),
            "\n\n".join([DIFFERENT, "a", "b", "a", "a"]),
            "gopher_duplicate_paragraphs",
        ),
        (
            "\n".join([DIFFERENT, "x" * 12, "y" * 11, "z" * 11, "x" * 12]),
            "\n".join([DIFFERENT, "x" * 140, "yy", "zz", "x" * 140]),
            "gopher_duplicate_line_characters",
        ),
        (
            "\n\n".join([DIFFERENT, "x" * 12, "y" * 11, "z" * 11, "x" * 12]),
            "\n\n".join([DIFFERENT, "x" * 140, "yy", "zz", "x" * 140]),
            "gopher_duplicate_paragraph_characters",
        ),
        (f"ping pong {DIFFERENT} ping pong", f"ping pong {DIFFERENT}" + " ping pong" * 8, "gopher_top_2_gram"),
        (
            f"a bc de {DIFFERENT} a bc de",
            f"pi po pe {DIFFERENT}" + "".join(f" {x} pi po pe" for x in "stuvwxyz"),
            "gopher_top_3_gram",
        ),
        (
            f"p q r s {DIFFERENT} p q r s",
            f"pi po pe x {DIFFERENT}" + "".join(f" {x} pi po pe x" for x in "stuvwy"),
            "gopher_top_4_gram",
        ),
    ],
)
def test_gopher_repetition_at_its_bounds(within: str, beyond: str, told: str) -> None:
    assert reason(within, gopher_repetition=True) is None
    assert reason(beyond, gopher_repetition=True) == told


@pytest.mark.parametrize("n", range(5, 11))
def test_repeated_n_grams_count_from_the_second_time_on(n: int) -> None:
    bound = {"top_n_grams": [], "dup_n_grams": [[n, 0.15]]}
    run = " ".join("abcdefghij"[:n])
    text = f"{run} {DIFFERENT} {run}"
    measures, broken = judge(text, Quality.model_validate({"gopher_repetition": bound}))
    assert measures[f"duplicate_{n}_gram_share"] == pytest.approx(n / len(text))
    assert broken is None
    assert reason(f"{run} " * 9, gopher_repetition=bound | {"dup_line_frac": 1}) == f"gopher_duplicate_{n}_grams"


def plainly(words: list[str], n: int) -> tuple[int, int]:
    """Characters of the most frequent n-gram and of repeated ones, as datatrove counts them, in the plainest way."""
    grams = [" ".join(words[place : place + n]) for place in range(len(words) - n + 1)]
    most = max(grams, key=grams.count, default="")
    seen: set[str] = set()
    repeated = place = 0
    while place < len(grams):
        if grams[place] in seen:
            repeated += len(grams[place].replace(" ", ""))
            place += n
        else:
            seen.add(grams[place])
            place += 1
    return len(most) * grams.count(most), repeated


@given(st.lists(st.sampled_from(["a", "bb", "ccc", "dddd"]), min_size=1, max_size=60))
def test_n_grams_are_counted_as_in_the_plainest_way(several: list[str]) -> None:
    text = " ".join(several)
    measures, _ = judge(text, Quality.model_validate({"gopher_repetition": True}))
    for n in (2, 3, 4):
        assert measures[f"top_{n}_gram_share"] == pytest.approx(plainly(several, n)[0] / len(text))
    for n in range(5, 11):
        assert measures[f"duplicate_{n}_gram_share"] == pytest.approx(plainly(several, n)[1] / len(text))


LINE = "this line is longer than thirty characters {}"


@pytest.mark.parametrize(
    ("within", "beyond", "told"),
    [
        (
            "\n".join([LINE.format(n) for n in range(22)] + [LINE.format(n) + "." for n in range(3)]),
            "\n".join([LINE.format(n) for n in range(23)] + [LINE.format(n) + "." for n in range(3)]),
            "fineweb_line_punctuation",
        ),
        (
            "\n".join(
                ["x" * 28 + f" {n}." for n in range(10, 76)] + [f"{LINE.format(n)} a b c d e." for n in range(34)]
            ),
            "\n".join(["a b c d e f g h. " + str(n) for n in range(69)] + [LINE.format(n) + "." for n in range(31)]),
            "fineweb_short_lines",
        ),
        (
            "\n".join([LINE.format(n) + "." for n in range(101)] + [LINE.format(1) + "."]),
            "\n".join([LINE.format(n) + "." for n in range(60)] + [LINE.format(1) + "."]),
            "fineweb_duplicate_characters",
        ),
        (
            "\n".join(f"{'a' * 30}{n} b c." for n in range(10)),
            "\n".join(f"{'a' * 30}{n} b." for n in range(20)),
            "fineweb_line_ends",
        ),
    ],
)
def test_fineweb_at_its_bounds(within: str, beyond: str, told: str) -> None:
    assert reason(within, fineweb=True) is None
    assert reason(beyond, fineweb=True) == told


def test_c4_removes_lines_and_rejects_pages() -> None:
    page = c4.apply(
        "A menu without an end\nToo short.\nThis line stays here.[1] It has two.\nEnable JavaScript to read on.\n"
        'See our privacy policy before it.\nAn unfinished line...\n"One more for the quote."\nIs this one? Yes! It is.',
        C4(),
    )
    assert page.text.split("\n") == [
        "This line stays here. It has two.",
        '"One more for the quote."',
        "Is this one? Yes! It is.",
    ]
    assert page.measures == {"c4_removed_lines": 5, "sentences": 6}
    assert page.reason is None
    assert c4.apply(page.text, C4()).text == page.text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (PROSE + " Lorem Ipsum dolor sit amet.", "c4_lorem_ipsum"),
        (PROSE + " Write f(x) {return} here.", "c4_curly_bracket"),
        ("One is here. Two is here. Three is here. Four is here.", "c4_too_few_sentences"),
        ("x" * 1_001 + " is a word. Two is. Three is. Four is. Five is.", "c4_too_few_sentences"),
        ("One is here. Two is here. Three is here. Four is here. Five is here.", None),
        ("Version 3.11.7 is e.g. one sentence. Two is here. Three is here. Four is here. Five is here.", None),
    ],
)
def test_c4_pages(text: str, told: str | None) -> None:
    assert c4.apply(text, C4()).reason == told


def test_good_prose_passes_all_sets() -> None:
    everything = Quality.model_validate({"gopher": True, "gopher_repetition": True, "fineweb": True})
    measures, broken = judge(PROSE, everything)
    assert broken is None
    assert set(measures) <= set(MEASURES)
    assert judge(PROSE, Quality()) == ({}, None)


@given(st.text())
def test_no_text_is_refused(text: str) -> None:
    everything = {"gopher": True, "gopher_repetition": True, "fineweb": True, "toxicity": {"words": ["bad"]}}
    judge(text, Quality.model_validate(everything))
    c4.apply(text, C4())


def test_constants_follow_the_recipe() -> None:
    assert reason(words(20), gopher={"min_doc_words": 20}) is None
    assert reason(words(20), gopher=False) is None
    assert reason("das und ein " + "wort " * 60, gopher={"stop_words": ["das", "und"]}) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't stop, e.g. at 3.5%.", "Do n't stop , e.g. at 3.5 % ."),
        ('He said: "It\'s (well-known)."', 'He said : " It \'s ( well - known ) . "'),
        ("see https://a.example.org/x?y=1, or www.b.example", "see https://a.example.org/x?y=1 , or www.b.example"),
        ("wait...what? U.S. and C++", "wait ... what ? U.S. and C++"),
        ("5km/h 10kg 3-4 a--b", "5 km/h 10 kg 3 - 4 a -- b"),
    ],
)
def test_words_are_cut_as_the_rules_count_them(text: str, expected: str) -> None:
    assert words_of(text) == expected.split()


@given(st.text())
def test_words_lose_nothing_but_spaces(text: str) -> None:
    assert "".join(words_of(text)) == "".join(text.split())


@pytest.mark.parametrize(
    "piece", ["!", "a!", ".", "a.", "'s", "-", "a-", "n't", "a@", "http://", "(a", "a)", "1+", "\n", "a b ", "…"]
)
@pytest.mark.timeout(60)
def test_a_hostile_text_is_judged_in_time(piece: str) -> None:
    text = piece * (200_000 // len(piece))
    judge(text, Quality.model_validate({"gopher": True, "gopher_repetition": True, "fineweb": True}))
    c4.apply(text, C4())
    assert "".join(words_of(text)) == "".join(text.split())
