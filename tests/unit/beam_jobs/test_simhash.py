"""Signatures, shingles and similarity against a plain-Python reference."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs import simhash
from beam_jobs.simhash import fingerprint, jaccard

U64 = (1 << 64) - 1


def reference(text: str) -> tuple[int, int, list[int]]:
    """`(exact, signature, shingles)` as the module describes them, without numpy."""
    words = re.findall(r"\w+", text.lower())
    hashes = [xxhash.xxh3_64_intdigest(word.encode()) for word in words]

    def mixed(value: int) -> int:
        for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
            value = ((value ^ (value >> 33)) * factor) & U64
        return value ^ (value >> 33)

    def runs(n: int) -> list[int]:
        n = min(n, len(hashes))
        found = []
        for start in range(len(hashes) - n + 1 if n else 0):
            combined = 0
            for each in hashes[start : start + n]:
                combined = (combined * 0x9E3779B97F4A7C15 + each) & U64
            found.append(mixed(combined))
        return found

    features = set(runs(3))
    votes = [sum(feature >> bit & 1 for feature in features) for bit in range(64)]
    signature = sum(1 << bit for bit, n in enumerate(votes) if 2 * n > len(features))
    exact = xxhash.xxh3_64_intdigest(b"".join(each.to_bytes(8, "little") for each in hashes))
    return exact, signature, sorted({run >> 32 for run in runs(5)})


@given(st.text(alphabet="ab c\n.é", max_size=120))
def test_it_is_the_reference(text: str) -> None:
    found = fingerprint(text)
    assert (found.exact, found.signature, found.shingles.tolist()) == reference(text)
    assert found.n_words == len(re.findall(r"\w+", text.lower()))


@pytest.mark.parametrize("text", ["", "  ", "one", "one two", "one two three four", "a b c d e f g h " * 40])
def test_short_and_repeating_texts(text: str) -> None:
    found = fingerprint(text)
    assert (found.exact, found.signature, found.shingles.tolist()) == reference(text)


def test_case_punctuation_and_spacing_do_not_matter() -> None:
    assert fingerprint("One, two - THREE!").exact == fingerprint("one two\nthree").exact
    assert fingerprint("one two three").exact != fingerprint("one three two").exact
    assert fingerprint("onetwo").exact != fingerprint("one two").exact


def test_it_is_the_same_in_every_process() -> None:
    code = "from beam_jobs.simhash import fingerprint; print(fingerprint('the same in every process').signature)"
    told = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    ]
    assert told == [f"{fingerprint('the same in every process').signature}\n"] * 2


def test_remembered_words_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simhash._WordHashes, "MAX_WORDS", 10)
    text = " ".join(f"word{n}" for n in range(200))
    assert fingerprint(text).exact == reference(text)[0]
    assert len(simhash._word_hashes) <= 10


def test_similar_texts_have_near_signatures_and_others_do_not() -> None:
    words = [f"word{n % 97}x{n}" for n in range(400)]
    changed = [*words[:200], "another", *words[201:]]
    other = [f"other{n}" for n in range(400)]
    signatures = [fingerprint(" ".join(each)).signature for each in (words, changed, other)]
    assert (signatures[0] ^ signatures[1]).bit_count() <= 8
    assert (signatures[0] ^ signatures[2]).bit_count() >= 16


_SETS = st.sets(st.integers(0, 30), max_size=20)


@given(_SETS, _SETS)
def test_jaccard_is_that_of_sets(a: set[int], b: set[int]) -> None:
    expected = len(a & b) / len(a | b) if a | b else 1.0
    arrays = [np.array(sorted(each), np.uint32) for each in (a, b)]
    assert jaccard(arrays[0], arrays[1]) == pytest.approx(expected)


@given(st.text(alphabet="abc ", max_size=60), st.text(alphabet="abc ", max_size=60))
def test_jaccard_of_texts_is_that_of_their_word_runs(a: str, b: str) -> None:
    def runs(text: str) -> set[tuple[str, ...]]:
        words = text.split()
        n = min(5, len(words))
        return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)} if n else set()

    union = runs(a) | runs(b)
    expected = len(runs(a) & runs(b)) / len(union) if union else 1.0
    assert jaccard(fingerprint(a).shingles, fingerprint(b).shingles) == pytest.approx(expected)
