from __future__ import annotations

import hashlib
import random
import subprocess
import sys

import numpy as np
import pytest

from beam_jobs.perplexity.ngram import NgramModel


@pytest.fixture(scope="module")
def model(paragraphs: list[str]) -> NgramModel:
    return NgramModel.train(paragraphs[:500], order=3)


def shuffled(text: str) -> str:
    words = text.split()
    random.Random(0).shuffle(words)
    return " ".join(words)


def noise(n_characters: int, seed: int) -> str:
    return "".join(random.Random(seed).choices("abcdefghijklmnopqrstuvwxyz     ,.", k=n_characters))


def one(model: NgramModel, text: str) -> float:
    return float(model.perplexities([text])[0])


def test_new_text_of_the_kind_is_below_its_words_in_disorder_and_they_below_noise(
    model: NgramModel, paragraphs: list[str]
) -> None:
    new = paragraphs[500:]

    as_written = model.perplexities(new)
    disordered = model.perplexities([shuffled(text) for text in new])
    noisy = model.perplexities([noise(400, seed) for seed in range(len(new))])

    assert (as_written < disordered).mean() > 0.95
    assert disordered.max() < noisy.min()
    assert np.median(as_written) * 1.5 < np.median(disordered)


def test_text_of_another_kind_is_above(model: NgramModel, paragraphs: list[str], legal_paragraphs: list[str]) -> None:
    own, other = model.perplexities(paragraphs[500:]), model.perplexities(legal_paragraphs)

    assert np.mean([np.mean(own < value) for value in other]) > 0.85  # the area under the ROC curve


def test_what_it_was_trained_on_is_far_below_what_it_was_not(model: NgramModel, paragraphs: list[str]) -> None:
    known, new = model.perplexities(paragraphs[:80]), model.perplexities(paragraphs[500:])

    assert np.median(known) * 3 < np.median(new)


def test_a_higher_order_fits_its_training_texts_better(paragraphs: list[str]) -> None:
    by_order = [np.median(NgramModel.train(paragraphs[:100], order).perplexities(paragraphs[:100])) for order in (1, 3)]

    assert by_order[1] < by_order[0] / 2


def test_a_document_is_scored_alike_whatever_is_in_the_batch(model: NgramModel, paragraphs: list[str]) -> None:
    texts = [*paragraphs[480:580], "", noise(300, 1)]

    together = model.perplexities(texts)

    np.testing.assert_allclose(together, [one(model, text) for text in texts], rtol=1e-5)
    np.testing.assert_allclose(model.perplexities(texts[::-1])[::-1], together, rtol=1e-5)


def test_every_text_has_a_finite_perplexity_of_at_least_1(model: NgramModel) -> None:
    odd = [
        "",
        " \n\n ",
        "\x00\x02\x03",
        "=" * 50_000,
        "x" * 50_000,
        "日本語の文章です。",
        "ญี่ปุ่น",
        "🙂🙃",
        "A",
        "١٢٣",
        "é" * 40,
    ]

    found = model.perplexities(odd)

    assert np.isfinite(found).all()
    assert (found >= 1).all()


def test_no_texts_have_no_perplexities(model: NgramModel) -> None:
    assert model.perplexities([]).shape == (0,)


def test_no_text_to_train_on_is_an_error() -> None:
    with pytest.raises(ValueError, match="no text"):
        NgramModel.train([], order=3)


def test_case_and_numbers_are_no_surprise(model: NgramModel) -> None:
    assert one(model, "The Value Is 10.") == one(model, "the value is 99.")


def test_a_new_word_costs_by_its_spelling(model: NgramModel) -> None:
    likely, unlikely = one(model, "the unreturnables are"), one(model, "the xqzvkjwqpffgxzb are")

    assert one(model, "the values are") < likely < unlikely


def test_a_word_after_an_unknown_one_is_scored_by_shorter_contexts(model: NgramModel) -> None:
    assert one(model, "qzxv the value of the") < one(model, "qzxv of value the the")


def test_characters_of_scripts_without_spaces_are_words_of_their_own() -> None:
    model = NgramModel.train(["私は猫が好きです", "私は犬が好きです", "彼は猫が嫌いです"], order=3)

    assert one(model, "私は猫が好きです") < one(model, "好は猫す私がきで")


def test_memory_of_words_met_is_bounded(model: NgramModel, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [noise(3_000, seed) for seed in range(3)]
    before = model.perplexities(texts)
    monkeypatch.setattr("beam_jobs.perplexity.ngram._Met.MAX_TOKENS", 100)

    found = [one(model, text) for text in texts]
    model.perplexities(["now"])

    np.testing.assert_allclose(found, before, rtol=1e-5)
    assert len(model._met) < 100


def test_saved_and_loaded_it_scores_the_same(model: NgramModel, paragraphs: list[str]) -> None:
    again = NgramModel.from_tensors(model.tensors())

    np.testing.assert_array_equal(again.perplexities(paragraphs[450:]), model.perplexities(paragraphs[450:]))


TRAIN = """
import hashlib, sys
from beam_jobs.perplexity.ngram import NgramModel
tensors = NgramModel.train(sys.stdin.read().split("|"), order=3).tensors()
print(hashlib.sha256(b"".join(tensors[name].tobytes() for name in sorted(tensors))).hexdigest())
"""


def test_another_process_trains_the_same_model(paragraphs: list[str]) -> None:
    texts = [text for text in paragraphs[:40] if "|" not in text]
    tensors = NgramModel.train(texts, order=3).tensors()
    here = hashlib.sha256(b"".join(tensors[name].tobytes() for name in sorted(tensors))).hexdigest()

    there = subprocess.run(
        [sys.executable, "-c", TRAIN], input="|".join(texts), capture_output=True, text=True, check=True, timeout=120
    )

    assert there.stdout.strip() == here
