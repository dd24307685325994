from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from beam_jobs.perplexity.buckets import Thresholds
from beam_jobs.perplexity.ngram import NgramModel
from beam_jobs.perplexity.scorer import CrossFitted, fold_of, is_sampled, judge, make_scorer
from beam_jobs.simhash import fingerprint
from beam_jobs.split import splits_of
from lake.errors import TidemillError
from lake.recipe import Perplexity
from tests.documents import document


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [document(number) for number in range(3_000)]


@pytest.fixture(scope="module")
def exact(texts: list[str]) -> np.ndarray:
    return np.array([fingerprint(text).exact for text in texts], np.uint64)


class Lengths:
    """A scorer whose answers are easy to tell: a text's length."""

    def perplexities(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([float(len(text)) for text in texts])


@pytest.mark.parametrize("share", [0.01, 0.3, 1.0])
def test_a_sample_has_the_share_asked_for(share: float, exact: np.ndarray) -> None:
    assert is_sampled(exact, share).mean() == pytest.approx(share, abs=3 * (share * (1 - share) / len(exact)) ** 0.5)


def test_a_sample_is_part_of_a_larger_one_and_that_of_the_same_text_elsewhere(exact: np.ndarray) -> None:
    small, large = is_sampled(exact, 0.1), is_sampled(exact, 0.4)

    assert not (small & ~large).any()
    np.testing.assert_array_equal(is_sampled(exact[::-1], 0.1)[::-1], small)


def test_a_sample_is_drawn_from_every_split_alike(exact: np.ndarray) -> None:
    splits = splits_of(exact, 0.2, 0.2)

    for split in ("train", "validation", "test"):
        assert is_sampled(exact[splits == split], 0.5).mean() == pytest.approx(0.5, abs=0.06)


def test_what_is_not_in_the_sample_is_neither_scored_nor_judged(texts: list[str], exact: np.ndarray) -> None:
    rules = Perplexity(share=0.5, max_perplexity=1, drop=("middle", "tail"))
    sampled = is_sampled(exact, 0.5)

    found = judge(Lengths(), texts, exact, rules, Thresholds(1, 2))

    np.testing.assert_array_equal(~np.isnan(found.perplexity), sampled)
    for is_in, bucket, detail in zip(sampled, found.bucket, found.rejected, strict=True):
        assert (bucket, detail is None) == (("tail", False) if is_in else (None, True))


def test_scores_go_to_the_documents_that_they_are_of(texts: list[str], exact: np.ndarray) -> None:
    found = judge(Lengths(), texts, exact, Perplexity(share=0.3), None)

    scored = ~np.isnan(found.perplexity)
    np.testing.assert_array_equal(found.perplexity[scored], np.array([len(text) for text in texts])[scored])
    assert set(found.bucket) == {None}


@pytest.mark.parametrize(
    ("rules", "details"),
    [
        ({}, [None, None, None]),
        ({"drop": ["tail"]}, [None, None, "30, tail"]),
        ({"drop": ["middle", "tail"]}, [None, "20, middle", "30, tail"]),
        ({"max_perplexity": 15}, [None, "20, at most 15", "30, at most 15"]),
        ({"max_perplexity": 25, "drop": ["middle"]}, [None, "20, middle", "30, at most 25"]),
    ],
)
def test_documents_are_rejected_by_bucket_or_by_number(
    rules: dict[str, object], details: list[str | None], exact: np.ndarray
) -> None:
    found = judge(
        Lengths(), ["x" * 10, "x" * 20, "x" * 30], exact[:3], Perplexity.model_validate(rules), Thresholds(12, 24)
    )

    assert found.bucket == ["head", "middle", "tail"]
    assert found.rejected == details


def test_no_documents_are_judged_to_nothing() -> None:
    found = judge(Lengths(), [], np.zeros(0, np.uint64), Perplexity(), Thresholds(1, 2))

    assert (len(found.perplexity), found.bucket, found.rejected) == (0, [], [])


def test_cross_fitted_models_score_the_other_fold(paragraphs: list[str]) -> None:
    models = tuple(
        NgramModel.train([text for text in paragraphs[:300] if fold_of(text) != fold], order=3) for fold in (0, 1)
    )
    found = CrossFitted(models).perplexities(paragraphs[:300])

    by_itself = [models[1 - fold_of(text)].perplexities([text])[0] for text in paragraphs[:300]]
    by_other = [models[fold_of(text)].perplexities([text])[0] for text in paragraphs[:300]]
    np.testing.assert_allclose(found, by_other, rtol=1e-5)
    assert np.median(found) > 3 * np.median(by_itself)  # whoever has learnt a text by heart finds it easy


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TidemillError, match="expected a causal language model's ONNX export") as caught:
        make_scorer(Perplexity(model=f"file:{tmp_path}/gone"), ())
    assert str(tmp_path / "gone") in caught.value.where
