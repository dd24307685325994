"""Texts for tests of preparation: English enough for every rule, all different, and edited copies of them."""

from __future__ import annotations

import random

_SUBJECTS = [
    "server",
    "client",
    "index",
    "parser",
    "buffer",
    "thread",
    "query",
    "table",
    "socket",
    "signal",
    "worker",
    "ledger",
    "bucket",
    "replica",
]
_VERBS = [
    "reads",
    "writes",
    "opens",
    "closes",
    "holds",
    "drops",
    "sends",
    "splits",
    "merges",
    "checks",
    "counts",
    "sorts",
    "keeps",
    "loads",
]
_OBJECTS = [
    "the record",
    "a page",
    "its header",
    "one row",
    "every key",
    "the answer",
    "a token",
    "the queue",
    "its state",
    "the log",
]
_ENDS = [
    "before it starts",
    "after the first error",
    "when the disk is full",
    "in the order of arrival",
    "as fast as it can",
]


def document(number: int, n_sentences: int = 12) -> str:
    """The text of this number: the same in every process, unlike all others."""
    draw = random.Random(number)
    sentences = [
        f"The {draw.choice(_SUBJECTS)} {draw.choice(_VERBS)} {draw.choice(_OBJECTS)} {draw.choice(_ENDS)}, "
        f"and case {draw.randrange(10**6)} of the {draw.choice(_SUBJECTS)} {draw.choice(_VERBS)} {draw.choice(_OBJECTS)}."
        for _ in range(n_sentences)
    ]
    return " ".join(sentences)


def edited(text: str, n_words: int = 1, seed: int = 0) -> str:
    """The text with some words replaced: a near-duplicate."""
    words, draw = text.split(" "), random.Random(seed)
    for place in draw.sample(range(len(words)), n_words):
        words[place] = f"changed{draw.randrange(1000)}"
    return " ".join(words)
