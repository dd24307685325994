"""A word n-gram model with an open vocabulary, trained in seconds: words by Kneser–Ney over their hashes, and a new
word by its spelling, Kneser–Ney over bytes. Millions of documents an hour on a core, and nothing to download.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Self

import numpy as np
import xxhash
from numpy.typing import NDArray

from beam_jobs.perplexity.kneser_ney import KneserNey, LogProbabilities, Tensors
from beam_jobs.simhash import Hashes

SPECIFICATION = "word-n-grams;kneser-ney;xxh3-64;digits-as-0;16-characters;spelling:utf-8-4-grams;v1"
SPELLING_ORDER = 4
MAX_LOG_PERPLEXITY = 700.0  # exp of it is a float still

# Words, runs of punctuation, and characters of scripts that put no spaces between words. At most 16 characters, so
# that a page of base64 counts as what it is, many words that nobody expects, and not as one.
_TOKEN = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]|\w{1,16}|[^\w\s]{1,16}")
_DIGIT = re.compile(r"\d")
_BEGIN, _END = "\n", "\n\n"  # no token holds white space
_BEGIN_BYTE, _END_BYTE = b"\xfe", b"\xff"  # no UTF-8 holds them
_DOCUMENTS_AT_ONCE = 256  # 64 are slower by a tenth, more no faster


class NgramModel:
    """`words` predicts a text's words and its end; `spelling` predicts the bytes and the end of a word that is new."""

    def __init__(self, words: KneserNey, spelling: KneserNey) -> None:
        self._words, self._spelling = words, spelling
        self._met = _Met(words, spelling)

    @classmethod
    def train(cls, texts: Iterable[str], order: int) -> Self:
        """Train on `texts`, at least one. The same texts in the same order always give the same model."""
        numbers, streams = _Numbers(), []
        for text in texts:
            opened = [_BEGIN] * (order - 1) + _tokens(text) + [_END]
            streams.append(np.fromiter(map(numbers.__getitem__, opened), np.int64, len(opened)))
        if not streams:
            raise ValueError("no text to train an n-gram model on")
        stream = np.concatenate(streams)
        words = [_normalised(token) for token in numbers]
        spelling = _trained_spelling(sorted(set(words) - {_BEGIN}))
        symbols = np.array(list(map(_symbol, words)), np.uint64)
        log_base = _spelled_log_p(spelling, words)
        is_predicted = symbols != _symbol(_BEGIN)
        return cls(KneserNey.train(symbols[stream], is_predicted[stream], log_base[stream], order), spelling)

    def perplexities(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Perplexity for each word, the end of the text counted as one: float64 `[n]`, each ≥ 1 and finite."""
        found = [
            self._log_perplexities(texts[start : start + _DOCUMENTS_AT_ONCE])
            for start in range(0, len(texts), _DOCUMENTS_AT_ONCE)
        ]
        log_perplexity = np.concatenate([np.zeros(0), *found])
        return np.asarray(np.exp(np.minimum(log_perplexity, MAX_LOG_PERPLEXITY)))

    def tensors(self) -> Tensors:
        """Everything that makes the model."""
        return self._words.tensors("words") | self._spelling.tensors("spelling")

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[np.generic]]) -> Self:
        """What `tensors` gave. Raises KeyError when one is missing."""
        return cls(KneserNey.from_tensors("words", tensors), KneserNey.from_tensors("spelling", tensors))

    def _log_perplexities(self, texts: Sequence[str]) -> NDArray[np.float64]:
        opening = [_BEGIN] * (self._words.order - 1)
        tokens: list[str] = []
        starts = []
        for text in texts:
            starts.append(len(tokens))
            tokens += opening
            tokens += _tokens(text)
            tokens.append(_END)
        if len(self._met) > _Met.MAX_TOKENS:
            self._met = _Met(self._words, self._spelling)
        stream, log_p, log_weight = self._met.look_up(tokens)
        log_p = self._words.in_context(stream, log_p, log_weight)
        is_predicted = stream != _symbol(_BEGIN)
        surprise = -np.add.reduceat(np.where(is_predicted, log_p, 0), starts, dtype=np.float64)
        return np.asarray(surprise / np.add.reduceat(is_predicted, starts, dtype=np.int64))


class _Met:
    """Tokens met in scoring, each looked up and spelled once: a language has few, and most of a text's are known."""

    MAX_TOKENS = 200_000

    def __init__(self, words: KneserNey, spelling: KneserNey) -> None:
        self._words, self._spelling = words, spelling
        self._numbers = _Numbers()
        self._symbols: Hashes = np.zeros(0, np.uint64)
        self._log_p: LogProbabilities = np.zeros(0, np.float32)
        self._log_weight: LogProbabilities = np.zeros(0, np.float32)

    def __len__(self) -> int:
        return len(self._numbers)

    def look_up(self, tokens: Sequence[str]) -> tuple[Hashes, LogProbabilities, LogProbabilities]:
        """Symbol, log P alone, and log λ as a context of each token: three arrays `[n]`."""
        numbers = np.fromiter(map(self._numbers.__getitem__, tokens), np.int64, len(tokens))
        n_known = len(self._symbols)
        if len(self._numbers) > n_known:
            self._add([_normalised(token) for token in islice(self._numbers, n_known, None)])
        return self._symbols.take(numbers), self._log_p.take(numbers), self._log_weight.take(numbers)

    def _add(self, words: Sequence[str]) -> None:
        symbols = np.array(list(map(_symbol, words)), np.uint64)
        log_base = np.zeros(len(words), np.float32)
        new = np.flatnonzero(~self._words.knows(symbols))
        log_base[new] = _spelled_log_p(self._spelling, [words[place] for place in new.tolist()])
        log_p, log_weight = self._words.alone(symbols, log_base)
        self._symbols = np.append(self._symbols, symbols)
        self._log_p = np.append(self._log_p, log_p)
        self._log_weight = np.append(self._log_weight, log_weight)


class _Numbers(dict[str, int]):
    """Things in the order in which they were first asked for: 0, 1, 2, …"""

    def __missing__(self, token: str) -> int:
        number = self[token] = len(self)
        return number


def _tokens(text: str) -> list[str]:
    return _TOKEN.findall(text.lower())


def _normalised(token: str) -> str:
    """Digits are all one: a new number is no surprise."""
    return _DIGIT.sub("0", token)


def _symbol(normalised: str) -> int:
    hashed: int = xxhash.xxh3_64_intdigest(normalised.encode())
    return hashed


def _trained_spelling(words: Sequence[str]) -> KneserNey:
    """Of different words, each once: a new word is more like the rare ones than like the frequent ones."""
    stream, is_predicted = _spelled(words)
    return KneserNey.train(stream, is_predicted, _any_byte(len(stream)), SPELLING_ORDER)


def _spelled_log_p(spelling: KneserNey, words: Sequence[str]) -> LogProbabilities:
    """log P of each word's bytes and of its end: float32 `[n_words]`."""
    if not words:
        return np.zeros(0, np.float32)
    stream, is_predicted = _spelled(words)
    log_p = np.where(is_predicted, spelling.log_probabilities(stream, _any_byte(len(stream))), 0)
    starts = np.cumsum([0] + [len(word.encode()) + SPELLING_ORDER for word in words[:-1]])
    return np.asarray(np.add.reduceat(log_p, starts), np.float32)


def _spelled(words: Sequence[str]) -> tuple[Hashes, NDArray[np.bool_]]:
    """Stream of bytes as symbols `[n]`, and which of them are predicted: all but those that open a word."""
    opening = _BEGIN_BYTE * (SPELLING_ORDER - 1)
    spelled = np.frombuffer(b"".join(opening + word.encode() + _END_BYTE for word in words), np.uint8)
    symbols = np.array([xxhash.xxh3_64_intdigest(bytes([value])) for value in range(256)], np.uint64)
    return symbols[spelled], spelled != _BEGIN_BYTE[0]


def _any_byte(n: int) -> LogProbabilities:
    """255 symbols can follow in a word: bytes but the opening one."""
    return np.full(n, -math.log(255), np.float32)
