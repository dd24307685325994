"""How alike two answers are: ROUGE-L over their words."""

from __future__ import annotations

import re

# Scripts that put no space between words: each character stands for one. Thai, Lao, Burmese, Khmer, kana, CJK.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W_{_UNSPACED}]+(?:['’][^\W\d_{_UNSPACED}]+)*")
# Of each answer, for the longest common subsequence: 5 ms for two answers of so many.
MAX_WORDS = 2_000


def words_of(text: str) -> list[str]:
    """Case-folded words in order, without punctuation.

    >>> words_of("Don't call sorted() twice. 列表")
    ["don't", 'call', 'sorted', 'twice', '列', '表']
    """
    return _WORD.findall(text.casefold())


def likeness(one: str, other: str) -> float:
    """F1 of the longest common subsequence of words, in [0, 1]; 1 for the same words in the same order.

    ROUGE-L (Lin 2004, ROUGE: A Package for Automatic Evaluation of Summaries, section 3) with equal weights, of the first
    MAX_WORDS words of each. Answers without any word are alike when they are the same but for space around them.
    """
    a, b = words_of(one), words_of(other)
    if not a and not b:
        return float(one.strip() == other.strip())
    if a == b:
        return 1.0
    a, b = a[:MAX_WORDS], b[:MAX_WORDS]
    return 2 * common_subsequence(a, b) / (len(a) + len(b))


def common_subsequence(a: list[str], b: list[str]) -> int:
    """Length of the longest common subsequence, with one bit for each word of `a`.

    Hyyrö 2004, Bit-parallel LCS-length computation revisited: a bit of `rest` goes out where the length grows by one.
    """
    places: dict[str, int] = {}
    for place, word in enumerate(a):
        places[word] = places.get(word, 0) | 1 << place
    every = rest = (1 << len(a)) - 1
    for word in b:
        met = rest & places.get(word, 0)
        rest = ((rest + met) | (rest - met)) & every
    return len(a) - rest.bit_count()
